"""How kept targets are counted: what is inside, what is apart, and bounds of shares. Pure.

In: runs as they were answered. Out: counts, lower confidence bounds, lengths of a disturbance. A
run is inside where it met its target with a plan above the quality floor. It is disturbed where the
machine took the processor away for more than a twentieth of it: threads that waited for a core, or
time that the host gave to others. Knows nothing of engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
"""Of one-sided bounds."""
FLOOR = 0.95
"""Share of the full model's metric below which a plan counts as outside."""
DISTURBED = 0.05
"""Share of a run."""
ALLOWED, FEWEST, SURE = 0.02, 40, 0.999
"""Share of runs that may miss a target by default; and with so many runs and such confidence, more
is too often: an engine that judges only its last runs has to notice, too."""
SETTLED, SETTLED_INSIDE = 10, 9
"""It is over once so many of so many runs in a row are as they should be."""


class Run(NamedTuple):
    """One answer."""

    tokens: int
    """The bucket that its text falls into."""
    first: bool
    """Whether the engine answers a text of this bucket for the first time."""
    target_s: float
    total_s: float
    plan_s: float
    predicted_s: float
    met: bool | None
    late_s: float
    line: str | None
    """What is told about a miss."""
    waited_s: float | None
    """Seconds its threads waited for a core, all together; None where the system does not say."""
    stolen_s: float
    """Seconds that the host gave to others meanwhile, on all cores."""
    metric: float | None
    """To be expected; None for packs that have not measured theirs."""
    above_floor: bool
    planned_bytes: int
    downgrades: int
    call_s: float
    """Seconds by the caller's clock, with what the engine does after its answer."""
    opening: bool = False
    """Whether it is the very first of its engine."""

    @property
    def inside(self) -> bool:
        """Whether it kept the target."""
        return self.total_s <= self.target_s and self.above_floor

    @property
    def disturbed(self) -> bool:
        """Whether the machine took the processor away."""
        return max(self.waited_s or 0.0, self.stolen_s) > DISTURBED * self.total_s

    @property
    def told(self) -> bool:
        """Whether a miss is told in every way, and what is no miss is not."""
        missed = self.total_s > self.target_s
        if not missed:
            return self.met is True and self.late_s == 0 and self.line is None
        return self.met is False and self.late_s > 0 and bool(self.line)


@dataclass(slots=True)
class Session:
    """Runs of one engine with one target, in order."""

    case: str
    target_s: float
    preload: str
    runs: list[Run] = field(default_factory=list)
    refused: int = 0
    """Texts for which the target was refused."""
    withdrawn: int = 0
    """Texts for which it was, after others of their length had been answered."""
    kept: list[bool] = field(default_factory=list)
    """Of all texts in order, whether the run was inside; refused ones were not."""
    warned: int = 0
    """Warnings that the target is missed too often."""
    adapt: bool = True
    health: tuple[int, float] | None = None
    """Runs and the share of them that met the target, as the engine itself counts."""

    @property
    def misses_too_often(self) -> bool:
        """Whether it missed its target more often than one in fifty, by more than chance."""
        missed = sum(run.total_s > run.target_s for run in self.runs)
        count = len(self.runs)
        return count >= FEWEST and lower_bound(missed, count, confidence=SURE) > ALLOWED

    @property
    def counted_alike(self) -> bool:
        """Whether the engine itself counts as many runs, and as many within the target."""
        if self.health is None:
            return not self.runs
        met = sum(run.total_s <= run.target_s for run in self.runs)
        runs, share = self.health
        return runs == len(self.runs) and round(share * runs) == met


class Share(NamedTuple):
    """How many of how many."""

    inside: int
    runs: int

    @property
    def share(self) -> float:
        """Of one; 0 where there are none."""
        return self.inside / self.runs if self.runs else 0.0

    @property
    def bound(self) -> float:
        """The lower 95 % confidence bound."""
        return lower_bound(self.inside, self.runs)


def share_of(runs: Iterable[Run], withdrawn: int = 0) -> Share:
    """How many are inside; targets that were withdrawn are not."""
    found = [run.inside for run in runs]
    return Share(sum(found), len(found) + withdrawn)


def lower_bound(inside: int, runs: int, *, confidence: float = CONFIDENCE) -> float:
    """The exact one-sided lower bound (Clopper and Pearson) of a share.

    The share below which as many or more of ``runs`` would be inside with a probability of less
    than 1 - ``confidence``; 0 where none is inside.
    """
    if not 0 <= inside <= runs:
        raise ValueError(f"{inside} of {runs} is no share")
    if inside == 0:
        return 0.0
    low, high = 0.0, inside / runs
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (
            (low, middle)
            if at_least(inside, runs, middle) > 1.0 - confidence
            else (
                middle,
                high,
            )
        )
    return low


def at_least(inside: int, runs: int, share: float) -> float:
    """The probability that at least ``inside`` of ``runs`` are, each with probability ``share``."""
    if share <= 0.0 or share >= 1.0:
        return float(inside == 0 or share >= 1.0)
    counts = np.arange(inside, runs + 1)
    choices = np.array([math.lgamma(count + 1) + math.lgamma(runs - count + 1) for count in counts])
    logs = math.lgamma(runs + 1) - choices
    logs += counts * math.log(share) + (runs - counts) * math.log1p(-share)
    return float(min(1.0, np.exp(logs).sum()))


def runs_until(fine: Sequence[bool]) -> int | None:
    """Runs until all is as it should be again; None: never.

    It is from the first run on that is fine itself and begins ten of which at least nine are; at
    the end of the list, all that are left, at least five.
    """
    for first, good in enumerate(fine):
        window = fine[first : first + SETTLED]
        if good and len(window) >= SETTLED // 2:
            missing = SETTLED - SETTLED_INSIDE
            if window.count(False) <= missing:
                return first
    return None


def spread(values: Sequence[float]) -> float:
    """The 95th percentile over the median."""
    return float(np.percentile(values, 95) / np.median(values))
