"""The codebook of a model: nested intervals of the int8 alphabet, cut by exact dynamic programming.

In: a histogram of the model's int8 weights, where outliers begin, a ladder. Out: a ``Codebook``.
Every bit of a code cuts an interval of the alphabet in two; the value of a code is the rounded mean
of its interval. All cuts are chosen together, to minimize the sum over all fidelities of the
squared error divided by the least error possible at that fidelity.

Where the ladder ends at 8 bits, every value has a code of its own at the top. Where possible, the
last four bits then have a fixed meaning (``_STEPS``), so that the decoder adds up two look-ups
instead of assembling codes: 6 and 8 bits decode almost twice as fast, and the loss of quality is
hard to measure. A codebook cut freely at every bit is the fallback.

Knows nothing of matrices, shards or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float64Array
from sti.codec.codebook import DEFAULT_LADDER, Codebook, check_ladder
from sti.codec.tables import components
from sti.errors import InputError

Places = NDArray[np.intp]
Interval = tuple[int, int]

_TOP_BITS = 8
_HEAD_BITS = 4
_KIND_BITS = 2
_STEPS_MAY_COST = 1.2  # most error allowed, as a multiple of that of a freely cut codebook
_GRID_ERROR = 1 / 12  # mean square of rounding to the int8 grid
_STEPS = np.array([[0, 0, 1, 2], [1, 3, 4, 5], [2, 6, 7, 8], [3, 9, 10, 11]]).reshape(-1)
"""What the last four bits add to the base value given by the first four.

Codes 0, 4, 8, 12 are for narrow intervals, in the dense middle: up to four values, each exact with
6 bits. The others are for wide intervals, of up to twelve values: three for each code of 6 bits.
All intervals inside one of 2 bits are of the same kind, so that the 6-bit look-up can tell the
kinds apart by the first two bits.
"""
_NARROW = np.arange(16) % 4 == 0
_WIDE = ~_NARROW


def histogram(q: NDArray[np.int8]) -> NDArray[np.int64]:
    """How often each int8 value occurs, int64 ``[256]``: value v at index v + 128."""
    counts = np.bincount(np.ascontiguousarray(q).view(np.uint8).reshape(-1), minlength=256)
    return np.roll(counts, 128).astype(np.int64)


def build_codebook(
    counts: NDArray[np.int64], *, cut: int, ladder: Sequence[int] = DEFAULT_LADDER
) -> Codebook:
    """The best codebook for weights with these counts.

    Args:
        counts: int64 ``[256]`` as ``histogram`` returns them, summed over the model.
        cut: values beyond +-cut are outliers, which get no codes; 1..127.
        ladder: the fidelities.

    Raises:
        InputError: ``cut`` is out of range.
        PackFormatError: the ladder is malformed.
    """
    steps = check_ladder(ladder)
    if not 1 <= cut <= 127:
        raise InputError(f"the outlier limit must be within 1..127, got {cut}")
    alphabet = _Alphabet(counts, cut)
    weights = alphabet.level_weights(steps)
    free_cost, free = _free_codebook(alphabet, steps, weights)
    boundaries = set(accumulate(part.bits for plane in components(steps) for part in plane))
    if steps[-1] == _TOP_BITS and _HEAD_BITS in boundaries:
        cost, stepped = _stepped_codebook(alphabet, steps, weights)
        if stepped is not None and cost <= _STEPS_MAY_COST * free_cost:
            return stepped
    return free


class _Alphabet:
    """The values that planes code, -cut..cut, and the error of giving an interval a single value.

    An interval (i, j) holds the values ``first + i .. first + j - 1``; arrays over intervals are
    ``[n + 1, n + 1]``. ``width`` is below 0 where there is no interval.
    """

    def __init__(self, counts: NDArray[np.int64], cut: int) -> None:
        self.first = -cut
        values = np.arange(-cut, cut + 1)
        # One is added to every count, so that values that do not occur still have a cost. Counts
        # are whole numbers in floats: sums are exact, and the same on every machine.
        self.counts: Float64Array = counts[values + 128].astype(np.float64) + 1.0
        sums = [self.counts * values**power for power in range(3)]
        total, linear, square = (_between(np.concatenate(([0.0], np.cumsum(s)))) for s in sums)
        mean = np.rint(linear / np.where(total > 0, total, 1.0))
        place = np.arange(len(total))
        self.width = place[None, :] - place[:, None]
        cost = np.maximum(square - 2 * mean * linear + mean * mean * total, 0.0)
        self.cost: Float64Array = np.where(self.width > 1, cost, 0.0)
        self.mean = mean.astype(np.int64)

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.counts)

    def level_weights(self, ladder: Sequence[int]) -> dict[int, float]:
        """For each fidelity, the reciprocal of the least error against float that it can have."""
        best, weights = self.leaves(self.cost), {}
        grid_error = float(self.counts.sum()) * _GRID_ERROR
        for bits in range(1, _TOP_BITS):
            best, _ = _halved(best)
            weights[bits] = 1.0 / (float(best[0, -1]) + grid_error)
        return {bits: weights.get(bits, 0.0) for bits in ladder}

    def leaves(self, cost: Float64Array, widest: int = 256) -> Float64Array:
        """``cost`` of the intervals of at most ``widest`` values, infinite elsewhere."""
        return np.where((self.width >= 0) & (self.width <= widest), cost, np.inf)


def _between(prefix: Float64Array) -> Float64Array:
    """Sums over all intervals, from prefix sums."""
    return prefix[None, :] - prefix[:, None]


def _halved(best: Float64Array) -> tuple[Float64Array, Places]:
    """Least cost of each interval after cutting it in two parts that cost ``best``, and where."""
    least, place = np.empty_like(best), np.empty(best.shape, dtype=np.intp)
    for start, row in enumerate(best):
        sums = row[:, None] + best
        place[start] = sums.argmin(axis=0)
        least[start] = sums[place[start], np.arange(len(best))]
    return least, place


def _levels(interval: Interval, cuts: Sequence[Places]) -> list[list[Interval]]:
    """The interval, its two parts, their parts, and so on, according to ``cuts``."""
    levels = [[interval]]
    for place in cuts:
        halves = []
        for i, j in levels[-1]:
            middle = int(place[i, j])
            halves += [(i, middle), (middle, j)]
        levels.append(halves)
    return levels


def _means(alphabet: _Alphabet, levels: Sequence[Sequence[Interval]], bits: int) -> list[int]:
    """Rounded means of the intervals; an empty interval takes that of the one around it."""
    found = []
    for code, (i, j) in enumerate(levels[bits]):
        above = bits
        while i == j:
            above -= 1
            i, j = levels[above][code >> (bits - above)]
        found.append(int(alphabet.mean[i, j]))
    return found


def _codebook(ladder: tuple[int, ...], values: Mapping[int, Sequence[int]]) -> Codebook:
    return Codebook(ladder, {bits: np.array(values[bits], dtype=np.int8) for bits in ladder})


def _free_codebook(
    alphabet: _Alphabet, ladder: tuple[int, ...], weights: Mapping[int, float]
) -> tuple[float, Codebook]:
    """The codebook with the best cut at every bit, and its weighted error."""
    top = ladder[-1]
    best = alphabet.leaves(weights[top] * alphabet.cost, 1 if top == _TOP_BITS else 256)
    cuts = []
    for bits in reversed(range(top)):
        best, place = _halved(best)
        best = best + weights.get(bits, 0.0) * alphabet.cost
        cuts.append(place)
    levels = _levels((0, alphabet.size), cuts[::-1])
    codebook = _codebook(ladder, {bits: _means(alphabet, levels, bits) for bits in ladder})
    return float(best[0, -1]), codebook


class _Kind:
    """Intervals of four bits, narrow or wide, combined into those of two bits.

    Attributes:
        used: bool ``[16]``, the codes of the last four bits that are used.
        phase: for each interval, which of the used codes its first value has.
        best: least cost of each interval of two bits.
        cuts: where those are cut in two, then where their parts are.
    """

    def __init__(
        self,
        alphabet: _Alphabet,
        used: NDArray[np.bool_],
        ladder: Sequence[int],
        weights: Mapping[int, float],
    ) -> None:
        self.used = used
        missed = np.zeros(np.count_nonzero(used))
        for bits in set(ladder) & set(range(_HEAD_BITS + 1, _TOP_BITS)):
            missed += weights[bits] * np.square((_STEPS - self.centres(bits))[used])
        best = np.full(alphabet.cost.shape, np.inf)
        np.fill_diagonal(best, 0.0)
        self.phase = np.zeros(best.shape, dtype=np.intp)
        for width in range(1, min(len(missed), alphabet.size) + 1):
            phases = len(missed) - width + 1
            start = np.arange(alphabet.size - width + 1)
            costs = np.zeros((phases, len(start)))
            for step in range(width):  # not a matrix product, whose order of adding may vary
                costs += missed[step : step + phases, None] * alphabet.counts[start + step]
            self.phase[start, start + width] = costs.argmin(axis=0)
            best[start, start + width] = costs.min(axis=0)
        best = best + weights.get(_HEAD_BITS, 0.0) * alphabet.cost
        self.cuts: list[Places] = []
        for bits in reversed(range(_KIND_BITS, _HEAD_BITS)):
            best, place = _halved(best)
            best = best + weights.get(bits, 0.0) * alphabet.cost
            self.cuts.insert(0, place)
        self.best = best

    def centres(self, bits: int) -> NDArray[np.int64]:
        """The step used for each of the 16 codes if only ``bits`` bits are known, ``[16]``."""
        steps, used = (array.reshape(1 << (bits - _HEAD_BITS), -1) for array in (_STEPS, self.used))
        count = used.sum(axis=1)
        mean = np.rint((steps * used).sum(axis=1) / np.maximum(count, 1)).astype(np.int64)
        return np.repeat(np.where(count > 0, mean, steps[:, 0]), steps.shape[1])

    def base(self, alphabet: _Alphabet, interval: Interval) -> int:
        """The value at step 0."""
        step = _STEPS[self.used][self.phase[interval]]
        return alphabet.first + interval[0] - int(step)


def _stepped_codebook(
    alphabet: _Alphabet, ladder: tuple[int, ...], weights: Mapping[int, float]
) -> tuple[float, Codebook | None]:
    """As ``_free_codebook``, with ``_STEPS`` for the last four bits; None if the alphabet is too
    wide for them.
    """
    kinds = [_Kind(alphabet, used, ladder, weights) for used in (_NARROW, _WIDE)]
    best = np.minimum(kinds[0].best, kinds[1].best)
    cuts: list[Places] = []
    for _ in range(_KIND_BITS):
        best, place = _halved(best)
        cuts.insert(0, place)
    if not np.isfinite(best[0, -1]):
        return float("inf"), None
    levels = _levels((0, alphabet.size), cuts)
    chosen = [kinds[int(kinds[1].best[place] < kinds[0].best[place])] for place in levels[-1]]
    parts = [_levels(place, kind.cuts) for place, kind in zip(levels[-1], chosen, strict=True)]
    for depth in range(1, _HEAD_BITS - _KIND_BITS + 1):
        levels.append([interval for part in parts for interval in part[depth]])
    values = {bits: _means(alphabet, levels, bits) for bits in ladder if bits <= _HEAD_BITS}
    for bits in set(ladder) - set(values):
        stride = 1 << (_TOP_BITS - bits)
        values[bits] = [
            kind.base(alphabet, interval) + int(step)
            for kind, part in zip(chosen, parts, strict=True)
            for interval in part[-1]
            for step in (kind.centres(bits)[::stride])
        ]
    return float(best[0, -1]), _codebook(ladder, values)
