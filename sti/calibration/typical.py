"""What is typical of samples that were disturbed more or less, and how much they differ. Pure.

In: samples with the share of their time that they waited for a core. Out: a typical value, from the
undisturbed samples wherever there are some, else from the least disturbed ones; and the ratio of a
high percentile to it. Two seconds give few samples of each kind, so neither is an extreme: the
typical value lies between the lower quartile and the median, and the high percentile is derived
from how far the samples in the middle spread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from sti.device.profile import LEAST_JITTER, MOST_DISTURBED, MOST_JITTER

K = TypeVar("K")

_TYPICAL = 3 / 8
_HIGH = 4 / 5
_BEYOND = 2.5
"""How far the 98th percentile is from the typical value, in distances of ``_HIGH`` from it: 2.05 if
times were normally distributed; they have longer tails."""
_USUAL_SPREAD, _USUAL_WEIGHT = 1.15, 40
"""What quiet machines show, and how many samples that is worth."""


class Typical(NamedTuple):
    """A typical time."""

    seconds: float
    waited: float
    """Share of their time that the samples behind it waited, on average."""


def least_disturbed(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The samples, seconds and share waited, to believe: none disturbed where that can be."""
    quiet = [sample for sample in samples if sample[1] <= MOST_DISTURBED]
    return quiet or sorted(samples, key=lambda sample: sample[1])[: -(-len(samples) // 4)]


def typical(samples: Sequence[tuple[float, float]]) -> Typical:
    """The typical one of some seconds, each with the share waited; at least one sample."""
    chosen = least_disturbed(samples)
    waited = sum(share for _, share in chosen) / len(chosen)
    return Typical(_quantile([seconds for seconds, _ in chosen], _TYPICAL), waited)


def typical_by(samples: Iterable[tuple[K, float, float]]) -> dict[K, Typical]:
    """The typical value of each key's samples: key, seconds, share waited."""
    grouped: defaultdict[K, list[tuple[float, float]]] = defaultdict(list)
    for key, seconds, waited in samples:
        grouped[key].append((seconds, waited))
    return {key: typical(found) for key, found in grouped.items()}


def disturbed(found: Iterable[Typical]) -> float:
    """Share of the time that what was found waited, on average."""
    shares = [one.waited for one in found]
    return sum(shares) / len(shares) if shares else 0.0


def spread(samples: Mapping[K, Sequence[tuple[float, float]]]) -> float:
    """The 98th percentile over the typical value of what was done in different ways.

    Args:
        samples: seconds and share waited, by what was done.

    Returns:
        A ratio from ``LEAST_JITTER`` to ``MOST_JITTER``; near that of quiet machines where there
        are few samples.
    """
    ratios = []
    for found in samples.values():
        middle = typical(found).seconds
        if middle > 0.0:
            ratios += [seconds / middle for seconds, _ in least_disturbed(found)]
    high = _quantile(ratios, _HIGH) if ratios else 1.0
    shown = 1.0 + _BEYOND * max(0.0, high - 1.0)
    count = len(ratios)
    ratio = (count * shown + _USUAL_WEIGHT * _USUAL_SPREAD) / (count + _USUAL_WEIGHT)
    return min(MOST_JITTER, max(LEAST_JITTER, ratio))


def _quantile(values: Iterable[float], share: float) -> float:
    """By nearest rank, the lower one."""
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)]
