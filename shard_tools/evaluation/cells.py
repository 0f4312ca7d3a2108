"""The results of an evaluation, cell by cell, and their summary. Pure.

In: entries (a plan or a baseline, executed) with their scores. Out: frozen cells, one for each
target and preload, and summaries over them. Knows nothing of packs, engines or formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from shard_tools.evaluation.timing import Latency
from sti.model.quality import Estimate

SIGNIFICANT = 2.0
"""Standard errors from which a difference counts."""

HARD = 0.02
"""A cell is hard where the best baseline is at least this much below the full model."""


@dataclass(frozen=True, slots=True)
class Scope:
    """How well texts out of scope are recognised, at the threshold that the pack has for a plan."""

    accepted: float
    """Share of the data's texts that are accepted as in scope."""
    recall: float
    """Share of the texts out of scope that are rejected."""
    recall_at_95: float
    """The same at the threshold that accepts 95 % of the data's texts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A plan, or what a baseline chose, with what was expected and what was measured."""

    name: str
    depth: int
    width: int
    bits: float
    """A weight, on average."""
    expected: Estimate
    measured: float
    latency: Latency
    bytes_read: int
    memory_bytes: int
    scope: Scope | None = None
    """None where no texts out of scope were given."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline in a cell, and how far the plan is ahead of it."""

    name: str
    in_paper: bool
    entry: Entry | None
    """None where nothing of it keeps the limits."""
    why_not: str
    """Why there is no entry; empty where there is one."""
    ahead: float | None
    """The plan's metric minus this one's; None where one of them is missing."""
    error: float | None
    """Standard error of that, by paired bootstrap."""

    @property
    def wins(self) -> bool:
        """Whether it beats the plan by more than chance, or fits the limits where no plan does."""
        if self.ahead is None or self.error is None:
            return self.entry is not None
        return self.ahead < -SIGNIFICANT * self.error


@dataclass(frozen=True, slots=True)
class Cell:
    """One target with one preload."""

    latency_s: float
    preload_bytes: int
    plan: Entry | None
    needed_s: float | None
    """The latency that could be met, where there is no plan."""
    baselines: tuple[Comparison, ...]

    def best(self, *, in_paper: bool) -> Comparison | None:
        """The baseline with the best measured metric; with ``in_paper`` among the paper's only."""
        found = [
            (item.entry.measured, item)
            for item in self.baselines
            if item.entry is not None and (item.in_paper or not in_paper)
        ]
        return max(found, key=lambda item: item[0])[1] if found else None


@dataclass(frozen=True, slots=True)
class Summary:
    """All cells against one set of baselines."""

    compared: int
    """Cells with a plan and a baseline, or with a baseline only."""
    beaten: int
    """Of these, cells in which some baseline is better by more than two standard errors."""
    alone: int
    """Cells with a plan where no baseline fits."""
    hard: int
    """Cells with a plan where the best baseline is more than two points below the full model."""
    advantage: float | None
    """How far the plan is ahead of the best baseline there, on average; None without such cells."""
    median_advantage: float | None
    """The median: a single cell in which hardly any baseline fits can dominate the average."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected against measured, over plans that differ in what they compute."""

    plans: int
    mean_error: float
    """Mean absolute difference."""
    inside: int
    """Plans measured within the interval."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything ``sti-shard evaluate`` reports."""

    pack: str
    pack_id: str
    data: str
    metric: str
    examples: int
    truncated: int
    tokens: int
    device: str
    jitter: float
    """95th percentile over median of a run there: a plan's median is the target divided by it."""
    runs: int
    """Timed runs of each entry; 0 where times are simulated."""
    seed: int
    full: Entry
    """The full model with every shard at the top fidelity, whatever it takes."""
    cells: tuple[Cell, ...]
    uniform: tuple[Entry, ...]
    """The full model, half of it in both directions, and the smallest that every step of training
    sees, as far as the pack has them, at every fidelity; whatever they take."""
    forecast_plans: Forecast | None
    """Over the cells' plans; None where there is no plan."""
    forecast_all: Forecast | None
    """Over everything that was run, baselines and the full model included."""

    @property
    def kept(self) -> tuple[int, int, int]:
        """Plans, and how many of them keep their target in the median and in 95 of 100 runs."""
        plans = [(cell.plan.latency, cell.latency_s) for cell in self.cells if cell.plan]
        medians = sum(latency.median_s <= target_s for latency, target_s in plans)
        return len(plans), medians, sum(latency.p95_s <= target_s for latency, target_s in plans)

    @property
    def against_paper(self) -> Summary:
        """Against the paper's baselines."""
        return summarise(self.cells, self.full.measured, in_paper=True)

    @property
    def against_all(self) -> Summary:
        """Against our pipeline at one fidelity, too."""
        return summarise(self.cells, self.full.measured, in_paper=False)


def summarise(cells: Sequence[Cell], full: float, *, in_paper: bool) -> Summary:
    """Count and average over cells; ``full`` is the full model's metric."""
    compared = beaten = alone = 0
    advantages = []
    for cell in cells:
        best = cell.best(in_paper=in_paper)
        if best is None or best.entry is None:
            alone += cell.plan is not None
            continue
        compared += 1
        beaten += any(item.wins for item in cell.baselines if item.in_paper or not in_paper)
        if best.ahead is not None and best.entry.measured < full - HARD:
            advantages.append(best.ahead)
    if not advantages:
        return Summary(compared, beaten, alone, 0, None, None)
    means = fmean(advantages), median(advantages)
    return Summary(compared, beaten, alone, len(advantages), *means)


def forecast(entries: Iterable[tuple[Estimate, float]]) -> Forecast | None:
    """Judge expectations by what was measured, of distinct plans; None where there are none."""
    found = list(entries)
    if not found:
        return None
    return Forecast(
        plans=len(found),
        mean_error=fmean(abs(expected.value - measured) for expected, measured in found),
        inside=sum(expected.low <= measured <= expected.high for expected, measured in found),
    )
