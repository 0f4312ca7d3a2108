"""The ways between the workers of a controller: which of them reach each other, and how fast.

In: workers that are there, what they say of one another. Out: links. Those that do not reach each
other are both of use next to the controller, and are asked to try again, less and less often. For
one thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sti.devices import commands
from sti.devices.questions import Questions
from sti.errors import InputError, PeerError
from sti.json_fields import JsonFields
from sti.notices import Notify
from sti.planning.links import Link

_AGAIN_S, _MOST_AGAIN_S = 5.0, 600.0
_MOST_DELAY_S = 3600.0


@dataclass(slots=True)
class _Way:
    """Between two workers, of which the first connects to the other."""

    link: Link | None = None
    again_s: float | None = None
    """When the first one is to be asked again, in seconds of ``time.monotonic``: it failed, or has
    not answered until then; an answer may be lost with a connection of which there are two."""
    pause_s: float = _AGAIN_S
    """How long it is left alone when it is asked the next time."""


class Ways:
    """The ways between the workers of one controller.

    Args:
        questions: asks them.
        addresses: name to address.
        notify: told of those that do not reach each other.
    """

    def __init__(self, questions: Questions, addresses: Mapping[str, str], notify: Notify) -> None:
        self._questions, self._addresses, self._notify = questions, addresses, notify
        self._ways: dict[tuple[str, str], _Way] = {}

    @property
    def links(self) -> dict[tuple[str, str], Link]:
        """Of each pair that reach each other, once, as they were measured."""
        return {pair: way.link for pair, way in self._ways.items() if way.link is not None}

    def join(self, name: str, others: Sequence[str]) -> None:
        """Let workers that are there get to know one that has come."""
        self.forget(name)
        for other in others:
            self._ways[other, name] = _Way()
            self._reach(other, name)

    def cut(self, one: str, other: str) -> None:
        """Two workers do not reach each other any more; they are to try again."""
        for pair in ((one, other), (other, one)):
            way = self._ways.get(pair)
            if way is not None and way.link is not None:
                way.link = None
                self._reach(*pair)

    def forget(self, name: str) -> None:
        """A worker is gone."""
        for pair in [pair for pair in self._ways if name in pair]:
            del self._ways[pair]

    def ask_again(self, now_s: float) -> None:
        """Have those try again that it is time for."""
        for pair, way in list(self._ways.items()):
            if way.again_s is not None and now_s > way.again_s:
                self._reach(*pair)

    def _reach(self, one: str, other: str) -> None:
        """Have a worker connect to another, and measure the way there."""
        way = self._ways[one, other]
        way.again_s = time.monotonic() + way.pause_s
        way.pause_s = min(_MOST_AGAIN_S, 2.0 * way.pause_s)

        def heard(fields: JsonFields) -> None:
            delay_s = fields.number("delay_s", least=0.0, most=_MOST_DELAY_S)
            if self._ways.get((one, other)) is way:
                way.link = Link(delay_s, fields.number("bytes_per_s", least=1.0))
                way.again_s, way.pause_s = None, _AGAIN_S

        def failed(why: str) -> None:
            self._notify(f"device {one} does not reach {other}: {why}")

        reach = {"do": commands.REACH, "name": other, "address": self._addresses[other]}
        try:
            self._questions.ask(one, reach, heard, failed=failed)
        except (PeerError, InputError) as error:
            failed(str(error))
