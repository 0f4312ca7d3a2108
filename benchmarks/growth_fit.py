"""Summary of the growth benchmark: exponents along each axis, and where the bottleneck changes.

In: medians of runs at several values of x, memory by depth, batches beside single runs. Out: fits
and tables. Pure. Knows nothing of how the points were measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks import common
from benchmarks.common import Cell, Column, Table
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE, LaneThreads

SENTENCE = 16
"""Tokens of the sentences of a batch."""

DEPTH_EXPONENT = (0.95, 1.05)
MEMORY_LIMIT = 1.10
THROUGHPUT_LIMIT = 6.0
SCHEDULE_LIMIT = 1.04

_LEAST_S = 1e-9
"""Stands for a lane with nothing to do, of which there is no logarithm."""


@dataclass(frozen=True, slots=True)
class Point:
    """The runs at one value of x: medians, in seconds and bytes."""

    x: float
    total_s: float
    threads: LaneThreads
    work_s: Mapping[str, float]
    """Of each kind of work, on all threads together."""
    schedule_s: float
    """The ideal schedule."""
    unlimited_s: float
    """The ideal schedule without a limit on ring and working buffers."""
    ratio: float
    """End to end over the ideal schedule: the median of the runs' own."""
    bytes_read: float

    @property
    def lanes(self) -> Mapping[str, float]:
        """Lane to the seconds that its threads take, all with the same to do.

        Threads that share the steps decode what they compute, so there both are the compute lane.
        """
        if self.threads.storage and not self.threads.decode:
            shared_s = self.work_s[DECODE] + self.work_s[COMPUTE]
            return {STORAGE: self.work_s[STORAGE], COMPUTE: shared_s / self.threads.compute}
        return self.work_s

    @property
    def limiting(self) -> str:
        """The lane that takes longest."""
        return max(self.lanes, key=lambda lane: self.lanes[lane])


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where one lane takes over from another as the one that takes longest."""

    x: float
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.before} to {self.after} at {self.x:.3g}"


@dataclass(frozen=True, slots=True)
class Axis:
    """What was measured along one axis, x rising."""

    name: str
    unit: str
    """Of x, in the plural."""
    points: tuple[Point, ...]

    @property
    def exponent(self) -> float | None:
        """P in: time grows as x to the power of p."""
        return exponent([p.x for p in self.points], [p.total_s for p in self.points])

    def lane_exponent(self, lane: str) -> float | None:
        """As ``exponent``, of one kind of work; None where there was nothing to do."""
        sums = [point.work_s[lane] for point in self.points]
        return exponent([p.x for p in self.points], sums) if all(sums) else None

    @property
    def crossovers(self) -> tuple[Crossover, ...]:
        """Where the limiting lane changes, x rising."""
        return crossovers(self.points)


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """The slope of log y on log x, by least squares; None with fewer than two different x."""
    if len(set(xs)) < 2:
        return None
    across, up = np.log(xs), np.log(ys)
    across -= across.mean()
    return float(across @ (up - up.mean()) / (across @ across))


def crossovers(points: Sequence[Point]) -> tuple[Crossover, ...]:
    """Where the limiting lane changes: x at which both lanes take equally long.

    Between two points a lane's time is taken to be a power of x, as in the fits. Where threads
    decode for themselves at one of them only, so that a lane is at one only, it is their middle.
    """
    found = []
    for left, right in pairwise(points):
        before, after = left.limiting, right.limiting
        if before != after:
            share = 0.5
            if all(lane in point.lanes for lane in (before, after) for point in (left, right)):
                ahead, behind = _lead(left, before, after), _lead(right, before, after)
                share = ahead / (ahead - behind) if ahead != behind else 0.5
            x = math.exp(math.log(left.x) + share * math.log(right.x / left.x))
            found.append(Crossover(x, before, after))
    return tuple(found)


def _lead(point: Point, lane: str, other: str) -> float:
    """By how much, as a logarithm, one lane's time is ahead of another's."""
    return math.log(max(point.lanes[lane], _LEAST_S) / max(point.lanes[other], _LEAST_S))


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory that an engine takes in a process of its own, runs included."""

    layers: int
    steady_bytes: int
    pack_bytes: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Sentences one by one, and all at once. Seconds a run."""

    pack: str
    sentences: int
    single_s: float
    batch_s: float

    @property
    def ratio(self) -> float:
        """Sentences a second in a batch over those one by one."""
        return self.sentences * self.single_s / self.batch_s


def axis_table(axis: Axis) -> Table:
    """An axis, point by point."""
    columns = (
        Column(axis.unit, "g"),
        Column("end to end ms", ".1f"),
        *(Column(f"{lane} ms", ".1f") for lane in LANES),
        Column("limited by"),
        Column("ideal schedule ms", ".1f"),
        Column("end to end / ideal schedule", ".3f"),
        Column("the same, no ring or buffer limit", ".1f"),
        Column("MB read", ".2f"),
    )
    table = Table(f"{axis.name.capitalize()}: medians", columns)
    for point in axis.points:
        table.rows.append(
            (
                point.x,
                point.total_s * 1e3,
                *(point.work_s[work] * 1e3 for work in LANES),
                point.limiting,
                point.schedule_s * 1e3,
                point.ratio,
                point.unlimited_s * 1e3,
                point.bytes_read / 1e6,
            )
        )
    return table


def fit_table(axes: Sequence[Axis]) -> Table:
    """Exponents of every axis, and where another lane limits."""
    table = Table(
        "Fits: the power of x that times grow with",
        (
            Column("axis"),
            Column("of"),
            Column("end to end", ".2f"),
            *(Column(lane, ".2f") for lane in LANES),
            Column("end to end, last step", ".2f"),
            Column("limiting lane changes, from"),
        ),
    )
    for axis in axes:
        changes = "; ".join(map(str, axis.crossovers)) or None
        lanes = [axis.lane_exponent(lane) for lane in LANES]
        last = Axis(axis.name, axis.unit, axis.points[-2:]).exponent
        table.rows.append((axis.name, axis.unit, axis.exponent, *lanes, last, changes))
    return table


def memory_table(found: Sequence[Memory]) -> Table:
    """Memory by depth."""
    columns = (Column("layers"), Column("steady growth MB", ".1f"), Column("pack MB", ".1f"))
    rows: list[tuple[Cell, ...]] = [
        (item.layers, item.steady_bytes / 1e6, item.pack_bytes / 1e6) for item in found
    ]
    return Table("Memory: growth of a fresh process that opens the pack and answers", columns, rows)


def throughput_table(found: Sequence[Throughput]) -> Table:
    """Batches against single runs."""
    columns = (
        Column("pack"),
        Column("sentences"),
        Column("one at a time, ms each", ".2f"),
        Column("all at once, ms each", ".2f"),
        Column("throughput ratio", ".2f"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            item.pack,
            item.sentences,
            item.single_s * 1e3,
            item.batch_s / item.sentences * 1e3,
            item.ratio,
        )
        for item in found
    ]
    return Table(f"Batch throughput: sentences of {SENTENCE} tokens", columns, rows)


def limit_table(
    axes: Sequence[Axis], memory: Sequence[Memory], batches: Sequence[Throughput]
) -> Table:
    """The limits, where there are figures for them."""
    table = Table("Limits", common.LIMITS)
    named = {axis.name: axis for axis in axes}
    power = named["depth"].exponent if "depth" in named else None
    if power is not None:
        table.rows.append(common.at_least("exponent of time in depth", power, DEPTH_EXPONENT[0]))
        table.rows.append(common.at_most("exponent of time in depth", power, DEPTH_EXPONENT[1]))
    if memory:
        sizes = [item.steady_bytes for item in memory]
        name = f"memory, {memory[0].layers} to {memory[-1].layers} layers: most / least"
        table.rows.append(common.at_most(name, max(sizes) / min(sizes), MEMORY_LIMIT))
    for item in batches:
        name = f"throughput of {item.sentences} at once / one at a time, {item.pack}"
        table.rows.append(common.at_least(name, item.ratio, THROUGHPUT_LIMIT))
    for axis in (named[name] for name in ("storage", "length") if name in named):
        worst = max(axis.points, key=lambda point: point.ratio)
        name = f"end to end / ideal schedule, worst of {axis.unit} ({worst.x:g})"
        table.rows.append(common.at_most(name, worst.ratio, SCHEDULE_LIMIT))
    return table
