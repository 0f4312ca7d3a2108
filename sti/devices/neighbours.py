"""Other workers that a worker sends hidden states to: reaching them, and measuring the ways there.

In: which workers controllers want reached, who was found or lost, answers of echoes. Out: links,
told to whoever asked, in whatever order that comes about: nobody waits, so that two workers that
are to reach each other answer each other. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sti.devices import commands
from sti.devices.links import LinkMeter
from sti.errors import PeerError
from sti.exchange.interface import Exchange, Message

MOST_NEIGHBOURS = 32
"""Workers that are being reached at a time."""
Connect = Callable[[str, str], None]
"""Makes the peer of this name reachable at this address."""
Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Sends a peer a head under a key, if the peer is there."""


class Neighbours:
    """The other workers that one worker knows.

    Args:
        exchange: reaches them; stays the caller's.
        connect: makes one reachable.
        tell: answers whoever asked.
    """

    def __init__(self, exchange: Exchange, connect: Connect, tell: Tell) -> None:
        self._exchange, self._connect, self._tell = exchange, connect, tell
        self._there: set[str] = set()
        self._asked: dict[str, dict[str, str]] = {}
        """Neighbour to who wants to know the way there, and the key of the question."""
        self._meters: dict[str, LinkMeter] = {}

    def reach(self, name: str, address: str, *, asker: str, key: str) -> None:
        """Get to know a worker, and measure the way to it; the answer comes later.

        Raises:
            PeerError: too many are being reached.
            InputError: the address, or the name, cannot be used.
        """
        if name not in self._asked and len(self._asked) >= MOST_NEIGHBOURS:
            raise PeerError(f"{self._exchange.name}: reaches {MOST_NEIGHBOURS} devices already")
        if name not in self._there:
            self._connect(name, address)
        self._asked.setdefault(name, {})[asker] = key
        if name in self._there:
            self._measure(name)

    def found(self, name: str) -> None:
        """A peer is there."""
        self._there.add(name)
        if name in self._asked:
            self._measure(name)

    def lost(self, name: str) -> None:
        """A peer is gone."""
        self._there.discard(name)
        if self._meters.pop(name, None) is not None:
            self._answer(name, commands.failure(f"{name} is lost"))
        for askers in self._asked.values():
            askers.pop(name, None)
        self._asked = {asked: askers for asked, askers in self._asked.items() if askers}

    def take(self, answer: Message) -> None:
        """Take in an answer that may be an echo's."""
        meter = self._meters.get(answer.peer)
        if meter is None or meter.key != answer.key:
            return
        try:
            link = meter.take(answer)
        except PeerError as error:
            del self._meters[answer.peer]
            self._answer(answer.peer, commands.failure(str(error)))
            return
        if link is not None:
            del self._meters[answer.peer]
            self._answer(answer.peer, {"is": commands.REACH, **link._asdict()})

    def _measure(self, name: str) -> None:
        try:
            # Anew where one is at it: its echo may be lost.
            self._meters[name] = LinkMeter(self._exchange, name)
        except PeerError as error:
            self._answer(name, commands.failure(str(error)))

    def _answer(self, name: str, head: Mapping[str, Any]) -> None:
        for asker, key in self._asked.pop(name, {}).items():
            self._tell(asker, key, head)
