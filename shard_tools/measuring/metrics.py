"""How well answers agree with labels, and how likely a difference is due to chance. Pure.

In: logits and the labels of a data set. Out: accuracy or Spearman's rank correlation, and the
standard error of differences between two ways to answer the same texts. The bootstrap is paired:
every contender is scored on the same resamples, so that what is hard for all of them cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float64Array

RESAMPLES = 1000
"""Bootstrap resamples: a standard error to about 2 % of itself."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on a data set, and on each bootstrap resample of it."""

    value: float
    resampled: Float64Array
    """``[RESAMPLES]``; comparable between scores of the same ``Scorer`` only."""

    def ahead(self, other: Score) -> tuple[float, float]:
        """How much better this is than ``other``, and the standard error of that (paired)."""
        spread = float(np.std(self.resampled - other.resampled, ddof=1))
        return self.value - other.value, spread


class Scorer:
    """Scores answers to one data set.

    Args:
        metric: ``accuracy`` or ``spearman``.
        labels: class numbers, or the values of a regression.
        seed: of the resamples.
    """

    def __init__(self, metric: str, labels: Sequence[float], *, seed: int) -> None:
        self._ranked = metric == "spearman"
        self._labels = np.asarray(labels, dtype=np.float64)
        count = len(self._labels)
        rng = np.random.default_rng(seed)
        self._picks = rng.integers(0, count, (RESAMPLES, count), dtype=np.int32)

    def score(self, logits: NDArray[np.float32]) -> Score:
        """Score answers, ``[n, outputs]`` in the order of the labels."""
        if self._ranked:
            values = logits[:, 0].astype(np.float64)
            found = [spearman(values[pick], self._labels[pick]) for pick in self._picks]
            return Score(spearman(values, self._labels), np.array(found))
        right = (logits.argmax(axis=-1) == self._labels).astype(np.float64)
        return Score(float(right.mean()), right[self._picks].mean(axis=1))


def spearman(first: Float64Array, second: Float64Array) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one side is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = float(np.sqrt(np.dot(centred[0], centred[0]) * np.dot(centred[1], centred[1])))
    return float(np.dot(centred[0], centred[1])) / scale if scale else 0.0


def _ranks(values: Float64Array) -> Float64Array:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[places], dtype=np.float64)
