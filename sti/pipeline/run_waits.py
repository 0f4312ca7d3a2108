"""How long the threads of one run waited for a core that another thread had.

In: the run's threads. Out: seconds of each since the run began, by the lane that it works last.
Knows nothing of steps. About 20 us a run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

from sti.device.lanes import COMPUTE, DECODE, STORAGE, LaneThreads, lane_of
from sti.device.run_queue import WaitCounter
from sti.pipeline.workers import Worker


class RunWaits:
    """Counts from where it is made, on the thread that calls for the run, until it is closed.

    Args:
        threads: that the run has.
        storage: the thread of the storage lane.
        workers: the other threads but the caller's.
        helper: native id of a thread that computes with the caller, and is no worker of ours.
    """

    def __init__(
        self,
        threads: LaneThreads,
        storage: Worker,
        workers: Sequence[Worker],
        helper: int | None = None,
    ) -> None:
        self._own = [WaitCounter(threading.get_native_id())]
        if helper is not None:
            self._own.append(WaitCounter(helper))
        self._counters = {
            lane_of(COMPUTE, number): counter.read for number, counter in enumerate(self._own)
        }
        for number, worker in enumerate(workers, start=1):
            lane = DECODE if threads.decode else lane_of(COMPUTE, number)
            self._counters[lane] = worker.waited_s
        if threads.storage:
            self._counters[STORAGE] = storage.waited_s
        self._before = self._read()

    def __enter__(self) -> RunWaits:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        for counter in self._own:
            counter.close()

    def so_far(self) -> dict[str, float] | None:
        """Lane to seconds since the run began; None where the system does not say."""
        before, now = self._before, self._read()
        if before is None or now is None:
            return None
        return {lane: max(0.0, now[lane] - before[lane]) for lane in now}

    def _read(self) -> dict[str, float] | None:
        found = {lane: read() for lane, read in self._counters.items()}
        known = {lane: waited_s for lane, waited_s in found.items() if waited_s is not None}
        return known if len(known) == len(found) else None
