"""The connection that this member makes to a peer, and makes again whenever it is lost.

Each connection has a socket of its own, which is closed with it: what was queued for a peer that
was lost never reaches the one that comes back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from time import monotonic

import zmq
from zmq.utils.monitor import recv_monitor_message

from sti.errors import RunError
from sti.exchange.frames import MessageError
from sti.exchange.zeromq.addresses import Address
from sti.exchange.zeromq.links import ENDED, Board, Link
from sti.exchange.zeromq.sockets import FAILED, RETRY_S, Monitored
from sti.exchange.zeromq.wire import HELLO, REFUSED, Hello, Refusal

_REFUSED_S = 1.0
"""After which a peer that refused this member, or was refused, is tried again."""
GIVES_WAY_S = 10.0
"""The same where another member has this one's name there, or where nobody may have it."""
_BATCH = 64
"""Frames that are read of one socket before it is another's turn."""
_MOST_LEFT = 1024
"""Frames that are read of a connection that ended: more than a socket holds."""
_HUNG_UP = (errno.EPIPE, errno.ECONNRESET)
_HINT = "see that both have the keys that `sti devices init` made together"


class Dialed(Link):
    """The connection to one peer.

    Args:
        peer: whom it is to reach.
        address: where.
        board: of all connections.
        make: makes a socket that connects there.
        gives_way: to other members of this one's name there, until it is let in.
        watch, unwatch: have handlers called where sockets have something, or no longer.
    """

    def __init__(
        self,
        peer: str,
        address: Address,
        board: Board,
        *,
        make: Callable[[], Monitored],
        watch: Callable[[zmq.Socket[bytes], Callable[[], None]], None],
        unwatch: Callable[[zmq.Socket[bytes]], None],
        gives_way: bool = False,
    ) -> None:
        super().__init__(peer, board)
        self.address, self.gives_way = address, gives_way
        self._make, self._watch, self._unwatch = make, watch, unwatch
        self._made: Monitored | None = None
        self._retry_at_s: float | None = monotonic()
        self._is_told = False
        self._refused_why = ""

    def push(self, frame: bytes) -> bool:
        """As ``Link.push``; that the peer is gone is told by the monitor."""
        if self._made is None:
            return False
        try:
            self._made.socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def tick(self, now_s: float) -> float | None:
        """Connect anew where it is time to; the seconds until it is."""
        if self._retry_at_s is None:
            return None
        if now_s < self._retry_at_s:
            return self._retry_at_s - now_s
        self._close_sockets()
        try:
            self._made = self._make()
        except RunError as error:
            self._unreachable(str(error))
            self._retry_at_s = now_s + _REFUSED_S
            return _REFUSED_S
        self._retry_at_s = None
        self._watch(self._made.socket, self._on_frames)
        self._watch(self._made.monitor, self._on_event)
        self.push(Hello(self.board.name, self.gives_way).frame())
        return None

    def refuse(self, why: str, *, gives_way: bool = False) -> None:
        """As ``Link.refuse``; tries again in a while."""
        self.push(Refusal(why, gives_way).frame())
        self.down(why)
        self._retry_at_s = monotonic() + _REFUSED_S  # closed then: the refusal needs some time

    def close(self, why: str) -> None:
        """Give the peer up."""
        self.down(why)
        self._retry_at_s = None
        self._close_sockets()

    def _close_sockets(self) -> None:
        if self._made is not None:
            self._unwatch(self._made.socket)
            self._unwatch(self._made.monitor)
            self._made.close()
            self._made = None

    def _on_frames(self) -> None:
        self._read(_BATCH)

    def _read(self, most: int) -> None:
        for _ in range(most):
            if self._made is None:
                return
            try:
                parts = self._made.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                if len(parts) != 1:
                    raise MessageError(f"{len(parts)} parts where there is one")
                data = parts[0].buffer
                self._got(bytes(data[:1]), data[1:])
            except MessageError as error:
                self.board.malformed(self.peer, error)

    def _got(self, kind: bytes, data: memoryview) -> None:
        if self._retry_at_s is not None:
            return  # of a peer that was refused
        if kind == REFUSED:
            refusal = Refusal.read(data)
            self._refused(f"it refuses this device: {refusal.why}", gives_way=refusal.gives_way)
        elif self.is_up:
            self.take(kind, data)
        elif kind != HELLO:
            raise MessageError("something else than a hello")
        else:
            name = Hello.read(data).name
            if name == self.peer:
                self._is_told = self.gives_way = False
                self._refused_why = ""
                self.up()
            else:
                self._refused(f"at {self.address} answers {name!r:.80}, not {self.peer}")

    def _on_event(self) -> None:
        assert self._made is not None
        try:
            event = recv_monitor_message(self._made.monitor, zmq.NOBLOCK)
        except zmq.Again:
            return
        kind = event["event"]
        if kind == zmq.EVENT_DISCONNECTED:
            self._read(_MOST_LEFT)
            self._ended()
        elif kind == zmq.EVENT_CONNECT_RETRIED:
            self._unreachable(f"nothing answers at {self.address}")
        elif kind & FAILED:
            self._failed(kind, event["value"])

    def _ended(self) -> None:
        if self._made is not None and self._retry_at_s is None:
            if not self.is_up:
                self._unreachable(f"{self.address} ended the connection before it said hello")
            self.down(ENDED)
            self._close_sockets()
            self._retry_at_s = monotonic() + RETRY_S

    def _failed(self, kind: int, value: int) -> None:
        """The handshake did not come to an end."""
        if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused(f"it does not know the key of this device: {_HINT}")
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or value in _HUNG_UP:
            # Whichever side sees first that the other is not as it should be hangs up.
            self._refused(
                "the handshake failed: only one of the two has keys, or it has another key than "
                f"it should, or it just ended: {_HINT}"
            )
        else:
            self._unreachable(f"{self.address} does not shake hands: {os.strerror(value)}")
            self._retry_at_s = monotonic() + _REFUSED_S

    def _refused(self, why: str, *, gives_way: bool = False) -> None:
        self.down(why)
        self.board.mailbox.refused(self.peer, why)
        if not gives_way or why != self._refused_why:
            self.board.notices.tell(f"refused {self.peer}", f"{self.peer}: {why}")
        self._close_sockets()
        self.gives_way, self._refused_why = self.gives_way or gives_way, why
        self._retry_at_s = monotonic() + (GIVES_WAY_S if gives_way else _REFUSED_S)

    def _unreachable(self, why: str) -> None:
        """Tell once until the peer is there why it is not."""
        self.board.mailbox.unreachable(self.peer, why)
        if not self._is_told:
            self._is_told = True
            self.board.notices.tell(f"away {self.peer}", f"{self.peer}: {why}; it is tried again")
