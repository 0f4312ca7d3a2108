"""What an engine's runs add to the history of its pack.

In: each run, when it has ended. Out: now and then, and at the end, the pack's history file with
them. A run never waits for a file: a thread writes, at most once a minute. Not thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sti.engine.options import EngineOptions
from sti.engine.results import Result
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.planning.history import EndedRun, LastRun, history_of, last_of
from sti.planning.plan import Plan

if TYPE_CHECKING:
    from sti.calibration.history_file import HistoryFile

EVERY_S = 60.0
"""Seconds between writes."""
_MOST_RUNS = 20_000
"""Runs that wait to be written."""


def history_log(reader: PackReader, options: EngineOptions) -> HistoryLog | None:
    """What takes note of an engine's runs; None where they are not kept.

    Runs of benchmarks, without adaptation, or with a profile or storage that was given, say nothing
    of how users' runs go on this machine.
    """
    if not options.keeps_history:
        return None
    from sti.calibration.history_file import HistoryFile, is_kept

    return HistoryLog(HistoryFile(reader.pack_id), options.notify) if is_kept() else None


class HistoryLog:
    """Takes note of runs, to be written to a file.

    Args:
        file: of the pack.
        notify: told, once, what could not be kept; by the thread that runs or closes.
    """

    def __init__(self, file: HistoryFile, notify: Notify) -> None:
        self._file, self._notify = file, notify
        self._runs: list[EndedRun] = []
        self._last: Callable[[], LastRun] | None = None
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
        day = time.strftime("%Y-%m-%d", time.localtime(now))
        self._runs.append(EndedRun(day, plan.target, total_s, result.met))
        workload, lanes = result.workload, result.trace.lanes
        # Made when it is written, of one run, and not of each.
        self._last = lambda: last_of(plan, workload, lanes, ended_at=now, total_s=total_s)
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
            if runs:
                new = history_of(runs, None if last is None else last())
                self._untold = self._file.add(new) or self._untold

        return write

    def _begin_writing(self) -> None:
        if self._writer is not None and self._writer.is_alive():
            return  # storage hangs: the next run tries again
        self._writer = threading.Thread(target=self._taken(), name="sti-history")
        self._writer.start()

    def _tell(self) -> None:
        if self._untold is not None and not self._told:
            self._told = True
            self._notify(self._untold)
