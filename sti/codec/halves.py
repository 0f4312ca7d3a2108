"""Halves of a codebook's values: which way each odd one is rounded, so that the mean stays.

In: the values of a fidelity, and how often weights occur. Out: for each value its half, an int8 in
-64 .. 63. Pure, and the same on every machine: sums are of whole numbers. Knows nothing of planes,
decoders or graphs.

Few values stand for all weights. Were each odd one rounded by a rule of its own, the mean of all
weights would move, the same way in every matrix, and products with inputs of one sign would add
these errors up. So the values d = 2 h - v, each -1 or 1, are chosen together: f being how often a
value is the nearest of its fidelity,

    |sum f d| is least, and among equals sum f d v is greatest

For every choice of d there is -d with the same |sum f d|. Of these two the one that spreads the
values is better: at few bits decoded weights are too small on average, as means of intervals are.

Weights are taken to be normally distributed, as codebooks assume, with the deviation at which the
lowest fidelity is the most accurate. Where more than ``_SEARCHED`` values are odd each is rare, and
halves are rounded to even, as those of outliers: neighbours then go down and up in turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Int64Array
from sti.codec.codebook import Codebook

LEAST_HALF, MOST_HALF = -64, 63
WEIGHTS: Int64Array = np.arange(-127, 128)
"""The int8 weights whose frequencies ``bell_of`` gives."""

_SEARCHED = 12
_SCALE = 1 << 20
_DEVIATIONS = np.geomspace(2.0, 80.0, 120)
"""Deviations tried, in units of int8 values."""


def bell_of(codebook: Codebook) -> Int64Array:
    """How often each of ``WEIGHTS`` occurs, in whole numbers, int64 ``[255]``."""
    lowest = codebook.values[codebook.ladder[0]].astype(np.int64)
    bells = np.exp(-0.5 * (WEIGHTS / _DEVIATIONS[:, None]) ** 2)
    bells = np.rint(_SCALE * bells / bells.sum(axis=1, keepdims=True)).astype(np.int64)
    missed = bells @ np.square(WEIGHTS - lowest[nearest(lowest)])
    best: Int64Array = bells[np.argmin(missed / (bells @ np.square(WEIGHTS)))]
    return best


def nearest(values: NDArray[np.signedinteger[Any]]) -> NDArray[np.intp]:
    """Which of some values is nearest to each of ``WEIGHTS``, ``[255]``; the first of equals."""
    apart: Int64Array = np.abs(WEIGHTS[:, None] - values.astype(np.int64))
    first: NDArray[np.intp] = apart.argmin(axis=1)
    return first


def halves_of(values: NDArray[np.int8], bell: Int64Array) -> NDArray[np.int8]:
    """The half of each value, of the same shape; equal values have equal halves.

    Args:
        values: those of one fidelity.
        bell: how often each of ``WEIGHTS`` occurs.
    """
    each, where = np.unique(values.astype(np.int64), return_inverse=True)
    halves = each // 2
    free = np.flatnonzero((each % 2 == 1) & (halves < MOST_HALF))
    halves[free] += _ups(each, free, bell)
    return halves[where].astype(np.int8)


def _ups(each: Int64Array, free: NDArray[np.intp], bell: Int64Array) -> Int64Array:
    """For each place in ``free``, of odd values, 1 where it is rounded up and else 0."""
    if len(free) > _SEARCHED:
        return each[free] // 2 % 2
    ups: Int64Array = np.arange(1 << len(free))[:, None] >> np.arange(len(free)) & 1
    often = np.bincount(nearest(each), bell, minlength=len(each)).astype(np.int64)[free]
    shift, spread = (2 * ups - 1) @ often, (2 * ups - 1) @ (often * each[free])
    best: Int64Array = ups[np.lexsort((-spread, np.abs(shift)))[0]]
    return best
