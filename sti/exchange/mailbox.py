"""What has arrived for a member and nobody has taken yet, and which of its peers are there.

In: whole messages, peers that were found or lost, all from a transport. Out: the oldest message
that matches, to whoever waits for it. What each peer may leave there is bounded, so that one that
sends without being asked takes no memory from the rest. Knows nothing of bytes or of what carries
them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Collection
from time import monotonic

from sti.errors import ClosedError, DeadlineError, InputError, PeerError, PeerLostError, RunError
from sti.exchange.frames import MOST_ARRAY_BYTES
from sti.exchange.interface import FOUND, LOST, Message
from sti.storage.threads import LOOK_S

MOST_HELD_BYTES = MOST_ARRAY_BYTES + (1 << 25)
"""Of messages of one peer that nobody has taken: one of the largest, or many small ones."""
MOST_FORGOTTEN = 1024
"""Keys that stay forgotten: the last ones."""
_NOTICES = (LOST, FOUND)


def flooded(sender: str, receiver: str) -> str:
    """Why two lose one another where one sends more than the other takes."""
    return f"{sender} sent more than {receiver} has room for until it is received"


class _Held(deque[tuple[int, Message, int]]):
    """Messages of one peer and key, oldest first: their order among all, and their bytes."""


class Mailbox:
    """The mailbox of one member. Thread-safe.

    Args:
        name: the member's.
        most_bytes: what messages of one peer may take until they are received.
    """

    def __init__(self, name: str, *, most_bytes: int = MOST_HELD_BYTES) -> None:
        self.name = name
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._held: dict[tuple[str, str], _Held] = {}
        self._held_bytes: dict[str, int] = {}
        self._count = 0
        self._there: set[str] = set()
        self._gone: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._unreachable: dict[str, str] = {}
        self._forgotten: dict[str, None] = {}  # oldest first
        self._is_closed, self._why_closed = False, ""
        self._process = os.getpid()

    def has_room(self, peer: str, held_bytes: int) -> bool:
        """Whether a message of this size would be taken from a peer."""
        with self._changed:
            return self._held_bytes.get(peer, 0) + held_bytes <= self._most_bytes

    def wants(self, key: str) -> bool:
        """Whether messages of a key are kept, and not forgotten."""
        with self._changed:
            return key not in self._forgotten and not self._is_closed

    def put(self, message: Message, held_bytes: int) -> bool:
        """Take in a message; False, without it, where its peer has left too much already."""
        with self._changed:
            if not self.has_room(message.peer, held_bytes):
                return False
            if self.wants(message.key):
                self._add(message, held_bytes)
            return True

    def found(self, peer: str) -> None:
        """A peer is there, and so was not before; tells whoever waits."""
        with self._changed:
            self._there.add(peer)
            for why in (self._gone, self._refused, self._unreachable):
                why.pop(peer, None)
            self._tell(Message(peer, FOUND, {}, ()))

    def lost(self, peer: str, why: str) -> None:
        """A peer that was there is gone; tells whoever waits. Does nothing where it was not."""
        with self._changed:
            if peer in self._there:
                self._there.remove(peer)
                self._gone[peer] = why
                self._tell(Message(peer, LOST, {"why": why}, ()))

    def refused(self, peer: str, why: str) -> None:
        """A peer that is not there will not be: ends whoever waits for it, by name, until it is
        found after all.
        """
        with self._changed:
            if peer not in self._there:
                self._refused[peer] = why
            self._changed.notify_all()

    def unreachable(self, peer: str, why: str) -> None:
        """A peer is not there yet: whoever waits for it in vain is told why."""
        with self._changed:
            if peer not in self._there:
                self._refused.pop(peer, None)
                self._unreachable[peer] = why

    def check_peer(self, peer: str) -> None:
        """Refuse to send to a peer that is not there.

        Raises:
            PeerLostError, PeerError, ClosedError, InputError: as ``Exchange.send`` does.
        """
        self.check_process()
        with self._changed:
            self.check_open()
            if peer == self.name:
                raise InputError(f"{peer}: is this member itself, which sends itself nothing")
            if peer in self._gone:
                raise _lost(peer, self._gone[peer])
            if peer in self._refused:
                raise PeerError(f"{peer}: {self._refused[peer]}")
            if peer not in self._there:
                why = self._unreachable.get(peer, "see that its name and address are right")
                raise PeerError(f"{peer}: was not found yet; wait for its message {FOUND!r}: {why}")

    def receive(
        self,
        *,
        key: str | None,
        peer: str | None,
        watch: Collection[str],
        deadline: float | None,
    ) -> Message:
        """As ``Exchange.receive``."""
        self.check_process()
        watched = () if key in _NOTICES else {*watch, *([] if peer is None else [peer])}
        with self._changed:
            while True:
                self.check_open()
                message = self._take(key, peer)
                if message is not None:
                    return message
                if key in self._forgotten:
                    raise ClosedError(f"message {key!r}: was given up; none will come")
                for other in watched:
                    why = self._why_lost(other)
                    if why is not None:
                        raise _lost(other, why)
                if peer in self._refused:
                    raise PeerError(f"{peer}: {self._refused[peer]}")
                left_s = LOOK_S if deadline is None else deadline - monotonic()
                if left_s <= 0:
                    raise self._late(key, peer)
                self._changed.wait(min(left_s, LOOK_S))

    def forget(self, key: str) -> None:
        """As ``Exchange.forget``."""
        self.check_process()
        with self._changed:
            self._forgotten.pop(key, None)
            self._forgotten[key] = None
            if len(self._forgotten) > MOST_FORGOTTEN:
                del self._forgotten[next(iter(self._forgotten))]
            for place in [place for place in self._held if place[1] == key]:
                self._drop(place)
            self._changed.notify_all()

    def close(self, why: str = "") -> None:
        """Drop everything, and end whoever waits. Idempotent; does nothing in a forked child.

        Args:
            why: where its owner did not ask for it.
        """
        if os.getpid() != self._process:
            return
        with self._changed:
            self._is_closed = True
            self._why_closed = self._why_closed or why
            self._held.clear()
            self._held_bytes.clear()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def check_open(self) -> None:
        """Refuse to go on with a closed exchange.

        Raises:
            ClosedError: it is.
            RunError: this is a forked child.
        """
        self.check_process()
        if self._is_closed:
            why = f": {self._why_closed}" if self._why_closed else ""
            raise ClosedError(f"{self.name}: this exchange was closed{why}")

    def check_process(self) -> None:
        """Refuse to go on in a forked child, where nobody brings messages or frees locks.

        Raises:
            RunError: this is one.
        """
        if os.getpid() != self._process:
            raise RunError(
                f"{self.name}: this exchange belongs to process {self._process}, which this one "
                "was forked from; make one after the fork"
            )

    def _why_lost(self, peer: str) -> str | None:
        """Why a peer is lost, or was so that nobody knows yet; None if it is not."""
        told = self._held.get((peer, LOST))
        if told:
            return str(told[0][1].head["why"])
        return self._gone.get(peer)

    def _tell(self, message: Message) -> None:
        # Of a peer that comes and goes, only the last of each is kept.
        self._drop((message.peer, message.key))
        self._add(message, 0)

    def _add(self, message: Message, held_bytes: int) -> None:
        self._count += 1
        held = self._held.setdefault((message.peer, message.key), _Held())
        held.append((self._count, message._replace(arrived_s=monotonic()), held_bytes))
        self._count_bytes(message.peer, held_bytes)
        self._changed.notify_all()

    def _take(self, key: str | None, peer: str | None) -> Message | None:
        if key is not None and peer is not None:
            place = (peer, key) if (peer, key) in self._held else None
        else:
            matching = (
                place
                for place in self._held
                if (peer is None or place[0] == peer) and (key is None or place[1] == key)
            )
            place = min(matching, key=lambda place: self._held[place][0][0], default=None)
        if place is None:
            return None
        _, message, held_bytes = self._held[place].popleft()
        if not self._held[place]:
            del self._held[place]
        self._count_bytes(message.peer, -held_bytes)
        return message

    def _drop(self, place: tuple[str, str]) -> None:
        for _, message, held_bytes in self._held.pop(place, ()):
            self._count_bytes(message.peer, -held_bytes)

    def _late(self, key: str | None, peer: str | None) -> DeadlineError:
        what = "no message" if key is None else f"no message {key!r}"
        if peer is None:
            return DeadlineError(f"{what} came in time from anyone")
        why = self._unreachable.get(peer)
        return DeadlineError(f"{what} came in time from {peer}{f': {why}' if why else ''}")

    def _count_bytes(self, peer: str, more: int) -> None:
        self._held_bytes[peer] = self._held_bytes.get(peer, 0) + more
        if not self._held_bytes[peer]:
            del self._held_bytes[peer]


def _lost(peer: str, why: str) -> PeerLostError:
    return PeerLostError(f"{peer}: was lost: {why}", peer=peer)
