"""The thread that owns all sockets of a member, and does nothing but carry.

In: messages in the outbox, and what callers have it do. Out: messages in the mailbox. It waits in
one place, for all sockets and for a pipe with which other threads wake it; none of them holds a
lock that it needs while they compute.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import zmq

from sti.exchange.mailbox import Mailbox
from sti.exchange.zeromq import sockets
from sti.exchange.zeromq.addresses import Address
from sti.exchange.zeromq.dialed import Dialed
from sti.exchange.zeromq.gate import Gate
from sti.exchange.zeromq.keys import Keys
from sti.exchange.zeromq.links import Board
from sti.exchange.zeromq.listener import Listener
from sti.exchange.zeromq.notices import Notices
from sti.exchange.zeromq.outbox import Outbox
from sti.notices import Notify
from sti.storage.threads import start_thread

_CLOSE_S = 10.0
"""For which ``close`` waits for the thread."""


class Carrier:
    """The thread, and its sockets.

    Args:
        name: of this member.
        listen: where to listen; None for nowhere.
        keys: of this member and its peers.
        silence_s: for which a peer may be silent before it is lost.

    Raises:
        InputError: the address cannot be listened at.
        RunError: the system gives no more descriptors or threads.
    """

    def __init__(
        self,
        name: str,
        mailbox: Mailbox,
        outbox: Outbox,
        *,
        listen: Address | None,
        keys: Keys | None,
        notify: Notify,
        silence_s: float,
    ) -> None:
        self._mailbox, self._keys, self._silence_s = mailbox, keys, silence_s
        notices = Notices(notify)
        self._board = Board(name, mailbox, outbox, notices)
        self._dialed: dict[str, Dialed] = {}
        self._poller = zmq.Poller()
        self._handlers: dict[object, Callable[[], None]] = {}
        self._acts: deque[Callable[[], None]] = deque()
        self._ends = False
        self._lock = threading.RLock()
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_awake = False
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._gate: Gate | None = None
        self._listener: Listener | None = None
        try:
            self._context = sockets.make_context()
            if listen is not None:
                self._open(listen, notices)
            self.watch(self._wake_out, self._woken)
            self._thread = threading.Thread(target=self._run, name="sti-exchange", daemon=True)
            start_thread(self._thread)
        except BaseException:
            self._close()
            raise

    @property
    def address(self) -> Address | None:
        """Where this member listens."""
        return None if self._listener is None else self._listener.address

    def dial(self, peer: str, address: Address) -> None:
        """Connect to a peer, there instead of where it was."""
        self._mailbox.unreachable(peer, f"nothing has answered at {address} yet")
        self._act(lambda: self._dial(peer, address))

    def hang_up(self, peer: str) -> None:
        """Give a peer up."""
        self._act(lambda: self._hang_up(peer))

    def wake(self) -> None:
        """Have the thread look at the outbox."""
        if not self._is_awake:
            with self._lock:
                self._is_awake = True
                if self._wake_in >= 0:
                    with suppress(BlockingIOError):
                        os.write(self._wake_in, b"x")

    def close(self) -> None:
        """End the thread, and with it all connections; waits for it, for a bounded time."""
        self._ends = True
        self._is_awake = False
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_S)

    def watch(self, socket: zmq.Socket[bytes] | int, handler: Callable[[], None]) -> None:
        """Call a handler whenever there is something to read."""
        self._poller.register(socket, zmq.POLLIN)
        self._handlers[socket] = handler

    def unwatch(self, socket: zmq.Socket[bytes] | int) -> None:
        """Call it no longer."""
        self._poller.unregister(socket)
        del self._handlers[socket]

    def _act(self, act: Callable[[], None]) -> None:
        self._acts.append(act)
        self.wake()

    def _open(self, address: Address, notices: Notices) -> None:
        assert self._context is not None
        if self._keys is not None:
            # Before the socket: nobody is to connect while there is no gate.
            self._gate = Gate(self._context, self._keys.public, notices)
            self.watch(self._gate.socket, self._gate.answer)
        made = sockets.listen(self._context, address, self._keys, self._silence_s)
        self._listener = Listener(made, self._board, has_keys=self._keys is not None)
        self.watch(made.socket, self._listener.on_frames)
        self.watch(made.monitor, self._listener.on_event)

    def _dial(self, peer: str, address: Address) -> None:
        context = self._context
        assert context is not None
        before = self._dialed.get(peer)
        self._hang_up(peer)
        self._dialed[peer] = Dialed(
            peer,
            address,
            self._board,
            make=lambda: sockets.dial(context, address, peer, self._keys, self._silence_s),
            watch=self.watch,
            unwatch=self.unwatch,
            gives_way=before is not None and before.address == address and before.gives_way,
        )

    def _hang_up(self, peer: str) -> None:
        dialed = self._dialed.pop(peer, None)
        if dialed is not None:
            dialed.close("it was disconnected here")

    def _run(self) -> None:
        try:
            patience_s: float | None = 0.0
            while not self._ends:
                timeout_ms = None if patience_s is None else math.ceil(patience_s * 1e3)
                for socket, _ in self._poller.poll(timeout_ms):
                    handler = self._handlers.get(socket)  # an earlier one may have closed it
                    if handler is not None:
                        handler()
                while self._acts:
                    self._acts.popleft()()
                patience_s = self._tick()
        except BaseException as error:
            self._mailbox.close(f"its thread failed: {error!r}")
            raise
        finally:
            self._close()

    def _tick(self) -> float | None:
        """Do what it is time for; the seconds until there is more to do."""
        now_s = monotonic()
        waits = [dialed.tick(now_s) for dialed in self._dialed.values()]
        if self._listener is not None:
            waits.append(self._listener.tick())
        waits.append(self._board.pump())
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_out, 64)
        self._is_awake = False

    def _close(self) -> None:
        """Close everything, whatever state it is in; peers learn of it by their connections."""
        if self._context is not None:
            self._context.destroy(linger=0)
        with self._lock:
            for descriptor in (self._wake_in, self._wake_out):
                if descriptor >= 0:
                    os.close(descriptor)
            self._wake_in = self._wake_out = -1
