"""A thread that reads, and what becomes of it when a read does not return.

In: a reader, how long a read may take. Out: a worker and a watched reader for its jobs; others once
those hang. Knows nothing of what is read, or into which memory: whoever owns that lets go of it.

What becomes of a read that does not return, in order. Whoever waits for the thread looks at it
every ``LOOK_S`` (``WatchedReader.check``, the ``alarm`` of ``Latch`` and ``Channel``). The look
that finds the read too old sets ``given_up``, after which that reader reads nothing more, and
raises ``StorageError``. The latch that raised it ``is_lost``: nobody waits there again, and the
other threads of the run end. Then, before or after a run, ``Runner`` calls ``leave_stuck``: the
worker is told to end when its read has returned, another one and another watched reader take its
place, and the owners of the memory (``Preloading``, ``Embedder``) take other memory; the old one
is the stuck read's for good. Each lane leaves four such threads; then ``check_left`` refuses
runs.
"""

from __future__ import annotations

from sti.errors import StorageError
from sti.pipeline.workers import Worker
from sti.storage.reader import Reader
from sti.storage.watched_reader import WatchedReader

_MOST_LEFT = 4
"""Threads that hang, each with its memory, before nothing is begun until one returns."""


class ReadLane:
    """One thread's reads. Used by one thread at a time.

    Args:
        name: of the thread.
        storage: reads; stays the caller's.
        timeout_s: how long a read may take.
        where: the file, for messages.
    """

    def __init__(self, name: str, storage: Reader, timeout_s: float, *, where: str) -> None:
        self._name, self._storage, self._timeout_s, self._where = name, storage, timeout_s, where
        self._left: list[Worker] = []
        self._renew()

    def _renew(self) -> None:
        self.reads = WatchedReader(self._storage, self._timeout_s, where=self._where)
        """For jobs of ``worker``."""
        self.worker = Worker(self._name, self.reads.check)

    def leave_stuck(self) -> bool:
        """Go on with another thread if this one hung; whether it did. What it reads into may be
        written to at any time from now on.
        """
        if not self.reads.given_up:
            return False
        self._left.append(self.worker)
        self.worker.leave()
        self._renew()
        return True

    def check_left(self) -> None:
        """Refuse to begin where too many threads hang.

        Raises:
            StorageError: they do.
        """
        self._left = [worker for worker in self._left if worker.is_alive]
        if len(self._left) >= _MOST_LEFT:
            raise StorageError(
                f"{self._where}: {len(self._left)} reads did not end, each within "
                f"{self._timeout_s:g} s; check that the storage is still there"
            )
