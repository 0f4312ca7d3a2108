"""How much of a sample's time the measuring threads waited for a core, and whether it is quiet now.

In: the threads that compute, and those that only read. Out: shares of wall time, 0 to 1. Three
sources, the largest of which counts: the run queue (``sti.device.run_queue``); where one thread
does everything, its wall time that was neither on the processor nor in a read, which also shows
what a hypervisor took; and where the system says nothing, only the latter. Threads of a run wake
one another, so a worker waits while the storage thread runs; that much is part of any run, and is
left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from time import perf_counter

from sti.device import host
from sti.device.profile import MOST_DISTURBED
from sti.device.run_queue import ran_s, waited_s
from sti.storage.threads import start_thread

_QUIET_S = 5e-3
_BLOCK = bytes(1 << 17)


class Watch:
    """Watches one sample at a time, in the thread that measures.

    Args:
        workers: native ids of threads that compute or decode beside the calling one.
        readers: of threads that only read.
    """

    def __init__(self, workers: Sequence[int] = (), readers: Sequence[int] = ()) -> None:
        self._own = (threading.get_native_id(),)
        self._workers, self._readers = tuple(workers), tuple(readers)
        self._before = self._now()

    def start(self) -> None:
        """Begin a sample."""
        self._before = self._now()

    def share(self, *, alone_s: float | None = None) -> float:
        """Share of the time since ``start`` that was spent waiting for a core.

        Args:
            alone_s: where the calling thread did everything, seconds of it that it was not to be on
                the processor, those of reads; None for other samples.
        """
        before, now = self._before, self._now()
        wall_s, cpu_s, own_s, workers_s, readers_s = (
            None if one is None or other is None else other - one
            for one, other in zip(before, now, strict=True)
        )
        if wall_s is None or wall_s <= 0.0:
            return 0.0
        lost_s = own_s or 0.0
        if workers_s is not None and self._workers:
            lost_s = max(lost_s, workers_s - (readers_s or 0.0))
        if alone_s is not None and cpu_s is not None:
            lost_s = max(lost_s, wall_s - cpu_s - alone_s)
        return min(1.0, max(0.0, lost_s / wall_s))

    def _now(self) -> tuple[float | None, ...]:
        """Wall, processor, waits of the calling thread, of workers; what readers ran."""
        return (
            perf_counter(),
            time.thread_time(),
            waited_s(self._own),
            waited_s(self._workers) if self._workers else None,
            ran_s(self._readers) if self._readers else None,
        )


def is_quiet(threads: int) -> bool:
    """Whether so many threads get their cores now; takes about 5 ms."""
    import hashlib

    threads = min(threads, host.core_count())
    shares: list[float] = []

    def work() -> None:
        watch = Watch()
        end = perf_counter() + _QUIET_S
        while perf_counter() < end:
            hashlib.sha256(_BLOCK)  # lets other threads run
        shares.append(watch.share(alone_s=0.0 if threads == 1 else None))

    others = [threading.Thread(target=work, name="sti-quiet") for _ in range(threads - 1)]
    for thread in others:
        start_thread(thread)
    work()
    for thread in others:
        thread.join()
    return max(shares) <= MOST_DISTURBED
