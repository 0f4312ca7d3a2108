"""Plans made between runs, so that runs find them ready.

In: jobs of a millisecond or two. They are done on a thread of their own until a run begins; or, for
a caller who comes back at once, on the caller's thread, in what is left of the latency. Knows
nothing of what jobs are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import perf_counter, sleep

from sti.errors import StiError
from sti.pipeline.workers import Worker

_FIRST_S, _MEMORY, _ROOM = 2e-3, 0.8, 2.0
"""Seconds that a job is taken to need until one was done; how much of the longest one counts a job
later; and how many times as long has to be left."""
_PAUSE_S = 3e-3
"""After a run, before the thread begins: a caller who comes back at once is not held up."""


class PlansAhead:
    """A thread that makes plans. One caller at a time; started by the first job.

    What fails is left to the run that needs it, which tells.
    """

    def __init__(self) -> None:
        self._worker = Worker("sti-plans")
        self._jobs: deque[Callable[[], object]] = deque()
        self._job_s = _FIRST_S
        self._is_due = False
        """Whether the thread is about to look for jobs."""

    def between_runs(self, jobs: Iterable[Callable[[], object]]) -> None:
        """Do jobs in order, until ``stop``, instead of what was asked for before."""
        self._take(jobs)
        if self._jobs and not self._is_due:
            self._is_due = True
            self._worker.submit(self._work)

    def before(self, due_s: float, jobs: Iterable[Callable[[], object]]) -> None:
        """Do now what of the jobs ends by a time of ``perf_counter``, as far as can be told."""
        self._take(jobs)
        while self._jobs and perf_counter() + _ROOM * self._job_s < due_s:
            self._next()
        self._jobs.clear()

    def stop(self) -> None:
        """Begin no other job: the processor has something else to do."""
        self._jobs.clear()

    def close(self) -> None:
        """End the thread after the job it is at. Idempotent."""
        self._jobs.clear()
        self._worker.close()

    def _take(self, jobs: Iterable[Callable[[], object]]) -> None:
        self._jobs.clear()
        self._jobs.extend(jobs)

    def _work(self) -> None:
        sleep(_PAUSE_S)
        self._is_due = False
        with suppress(IndexError):  # nothing is left, or it was taken back just now
            while True:
                self._next()

    def _next(self) -> None:
        job, start_s = self._jobs.popleft(), perf_counter()
        with suppress(StiError):
            job()
        self._job_s = max(perf_counter() - start_s, _MEMORY * self._job_s)
