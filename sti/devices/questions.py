"""What a controller asks devices outside of runs, and who takes the answers in, whenever they come.

In: questions, with what is to be done with the answer; messages. Out: calls. Nobody waits for an
answer: a device may be busy for as long as a run takes. Knows nothing of what is asked. For one
thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sti.devices.commands import answer_of, ask_key
from sti.devices.links import LinkMeter
from sti.errors import PeerError
from sti.exchange.interface import Exchange, Message
from sti.json_fields import JsonFields
from sti.planning.links import Link

Heard = Callable[[JsonFields], None]
"""Takes an answer in; raises ``StiError`` where it is none."""


class _Question(NamedTuple):
    peer: str
    take: Callable[[Message], None]
    round: int


class Questions:
    """The questions of one controller.

    Args:
        exchange: carries them; stays the caller's.
        session: the controller's.
    """

    def __init__(self, exchange: Exchange, session: str) -> None:
        self._exchange, self._session = exchange, session
        self._open: dict[str, _Question] = {}
        """By the key of the answer."""
        self._asked = self._round = 0
        self.asked_s = time.monotonic()
        """When something was asked last."""

    def ask(
        self,
        peer: str,
        head: Mapping[str, Any],
        heard: Heard,
        arrays: Sequence[NDArray[Any]] = (),
        *,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        """Ask a device for something.

        Args:
            heard: gets the answer.
            failed: told instead why there is none, where that says nothing of the device; None:
                ``take`` raises it.

        Raises:
            PeerError: it is not there.
            InputError: what is asked for is too much for a message.
        """
        key, self._asked = ask_key(self._session, self._asked), self._asked + 1
        self._exchange.send(peer, key, head, arrays)

        def take(answer: Message) -> None:
            try:
                fields = answer_of(answer.head, where=f"answer of {peer}")
            except PeerError as error:
                if failed is None:
                    raise
                failed(str(error))
            else:
                heard(fields)

        self._note(key, peer, take)

    def measure(self, peer: str, heard: Callable[[Link], None]) -> None:
        """Measure the link to a device.

        Raises:
            PeerError: it is not there.
        """
        self._listen(LinkMeter(self._exchange, peer), heard)

    def _listen(self, meter: LinkMeter, heard: Callable[[Link], None]) -> None:
        def take(answer: Message) -> None:
            link = meter.take(answer)
            if link is None:
                self._listen(meter, heard)
            else:
                heard(link)

        self._note(meter.key, meter.peer, take)

    def take(self, answer: Message) -> None:
        """Take in what may be an answer.

        Raises:
            StiError: it says that the device failed, or is no answer to what was asked.
        """
        question = self._open.get(answer.key)
        if question is not None and question.peer == answer.peer:
            del self._open[answer.key]
            question.take(answer)

    def are_open(self, peer: str | None = None) -> bool:
        """Whether a device, or any, is yet to answer."""
        return any(peer in (None, question.peer) for question in self._open.values())

    def has(self, answer: Message) -> bool:
        """Whether a message is the answer to an open question."""
        question = self._open.get(answer.key)
        return question is not None and question.peer == answer.peer

    def drop(self, peer: str) -> None:
        """A device will not answer any more."""
        for key in [key for key, question in self._open.items() if question.peer == peer]:
            del self._open[key]

    def begin_round(self) -> None:
        """What is asked from now on is of a new round."""
        self._round += 1

    @property
    def are_new(self) -> bool:
        """Whether something that was asked in this round is yet to be answered."""
        return any(question.round == self._round for question in self._open.values())

    def _note(self, key: str, peer: str, take: Callable[[Message], None]) -> None:
        self._open[key] = _Question(peer, take, self._round)
        self.asked_s = time.monotonic()
