"""What an engine's runs add to the history of its pack.

In: each run, when it has ended. Out: now and then, and at the end, the pack's history file with
them. A run never waits for a file: a thread writes, at most once a minute. What makes and writes
the file is imported then, and not at the start. Not thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sti.calibration.cache import keeps_history
from sti.engine.options import EngineOptions
from sti.engine.results import Result
from sti.errors import RunError
from sti.model.workload import Workload
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.pipeline.trace import Trace
from sti.planning.plan import Plan, Target
from sti.storage.threads import start_thread

EVERY_S = 60.0
"""Seconds between writes."""
_MOST_RUNS = 20_000
"""Runs that wait to be written."""


def history_log(reader: PackReader, options: EngineOptions) -> HistoryLog | None:
    """What takes note of an engine's runs; None where they are not kept.

    Runs of benchmarks, without adaptation, or with a profile or storage that was given, say nothing
    of how users' runs go on this machine.
    """
    if not (options.keeps_history and keeps_history()):
        return None
    return HistoryLog(reader.pack_id, options.notify)


class HistoryLog:
    """Takes note of runs, to be written to a file.

    Args:
        pack_id: of the pack that runs.
        notify: told, once, what could not be kept; by the thread that runs or closes.
    """

    def __init__(self, pack_id: str, notify: Notify) -> None:
        self._pack_id, self._notify = pack_id, notify
        self._runs: list[tuple[str, Target, float, bool | None]] = []
        self._last: tuple[Plan, Workload, Trace, float, float] | None = None
        """The last run: its plan, what it was of, what it did, when it ended, what it took."""
        self._written_s = time.monotonic()
        self._writer: threading.Thread | None = None
        self._untold: str | None = None
        self._told = False

    def note(self, plan: Plan, result: Result) -> None:
        """Take note of a run.

        Args:
            plan: what it was to do.
        """
        if result.outgrown:
            return  # its plan is for shorter texts, and says so
        now, total_s = time.time(), result.timing.total_s
        try:
            day = time.strftime("%Y-%m-%d", time.localtime(now))
        except (OSError, OverflowError, ValueError):
            return  # a clock that is set to no day there is
        self._runs.append((day, plan.target, total_s, result.met))
        self._last = (plan, result.workload, result.trace, now, total_s)
        if time.monotonic() - self._written_s >= EVERY_S or len(self._runs) >= _MOST_RUNS:
            self._begin_writing()
        self._tell()

    def close(self) -> None:
        """Write what is left. Idempotent."""
        if self._writer is not None:
            self._writer.join()
        self._taken()()
        self._tell()

    def _taken(self) -> Callable[[], None]:
        """What writes the runs that were not written so far."""
        runs, last = self._runs, self._last
        self._runs, self._last, self._written_s = [], None, time.monotonic()

        def write() -> None:
            if last is None:
                return
            from sti.calibration.history_file import HistoryFile
            from sti.planning.history import EndedRun, history_of, last_of

            plan, workload, trace, ended_at, total_s = last
            kept = last_of(plan, workload, trace.lanes, ended_at=ended_at, total_s=total_s)
            new = history_of((EndedRun(*run) for run in runs), kept)
            self._untold = HistoryFile(self._pack_id).add(new) or self._untold

        return write

    def _begin_writing(self) -> None:
        if self._writer is not None and self._writer.is_alive():
            return  # storage hangs: the next run tries again
        runs, last = self._runs, self._last
        writer = threading.Thread(target=self._taken(), name="sti-history")
        try:
            start_thread(writer)
        except RunError:  # they are written later
            self._runs, self._last = runs, last
        else:
            self._writer = writer

    def _tell(self) -> None:
        if self._untold is not None and not self._told:
            self._told = True
            self._notify(self._untold)
