"""Outlier lists: what they must look like, and putting their exact values over decoded weights.

The bytes are specified in ``sti.codec.codebook``. In: a list, and the weights of each operand. Out:
positions and values by operand. Knows nothing of planes or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray

SEGMENT_WEIGHTS = 65_536

COUNT, POSITION = np.dtype("<u4"), np.dtype("<u2")
"""Types in an outlier list, which holds counts, then positions, then int8 values."""

PADDED = 4
"""A list's length is a multiple of this."""


class Segments(NamedTuple):
    """The segments of a shard, operand after operand.

    Attributes:
        operands: how many each operand has.
        starts: where each begins in its operand.
        weights: of each, int64; all have ``SEGMENT_WEIGHTS`` but the last one of an operand.
    """

    operands: tuple[int, ...]
    starts: NDArray[np.int64]
    weights: NDArray[np.int64]


def segments_of(sizes: Sequence[int]) -> Segments:
    """The segments of shards whose operands have these weights."""
    starts = [start for size in sizes for start in range(0, size, SEGMENT_WEIGHTS)]
    ends = [
        min(start + SEGMENT_WEIGHTS, size)
        for size in sizes
        for start in range(0, size, SEGMENT_WEIGHTS)
    ]
    return Segments(
        tuple(-(-size // SEGMENT_WEIGHTS) for size in sizes),
        np.array(starts, dtype=np.int64),
        np.array(ends, dtype=np.int64) - starts,
    )


class Outliers(NamedTuple):
    """A list as it was read: how many each operand has, their places in it, their bytes."""

    counts: tuple[int, ...]
    places: NDArray[np.int64]
    values: ByteArray

    def by_operand(self) -> Iterator[tuple[NDArray[np.int64], ByteArray]]:
        """Places and values of each operand."""
        start = 0
        for count in self.counts:
            yield self.places[start : start + count], self.values[start : start + count]
            start += count


def read_outliers(stored: ByteArray, segments: Segments) -> Outliers | None:
    """Take a list apart.

    Args:
        stored: 1-D uint8, the list as stored and nothing else.

    Returns:
        What it holds; None if it contradicts itself or does not fit these segments.
    """
    head = COUNT.itemsize * len(segments.weights)
    if stored.size < head:
        return None
    counts = stored[:head].view(COUNT).astype(np.int64)
    total = int(counts.sum())
    length = head + 3 * total
    if stored.size != length + -length % PADDED or stored[length:].any():
        return None
    positions = stored[head : head + 2 * total].view(POSITION).astype(np.int64)
    if total and not _in_order(positions, counts, segments.weights):
        return None
    found, first = [], 0
    for number in segments.operands:
        found.append(int(counts[first : first + number].sum()))
        first += number
    places = positions + np.repeat(segments.starts, counts)
    return Outliers(tuple(found), places, stored[head + 2 * total : length])


def _in_order(
    positions: NDArray[np.int64], counts: NDArray[np.int64], weights: NDArray[np.int64]
) -> bool:
    """Whether positions ascend inside their segments and do not go beyond them."""
    ends, used = np.cumsum(counts), counts > 0
    falls = positions[1:] <= positions[:-1]
    begins = ends[used][:-1]
    falls[begins - 1] = False  # from one segment to the next
    inside = positions[ends[used] - 1] < weights[used]
    return bool(inside.all() and not falls.any())
