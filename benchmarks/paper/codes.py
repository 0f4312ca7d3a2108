"""Dense codes of 2 to 6 bits: packed offline, looked up in tables at run time.

In: codes of a few bits, or packed bytes and the centroids the codes stand for. Out: packed bytes,
or float32 weights. Knows nothing of models, shards or files.

Codes are taken in groups of two or four, and a group is one index into a table that holds the
group's weights side by side, so that one look-up gives several weights. Indices have 8, 10 or 12
bits: the low bytes of all of them come first, then what is above, packed without a gap:

    bits a weight      2    3    4    5    6
    weights a group    4    4    2    2    2
    bits a group       8   12    8   10   12
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray, Float32Array

MULTIPLE = 8
"""Weights are packed in multiples of this."""

_GROUPS: Mapping[int, int] = {2: 4, 3: 4, 4: 2, 5: 2, 6: 2}
# Unsigned and complex numbers stand for 2 and 4 floats: `take` moves them as one.
_WIDE: Mapping[int, np.dtype[Any]] = {2: np.dtype(np.uint64), 4: np.dtype(np.complex128)}


@dataclass(frozen=True, slots=True)
class _Form:
    """How codes of one size are grouped."""

    group: int
    high_bits: int
    """Bits of an index above its low byte."""

    @property
    def parts(self) -> int:
        """Indices whose upper bits share a byte; they lie a ``parts``-th of all apart."""
        return 8 // self.high_bits


_FORMS = {bits: _Form(group, bits * group - 8) for bits, group in _GROUPS.items()}
CODED = tuple(_FORMS)
"""The numbers of bits there are codes for."""


def packed_bytes(weights: int, bits: int) -> int:
    """ByteArray that ``weights`` codes take, a multiple of ``MULTIPLE`` of them."""
    return weights * bits // 8


def pack(codes: ByteArray, bits: int) -> ByteArray:
    """Codes below ``2**bits``, a multiple of ``MULTIPLE`` of them, as bytes."""
    form = _FORMS[bits]
    groups = codes.reshape(-1, form.group).astype(np.uint16)
    indices = np.zeros(len(groups), dtype=np.uint16)
    for place in range(form.group):
        indices |= groups[:, place] << np.uint16(place * bits)
    pieces = [indices.astype(np.uint8)]
    if form.high_bits:
        above = (indices >> np.uint16(8)).astype(np.uint8).reshape(form.parts, -1)
        shifts = np.arange(form.parts, dtype=np.uint8)[:, None] * np.uint8(form.high_bits)
        pieces.append(np.bitwise_or.reduce(above << shifts, axis=0))
    return np.concatenate(pieces)


class Tables:
    """Look-up tables of groups, and the memory to look up with. Not thread-safe.

    Args:
        weights: the most that one call decodes.
    """

    def __init__(self, weights: int) -> None:
        groups = weights // min(_GROUPS.values())
        self._joined, self._above, self._moved = np.empty((3, groups), dtype=np.uint16)
        self._index = np.empty(groups, dtype=np.intp)
        self._digits = {bits: _digits(bits, form.group) for bits, form in _FORMS.items()}

    def table(self, centroids: Float32Array, bits: int) -> NDArray[Any]:
        """What each group of codes stands for: ``2**bits`` centroids -> one entry a group."""
        return centroids[self._digits[bits]].view(_WIDE[_FORMS[bits].group]).reshape(-1)

    def decode(self, packed: ByteArray, bits: int, table: NDArray[Any], out: Float32Array) -> None:
        """Fill ``out`` (contiguous) with the weights of packed codes."""
        form = _FORMS[bits]
        count = out.size // form.group
        index = self._index[:count]
        if form.high_bits:
            np.copyto(index, self._join(packed, form, count))
        else:
            np.copyto(index, packed)
        # No index is out of range; of the modes that say so, this is the cheapest.
        np.take(table, index, out=out.view(table.dtype), mode="wrap")

    def _join(self, packed: ByteArray, form: _Form, count: int) -> NDArray[np.uint16]:
        """Indices from their low bytes and the bits above."""
        joined = self._joined[:count]
        np.copyto(joined, packed[:count])
        share = count // form.parts
        above, moved = self._above[:share], self._moved[:share]
        np.copyto(above, packed[count:])
        mask = np.uint16(((1 << form.high_bits) - 1) << 8)
        for part in range(form.parts):
            here = joined[part * share : (part + 1) * share]
            np.left_shift(above, np.uint16(8 - part * form.high_bits), out=moved)
            np.bitwise_and(moved, mask, out=moved)
            np.bitwise_or(here, moved, out=here)
        return joined


def _digits(bits: int, group: int) -> NDArray[np.intp]:
    """The codes of each index, ``[indices, group]``."""
    indices = np.arange(1 << (bits * group), dtype=np.intp)[:, None]
    return (indices >> (np.arange(group) * bits)) & ((1 << bits) - 1)
