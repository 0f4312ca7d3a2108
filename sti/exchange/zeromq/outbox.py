"""Messages that wait to be sent, by peer: what callers put in and the carrier takes out.

Knows nothing of connections. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import deque

from sti.errors import PeerError
from sti.exchange.frames import Encoded
from sti.exchange.mailbox import Mailbox

_OVERHEAD_BYTES = 512


class Outbox:
    """The outbox of one member.

    Args:
        mailbox: knows which peers are there.
        most_bytes: what may wait for one peer.
    """

    def __init__(self, mailbox: Mailbox, *, most_bytes: int) -> None:
        self._mailbox, self._most_bytes = mailbox, most_bytes
        self._lock = threading.RLock()  # a signal handler may send, too
        self._waiting: dict[str, deque[Encoded]] = {}
        self._bytes: dict[str, int] = {}

    def put(self, peer: str, message: Encoded) -> None:
        """Queue a message for a peer that is there.

        Raises:
            PeerError, InputError, ClosedError: as ``Exchange.send`` does.
        """
        with self._lock:
            self._mailbox.check_peer(peer)
            queued = self._bytes.get(peer, 0) + _size(message)
            if queued > self._most_bytes:
                raise PeerError(
                    f"{peer}: takes in less than it is sent: with this message more than "
                    f"{self._most_bytes} bytes would wait for it"
                )
            self._bytes[peer] = queued
            self._waiting.setdefault(peer, deque()).append(message)

    def take(self, peer: str) -> Encoded | None:
        """The oldest message for a peer, no longer queued; None if there is none."""
        with self._lock:
            waiting = self._waiting.get(peer)
            if not waiting:
                return None
            message = waiting.popleft()
            self._bytes[peer] -= _size(message)
            return message

    def lost(self, peer: str, why: str) -> None:
        """Drop what waits for a peer that was lost, and tell the mailbox; whatever is sent to it
        from then on is for the one that comes back.
        """
        with self._lock:
            self._waiting.pop(peer, None)
            self._bytes.pop(peer, None)
            self._mailbox.lost(peer, why)


def _size(message: Encoded) -> int:
    return message.size_bytes + _OVERHEAD_BYTES
