"""What devices that work together tell each other, whatever carries it: the contract.

In: messages, each a small JSON object with arrays, addressed to a peer by its name. Out: the same
messages at that peer, in the order in which they were sent to it; and who was lost or found
meanwhile. Knows nothing of models, plans, sockets or processes. The transports are in
``threads.py`` (the oracle of the others), ``zeromq/`` and ``mpi.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

LOST = "lost"
"""The key of what an exchange itself puts into its mailbox when a peer is lost; its head says
``why``."""
FOUND = "found"
"""The key of what it puts there when a peer is there: for the first time, or again."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
"""The head of a message that has none."""


class Message(NamedTuple):
    """What one member sent to another."""

    peer: str
    """Who sent it: the name that was authenticated, never one that is only claimed. For ``LOST``
    and ``FOUND``, who was lost or found."""
    key: str
    """What it belongs to: 1 to 64 printable ASCII characters."""
    head: Mapping[str, Any]
    """A JSON object."""
    arrays: tuple[NDArray[Any], ...]
    """Writable memory of the receiver's own, C order."""
    arrived_s: float = 0.0
    """When it was there to be received, in seconds of ``time.monotonic``."""


class Exchange(Protocol):
    """A member's door to the others.

    Any thread may call anything at any time. Messages from one peer arrive in the order in which
    they were sent, each once or, when the peer was lost, not at all. Closed by whoever made it; in
    a forked child it only raises.
    """

    @property
    def name(self) -> str:
        """Of this member."""

    def send(
        self,
        peer: str,
        key: str,
        head: Mapping[str, Any] = NOTHING,
        arrays: Sequence[NDArray[Any]] = (),
    ) -> None:
        """Queue a message and return at once.

        Args:
            peer: a member that was found and is not lost.
            key: 1 to 64 printable ASCII characters, neither ``LOST`` nor ``FOUND``.
            head: a JSON object within ``frames.HEAD_LIMITS``; copied.
            arrays: at most ``frames.MOST_ARRAYS``, of the dtypes of ``frames.DTYPES``, of any
                strides; copied, so that they may be overwritten as soon as this returns.

        Raises:
            InputError: a key, head or array that cannot be sent, or this member's own name.
            PeerLostError: the peer is lost, also because it takes in less than it is sent.
            PeerError: the peer is unknown, refused or was not found yet, or too much waits for it.
            ClosedError: this exchange was closed.
        """

    def receive(
        self,
        *,
        key: str | None = None,
        peer: str | None = None,
        watch: Collection[str] = (),
        deadline: float | None,
    ) -> Message:
        """Take the oldest message that matches; wait for it until the deadline.

        Messages of the keys ``LOST`` and ``FOUND`` match like others. What has arrived is given out
        even if its sender is lost by now.

        Args:
            key: of the message; None for any.
            peer: who sent it; None for any.
            watch: peers whose loss is to end the waiting, besides ``peer``.
            deadline: in seconds of ``time.monotonic``; None waits for ever.

        Raises:
            PeerLostError: ``peer`` or one of ``watch`` is lost, or was and nobody has received the
                ``LOST`` message of it yet, so that no loss is missed between two calls. Does not
                apply where ``LOST`` or ``FOUND`` is waited for.
            PeerError: ``peer`` is not there, and it or this member refuses the other.
            DeadlineError: nothing came in time.
            ClosedError: this exchange was closed, or the key given up (``forget``).
        """

    def forget(self, key: str) -> None:
        """Give up a key: drop its messages, now and later, and end whoever waits for them.

        The last ``mailbox.MOST_FORGOTTEN`` keys are remembered; one that belongs to nothing any
        more is not to be used again.
        """

    def close(self) -> None:
        """Leave: others lose this member, what is not sent yet is dropped, whoever waits in
        ``receive`` gets ``ClosedError``. Takes a bounded time. Idempotent.
        """
