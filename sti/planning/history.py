"""How runs of a pack went, by day and target, and when lanes worked in the last one. Pure.

In: what a run took, under which plan. Out: counts that add up in any order, and percentiles of
them. Holds nothing that was said: no texts, no answers. Knows nothing of files or clocks.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sti.model.workload import Workload
from sti.planning.plan import Plan, Target
from sti.planning.span import Span

MOST_ROWS = 200
"""Days and targets that are kept; the oldest go first."""
MOST_SPANS = 4000
"""Of the last run; one with more is kept without them."""
_RATIO = 1.05
"""From one class of times to the next."""
_SHORTEST_S, _LONGEST_S = 1e-5, 1e4


class KeptTarget(NamedTuple):
    """What tells the targets of runs apart."""

    latency_s: float | None
    memory_bytes: int | None
    preload_bytes: int
    """0 where memory is limited: then it follows from that, and from the process."""
    quantile: float

    @classmethod
    def of(cls, target: Target) -> KeptTarget:
        """That of a plan."""
        memory = target.memory_bytes
        preload = target.preload_bytes if memory is None else 0
        return cls(target.latency_s, memory, preload, target.quantile)


class DayRuns(NamedTuple):
    """The runs of one day under one target. Seconds."""

    day: str
    """As ``2026-01-31``, of the user's calendar."""
    target: KeptTarget
    inside: int
    """Runs that kept the latency; 0 without one."""
    late: int
    """Runs that missed it."""
    classes: Mapping[int, int]
    """Class of times to the number of runs in it: each is 5 % longer than the one before."""

    @property
    def runs(self) -> int:
        """How many there were."""
        return sum(self.classes.values())

    def percentile_s(self, share: float) -> float:
        """What that share of the runs took at most, to within 2.5 % (nearest rank)."""
        return percentile_s(self.classes, share)

    def plus(self, other: DayRuns) -> DayRuns:
        """Both together; of the same day and target."""
        return self._replace(
            inside=self.inside + other.inside,
            late=self.late + other.late,
            classes=added([self.classes, other.classes]),
        )


class LastRun(NamedTuple):
    """When each lane worked in one run. Seconds."""

    ended_at: float
    """Since the epoch."""
    plan: str
    """Which plan it ran under, as ``plan_name`` names it."""
    target: KeptTarget
    workload: Workload
    depth: int
    width: int
    total_s: float
    predicted_s: float | None
    lanes: Mapping[str, tuple[Span, ...]]
    """Empty where there was too much to keep."""


class History(NamedTuple):
    """What is kept of the runs of one pack on one machine. Immutable."""

    days: tuple[DayRuns, ...] = ()
    """By day, and by target within a day."""
    last: LastRun | None = None

    def plus(self, other: History) -> History:
        """Both together; the last run is the later one."""
        found: dict[tuple[str, KeptTarget], DayRuns] = {}
        for item in (*self.days, *other.days):
            key = (item.day, item.target)
            found[key] = found[key].plus(item) if key in found else item
        lasts = [last for last in (self.last, other.last) if last is not None]
        days = tuple(found[key] for key in sorted(found, key=_order))
        return History(days, max(lasts, key=lambda last: last.ended_at, default=None))

    def bounded(self, first: str, last: str) -> History:
        """From the first to the last of some days, and not more of them than are kept."""
        days = tuple(item for item in self.days if first <= item.day <= last)
        return self._replace(days=days[-MOST_ROWS:])


class EndedRun(NamedTuple):
    """One run, as it is counted."""

    day: str
    target: Target
    total_s: float
    met: bool | None
    """Whether it kept the latency; None without one."""


def history_of(runs: Iterable[EndedRun], last: LastRun | None = None) -> History:
    """The history of some runs.

    Args:
        last: the last of them.
    """
    found: dict[tuple[str, KeptTarget], list[EndedRun]] = {}
    for run in runs:
        found.setdefault((run.day, KeptTarget.of(run.target)), []).append(run)
    days = []
    for day, target in sorted(found, key=_order):
        those = found[day, target]
        inside, late = (sum(run.met is met for run in those) for met in (True, False))
        classes = added({time_class(run.total_s): 1} for run in those)
        days.append(DayRuns(day, target, inside, late, classes))
    return History(tuple(days), last)


def last_of(
    plan: Plan,
    workload: Workload,
    lanes: Mapping[str, tuple[Span, ...]],
    *,
    ended_at: float,
    total_s: float,
) -> LastRun:
    """A run of a plan.

    Args:
        lanes: when each worked, from the text's arrival.
        ended_at: seconds since the epoch.
    """
    few = sum(map(len, lanes.values())) <= MOST_SPANS
    return LastRun(
        ended_at=ended_at,
        plan=plan_name(plan),
        target=KeptTarget.of(plan.target),
        workload=workload,
        depth=plan.depth,
        width=plan.width,
        total_s=total_s,
        predicted_s=None if plan.predicted is None else plan.predicted.total_s,
        lanes=dict(lanes) if few else {},
    )


def plan_name(plan: Plan) -> str:
    """The same for plans that run the same steps on the same threads, whatever they predict."""
    said = [plan.pack, plan.depth, plan.width, plan.threads, plan.read_ahead, plan.steps]
    return f"{zlib.crc32(json.dumps(said).encode()):08x}"


def time_class(seconds: float) -> int:
    """The class of a time."""
    within = min(max(seconds, _SHORTEST_S), _LONGEST_S)
    return math.floor(math.log(within / _SHORTEST_S) / math.log(_RATIO))


def percentile_s(classes: Mapping[int, int], share: float) -> float:
    """Seconds that a share of runs took at most, from the classes of their times."""
    rank, passed = max(1, math.ceil(share * sum(classes.values()))), 0
    for place in sorted(classes):
        passed += classes[place]
        if passed >= rank:
            return _SHORTEST_S * math.exp(math.log(_RATIO) * (place + 0.5))
    return math.nan


def added(counts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Classes of times, the numbers in each added up."""
    found: dict[int, int] = {}
    for classes in counts:
        for place, number in classes.items():
            found[place] = found.get(place, 0) + number
    return found


HIGHEST_CLASS = math.ceil(math.log(_LONGEST_S / _SHORTEST_S) / math.log(_RATIO))
"""The class of the longest times."""


def _order(key: tuple[str, KeptTarget]) -> tuple[str, float, float, int, float]:
    day, target = key
    latency_s = math.inf if target.latency_s is None else target.latency_s
    memory = math.inf if target.memory_bytes is None else target.memory_bytes
    return day, latency_s, memory, target.preload_bytes, target.quantile
