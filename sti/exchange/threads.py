"""Members as threads of one process: the oracle of the other transports, and the network of tests.

In: the names of members. Out: an ``Exchange`` for each, between which messages travel at once. They
pass through bytes all the same: what another transport refuses is refused here too.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from sti.errors import InputError
from sti.exchange.frames import Arriving, encode, read_envelope
from sti.exchange.interface import NOTHING, Message
from sti.exchange.mailbox import MOST_HELD_BYTES, Mailbox, flooded


def thread_exchanges(
    names: Iterable[str], *, most_bytes: int = MOST_HELD_BYTES
) -> dict[str, ThreadExchange]:
    """A member for each name, all of which have found one another.

    Args:
        most_bytes: what messages of one peer may take until they are received.
    """
    network = _Network(most_bytes)
    given = list(names)
    if len(set(given)) < len(given):
        raise InputError(f"members {', '.join(given)}: each name may be there once")
    return {name: network.join(name) for name in given}


class ThreadExchange:
    """An ``Exchange`` with members in the same process."""

    def __init__(self, name: str, network: _Network, mailbox: Mailbox) -> None:
        self._name, self._network, self._mailbox = name, network, mailbox

    @property
    def name(self) -> str:
        """Of this member."""
        return self._name

    def send(
        self,
        peer: str,
        key: str,
        head: Mapping[str, Any] = NOTHING,
        arrays: Sequence[NDArray[Any]] = (),
    ) -> None:
        """As ``Exchange.send``."""
        self._mailbox.check_peer(peer)
        encoded = encode(key, head, arrays)
        arriving = Arriving(read_envelope(encoded.envelope))
        for array in encoded.arrays:
            arriving.add(array)
        envelope = arriving.envelope
        message = Message(self._name, envelope.key, envelope.head, arriving.arrays())
        if not self._network.deliver(peer, message, envelope.held_bytes):
            self._network.part(self._name, peer)
            self._mailbox.check_peer(peer)

    def receive(
        self,
        *,
        key: str | None = None,
        peer: str | None = None,
        watch: Collection[str] = (),
        deadline: float | None,
    ) -> Message:
        """As ``Exchange.receive``."""
        return self._mailbox.receive(key=key, peer=peer, watch=watch, deadline=deadline)

    def forget(self, key: str) -> None:
        """As ``Exchange.forget``."""
        self._mailbox.forget(key)

    def close(self) -> None:
        """As ``Exchange.close``."""
        self._leave("it was closed")

    def kill(self) -> None:
        """End as a device does that loses its power; a closed member stays as it is."""
        self._leave("it was killed")

    def again(self) -> ThreadExchange:
        """A new member under the same name, as of a device that was started again: whoever had
        lost this one finds that one. This one is killed first, unless it was closed.
        """
        self.kill()
        return self._network.join(self._name)

    def _leave(self, why: str) -> None:
        self._mailbox.close()
        self._network.leave(self._name, self._mailbox, why)


class _Network:
    """The mailboxes of all members that are there."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.RLock()  # a signal handler may close a member
        self._mailboxes: dict[str, Mailbox] = {}

    def join(self, name: str) -> ThreadExchange:
        """A new member, which finds the others and is found by them."""
        mailbox = Mailbox(name, most_bytes=self._most_bytes)
        with self._lock:
            for other, there in self._mailboxes.items():
                there.found(name)
                mailbox.found(other)
            self._mailboxes[name] = mailbox
        return ThreadExchange(name, self, mailbox)

    def deliver(self, peer: str, message: Message, held_bytes: int) -> bool:
        """Hand over a message; False where the peer refuses it. A peer that left just now drops
        it, and tells so itself.
        """
        with self._lock:
            mailbox = self._mailboxes.get(peer)
        return mailbox is None or mailbox.put(message, held_bytes)

    def part(self, sender: str, receiver: str) -> None:
        """Have two lose one another, of which one floods the other."""
        with self._lock:
            for name, other in ((sender, receiver), (receiver, sender)):
                if name in self._mailboxes:
                    self._mailboxes[name].lost(other, flooded(sender, receiver))

    def leave(self, name: str, mailbox: Mailbox, why: str) -> None:
        """Take a member out, so that the others lose it; nothing where another has its name."""
        with self._lock:
            if self._mailboxes.get(name) is mailbox:
                del self._mailboxes[name]
                for other in self._mailboxes.values():
                    other.lost(name, why)
