"""What every row of the benchmark is given, and what rows share: medians, turns.

In: packs, what runs. Out: runs of engines that take turns. Knows nothing of what is held against
which limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

from benchmarks.devices.controller import Ran
from benchmarks.devices.packed import Packed

T = TypeVar("T")
_OF_MEDIAN, _QUARTILES = 1.253, 1.349
"""Of a normal distribution: the standard error of the median over that of the mean; the distance of
its quartiles over the standard deviation."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all rows share."""

    speed: Packed
    """What times are measured on."""
    trained: Packed
    """What answers are compared on."""
    stsb: Path | None
    """Pairs of sentences with scores."""
    repeats: int
    quick: bool
    """Whether figures need mean nothing."""

    def scaled(self, usual: T, quick: T) -> T:
        """One of two numbers, or of two lists of them."""
        return quick if self.quick else usual


@dataclass(slots=True)
class Turns:
    """Runs of the same texts that take turns: name to its runs."""

    runs: dict[str, list[Ran]] = field(default_factory=dict)

    def add(self, others: Turns) -> None:
        """Take in the turns of others, of the same ways."""
        for name, runs in others.runs.items():
            self.runs[name] += runs

    def seconds(self, name: str) -> float:
        """Median."""
        return middle([run.total_s for run in self.runs[name]])

    def predicted_s(self, name: str) -> float:
        """Median of what was expected, each time with what was known then."""
        return middle([run.predicted_s for run in self.runs[name]])

    def ratio(self, name: str, other: str) -> float:
        """Median over the turns of what one took over the other."""
        return middle(self._ratios(name, other))

    def ratio_error(self, name: str, other: str) -> float:
        """About the standard error of ``ratio``, as a share of it, by the quartiles of the turns;
        infinite with a single turn.
        """
        ratios = self._ratios(name, other)
        if len(ratios) < 2:
            return math.inf
        low, half, high = quantiles(ratios, n=4)
        return _OF_MEDIAN * (high - low) / _QUARTILES / math.sqrt(len(ratios)) / half

    @property
    def equal(self) -> bool:
        """Whether all answers are the same to the bit."""
        return len({run.digest for runs in self.runs.values() for run in runs}) == 1

    def _ratios(self, name: str, other: str) -> list[float]:
        pairs = zip(self.runs[name], self.runs[other], strict=True)
        return [one.total_s / two.total_s for one, two in pairs]

    @property
    def notices(self) -> list[str]:
        """What was told."""
        return [line for runs in self.runs.values() for run in runs for line in run.notices]


def in_turns(ways: Mapping[str, Callable[[], Ran]], *, warm_ups: int, repeats: int) -> Turns:
    """Run each way as often, one after the other, each turn in another order. After twice as many
    turns as there are ways, each way was at every place as often; of three ways, each has followed
    each other one as often, too.

    Args:
        ways: name to what runs.
        warm_ups: turns that do not count.
    """
    found = Turns({name: [] for name in ways})
    names = list(ways)
    turned = [names[first:] + names[:first] for first in range(len(names))]
    orders = [order for each in turned for order in (each, each[::-1])]
    for turn in range(-warm_ups, repeats):
        for name in orders[turn % len(orders)]:
            run = ways[name]()
            if turn >= 0:
                found.runs[name].append(run)
    return found


def middle(values: Sequence[float]) -> float:
    """The median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0
