"""Plans made between runs, so that runs find them ready.

In: jobs of a millisecond or two. They are done on a thread of their own until a run begins; for a
caller who comes back at once, some of them on the caller's thread, in what is left of the latency.
Knows nothing of what jobs are.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter, sleep

from sti.errors import RunError
from sti.pipeline.workers import Latch, Worker

Job = Callable[[], object]

_FIRST_S, _MEMORY, _ROOM = 2e-3, 0.8, 2.0
"""Seconds that a job is taken to need until one was done; how much of the longest one counts a job
later; and how many times as long has to be left."""
_MOST_S = 4e-3
"""On the caller's thread after one run; a job that was begun is finished."""
_PAUSE_S = 3e-3
"""After a run, before the thread begins: a caller who comes back at once is not held up."""
_log = logging.getLogger(__name__)


class PlansAhead:
    """A thread that makes plans, started by the first job. Called by one thread at a time.

    What fails is left to the run that needs it, which tells.
    """

    def __init__(self) -> None:
        self._worker = Worker("sti-plans")
        self._todo: deque[Job] | None = None
        """What the thread is to do; another object for each time it is asked."""
        self._job_s = _FIRST_S
        self._ended: Latch | None = None
        """Opens when the thread has ended what it was last asked for."""

    def between_runs(self, jobs: Iterable[Job]) -> None:
        """Do jobs in order, until ``stop``, instead of what was asked for before."""
        todo = self._todo = deque(jobs)
        if todo:
            try:
                self._ended = self._worker.submit(lambda: self._work(todo))
            except RunError:
                _log.debug("no plans are made ahead", exc_info=True)

    def before(self, due_s: float, jobs: Iterable[Job]) -> None:
        """Do now what of the jobs is likely to end by a time of ``perf_counter``, but no more than
        a few milliseconds of it; the rest as ``between_runs``.
        """
        self.stop()
        todo, most_s = deque(jobs), perf_counter() + _MOST_S
        while todo and perf_counter() < min(most_s, due_s - _ROOM * self._job_s):
            self._do(todo.popleft())
        self.between_runs(todo)

    def stop(self) -> None:
        """Begin no other job: the processor has something else to do."""
        self._todo = None

    def settle(self) -> None:
        """Stop, and wait for the job that the thread is at."""
        self.stop()
        if self._ended is not None:
            self._ended.wait()

    def close(self) -> None:
        """End the thread after the job it is at. Idempotent."""
        self.stop()
        self._worker.close()

    def _work(self, todo: deque[Job]) -> None:
        if self._todo is todo:
            sleep(_PAUSE_S)
        while todo and self._todo is todo:
            self._do(todo.popleft())

    def _do(self, job: Job) -> None:
        start_s = perf_counter()
        try:
            job()
        except Exception:
            _log.debug("a plan could not be made ahead", exc_info=True)
        self._job_s = max(perf_counter() - start_s, _MEMORY * self._job_s)
