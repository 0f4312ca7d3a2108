"""What planning takes of a run's own time, and what opening takes.

In: sessions of other rows, packs. Out: percentiles of the time runs spent on planning; medians of
opening times with a target that was opened before, with one that is new, and with nothing
remembered but the machine's profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np

from benchmarks import common
from benchmarks.common import Column, Table, median
from benchmarks.targets_cache import own_cache
from benchmarks.targets_counting import Session
from benchmarks.targets_grid import texts_of
from benchmarks.targets_runs import (
    least_offered,
    open_engine,
    run_session,
)
from benchmarks.targets_setting import Case, Found, Setting

OPENINGS = 15
P99_MS = 1.0
_STEP = 1.003
"""Each new target is so many times the one before."""
_PLANNING = (
    *(Column("pack"), Column("runs", ",d"), Column("first runs ms, p50", ".3f")),
    *(Column("p99", ".3f"), Column("later ms, p50", ".3f"), Column("p99 later", ".3f")),
    *(Column("largest", ".3f"),),
)
_OPENING = (
    *(Column("pack"), Column("same target ms", ".2f"), Column("new target", ".2f")),
    *(Column("nothing remembered", ".2f"), Column("no target", ".2f")),
)


def planning(setting: Setting) -> Found:
    """Planning in the runs of all rows so far; of a few of its own where there are none."""
    table, found = Table("Planning on a run's own time", _PLANNING), Found()
    if not any(session.runs for session in setting.sessions):
        found.sessions += _few(setting)
    everything = [*setting.sessions, *found.sessions]
    every: list[float] = []
    for name in dict.fromkeys(session.case for session in everything if session.runs):
        runs = [run for session in everything if session.case == name for run in session.runs]
        taken = [
            [run.plan_s * 1e3 for run in runs if run.first is first] for first in (True, False)
        ]
        cells = [value for part in taken for value in _percentiles(part)]
        both = [*taken[0], *taken[1]]
        every += both
        table.rows.append((name, len(runs), *cells, max(both)))
    found.tables.append(table)
    if every:
        p99 = float(np.percentile(every, 99))
        found.limits.append(common.at_most("planning, ms of a run, p99", p99, P99_MS))
    return found


def _percentiles(values: list[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return median(values), float(np.percentile(values, 99))


def _few(setting: Setting) -> Iterator[Session]:
    rng = setting.generator(7)
    for pack in setting.packs:
        for latency_s in (0.03, 0.06, 0.1):
            session = Session(Case(pack).name, latency_s, "1MB")
            with open_engine(Case(pack), latency_s, "1MB") as engine:
                count = setting.scaled(40)
                yield run_session(session, engine, texts_of(setting.sentences, count, rng))


def opening(setting: Setting) -> Found:
    """Open each pack again and again, in turns, in this process."""
    table, found = Table(f"Opening, median of {OPENINGS}", _OPENING), Found()
    for pack in setting.packs:
        case = Case(pack)
        with open_engine(case, None) as engine:
            target_s, profile = 2.0 * least_offered(engine, 32), engine.profile
        fresh = (target_s * _STEP**number for number in range(1, 10**6))

        def same(case: Case = case, target_s: float = target_s) -> None:
            open_engine(case, target_s).close()

        def new(case: Case = case, fresh: Iterator[float] = fresh) -> None:
            open_engine(case, next(fresh)).close()

        def none(case: Case = case) -> None:
            open_engine(case, None).close()

        times: list[list[float]] = [[], [], [], []]
        for turn in range(setting.scaled(OPENINGS) + 1):
            taken = [_timed(same), _timed(new)]
            with own_cache(None):
                start = perf_counter()
                engine = open_engine(case, target_s, profile=profile, threads=profile.threads)
                taken.append((perf_counter() - start) * 1e3)
                engine.close()
            taken.append(_timed(none))
            if turn:
                for found_ms, ms in zip(times, taken, strict=True):
                    found_ms.append(ms)
        middle = [median(item) for item in times]
        table.rows.append((case.name, *middle))
    found.tables.append(table)
    return found


def _timed(work: Callable[[], None]) -> float:
    start = perf_counter()
    work()
    return (perf_counter() - start) * 1e3
