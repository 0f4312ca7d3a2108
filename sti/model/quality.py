"""How good an answer will be: predictions from the curves that a pack carries.

In: curves that calibration wrote into the manifest. Out: the expected loss for missing planes, and
the reverse; for an expected loss, the metric to expect with an interval, and the score below which
an answer counts as out of scope. Pure. Knows nothing of how the curves were measured.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

NINETY_FIVE = 1.96
"""Standard deviations on either side of the mean that cover 95 % of a normal distribution."""

INDISTINCT = 0.1
"""Share of the residual: a difference in the metric that small is not noticed.

With a share of 0.5, 3 of 15 cells are lost to a baseline instead of 1 (docs/experiments.md)."""

MOST_LOSS = 1e15
"""Of a loss or a gain, whatever their unit: sums and squares of more may be no finite numbers."""

METRICS = ("accuracy", "spearman")
"""Metrics that a pack may state its quality in: from 0 to 1, and from -1 to 1."""


class Estimate(NamedTuple):
    """The metric to expect, and the interval that contains it 95 times in 100."""

    metric: str
    value: float
    low: float
    high: float


class Quality(NamedTuple):
    """The metric of a pack's task as a function of a plan's expected loss."""

    metric: str
    """Its name: ``accuracy`` (0 to 1) or ``spearman`` (-1 to 1)."""
    examples: int
    """Calibration examples it was measured on."""
    residual: float
    """Standard deviation of measured minus predicted, on plans that were not fitted."""
    losses: tuple[float, ...]
    """Ascending."""
    values: tuple[float, ...]
    """The metric at each of ``losses``, never rising. Flat beyond both ends."""

    def indistinct_from(self, loss: float) -> float:
        """The largest loss whose metric is practically the same as at ``loss``; at least ``loss``.

        The metric counts as the same while it falls by no more than ``INDISTINCT`` times the
        standard deviation of its prediction.
        """
        enough = interpolate(self.losses, self.values, loss) - INDISTINCT * self.residual
        if self.values[-1] >= enough:
            return max(loss, self.losses[-1])
        falling = tuple(-value for value in self.values)
        return max(loss, reach(self.losses, falling, -enough))

    def estimate(self, loss: float) -> Estimate:
        """What to expect of a plan with this expected loss, on data like the calibration's.

        The interval covers the predictor's own error and, for an accuracy, the sampling error of
        ``examples`` examples.
        """
        value = interpolate(self.losses, self.values, loss)
        spread = self.residual**2
        least = least_of(self.metric)
        if self.metric == "accuracy":
            spread += max(value * (1.0 - value), 0.0) / self.examples
        reach = NINETY_FIVE * math.sqrt(spread)
        return Estimate(self.metric, value, max(least, value - reach), min(1.0, value + reach))


class Rejection(NamedTuple):
    """When a classifier reports that a text is out of scope.

    An answer's score is its probability at ``temperature``; below the threshold for the plan's
    expected loss the text is out of scope.
    """

    label: str
    """What to call such a text."""
    temperature: float
    """Logits are divided by it before the softmax, so that probabilities are calibrated."""
    accepted: float
    """Share of in-scope calibration texts that the thresholds let through."""
    losses: tuple[float, ...]
    thresholds: tuple[float, ...]

    def threshold(self, loss: float) -> float:
        """The lowest score that counts as in scope, for a plan with this expected loss."""
        return interpolate(self.losses, self.thresholds, loss)


def loss_at(quality: Quality, share: float) -> float:
    """The largest loss whose expected metric is at least this share of the full model's.

    The full model's is the metric at a loss of zero. Infinite where the curve never falls below.
    """
    enough = share * interpolate(quality.losses, quality.values, 0.0)
    if quality.values[-1] >= enough:
        return math.inf
    return reach(quality.losses, tuple(-value for value in quality.values), -enough)


def least_of(metric: str) -> float:
    """The lowest value of a metric; the highest is 1."""
    return 0.0 if metric == "accuracy" else -1.0


def interpolate(places: Sequence[float], values: Sequence[float], place: float) -> float:
    """Piecewise linear through the points; flat beyond the first and the last."""
    right = bisect_right(places, place)
    if right == 0:
        return values[0]
    if right == len(places):
        return values[-1]
    left = right - 1
    share = (place - places[left]) / (places[right] - places[left])
    return values[left] + share * (values[right] - values[left])


def follow(places: Sequence[float], values: Sequence[float], place: float) -> float:
    """As ``interpolate``, but continued beyond the last point with the slope of the last segment.

    A single point is continued with a slope of 1: one more missing, one more lost.
    """
    beyond = place - places[-1]
    if beyond <= 0.0:
        return interpolate(places, values, place)
    return values[-1] + beyond * _last_slope(places, values)


def reach(places: Sequence[float], values: Sequence[float], value: float) -> float:
    """The last place where ``follow`` is at most ``value``; values must never fall.

    Infinite where the curve ends flat below it; negative infinity where it starts above it.
    """
    right = bisect_right(values, value)
    if right == 0:
        return -math.inf
    if right == len(values):
        slope = _last_slope(places, values)
        beyond = value - values[-1]
        return places[-1] + beyond / slope if slope > 0.0 else math.inf
    left = right - 1  # the last point not above the value, so that the next one is
    share = (value - values[left]) / (values[right] - values[left])
    return places[left] + share * (places[right] - places[left])


def _last_slope(places: Sequence[float], values: Sequence[float]) -> float:
    if len(places) == 1:
        return 1.0
    return (values[-1] - values[-2]) / (places[-1] - places[-2])
