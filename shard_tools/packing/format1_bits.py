"""The bits of weights in packs of format 1, undone.

In: the bytes of a shard in a plane, or of its outlier list. Out: codes, places and values. A plane
of a shard of N weights was a sequence of components over all of them:

- a two-bit component had the bits of weights 4i to 4i + 3 in byte i, the first in the lowest bits;
- a one-bit component had those of weights 4i to 4i + 3 in the low half of byte i, and those of
  weights 4i + N/2 to 4i + N/2 + 3 in its high half;

and segments of outlier lists ran over the whole shard, whatever its operands. Knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SEGMENT = 65_536


@dataclass(frozen=True, slots=True)
class OldShard:
    """One slice of a block, undone."""

    codes: NDArray[np.uint8]
    """``[N]``, of the top fidelity."""
    places: NDArray[np.intp]
    """Which weights are outliers, ascending."""
    exact: NDArray[np.uint8]
    """Their int8 values, as uint8."""


def add_plane(codes: NDArray[np.uint8], piece: NDArray[np.uint8], width: int) -> None:
    """Append ``width`` bits to each of N codes, from a shard's bytes in a plane."""
    count, start = codes.size, 0
    for bits in (2,) * (width // 2) + (1,) * (width % 2):
        stop = start + count * bits // 8
        part = piece[start:stop]
        fields = np.empty((part.size, 8 // bits), np.uint8)
        for place in range(8 // bits):
            fields[:, place] = part >> np.uint8(place * bits) & np.uint8((1 << bits) - 1)
        if bits == 1:  # the halves of a byte are from the two halves of the shard
            fields = np.stack([fields[:, :4], fields[:, 4:]])
        codes <<= np.uint8(bits)
        codes |= fields.reshape(-1)
        start = stop


def read_outliers(
    listed: NDArray[np.uint8], weights: int
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Places in the shard, ascending, and int8 values as uint8.

    Raises:
        ValueError: the list does not fit a shard of ``weights`` weights; the message says why.
    """
    segments = -(-weights // _SEGMENT)
    head = 4 * segments
    counts: Sequence[int] = listed[:head].view("<u4").tolist() if listed.size >= head else []
    total = sum(counts)
    if not counts or listed.size < head + 3 * total:
        raise ValueError("is too short for what it says")
    places = listed[head : head + 2 * total].view("<u2").astype(np.intp)
    places += np.repeat(np.arange(segments) * _SEGMENT, counts)
    if (places[1:] <= places[:-1]).any() or (total and places[-1] >= weights):
        raise ValueError("is not in order")
    return places, listed[head + 2 * total : head + 3 * total]
