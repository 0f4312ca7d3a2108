"""Decoding in NumPy: the specification, and the path for machines without the native kernel.

In: the bytes of a slice group, where its shards' pieces are (``sti.codec.pieces``), a codebook.
Out: rows of int8 weights, or uint8 with zero point 128. The native kernel must give the same bits
and the same faults. Knows nothing of files, graphs, scales or layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.codec.codebook import Codebook
from sti.codec.lookup import look_up, runs_of
from sti.codec.outliers import read_outliers, segments_of
from sti.codec.pieces import (
    BOUNDS,
    CHECKSUM,
    OUTLIERS,
    SIZE,
    Fault,
    check_stored,
    operand_sizes,
)
from sti.codec.tables import SIGN, Recipes, plane_bits

PORTABLE = "portable"

PieceFields = tuple[int, int, int, int, int]
"""A piece as numbers: the fields of ``sti.codec.pieces.PIECE``."""


class _Group(NamedTuple):
    """What the shards of one call share."""

    data: ByteArray
    starts: Sequence[int]
    check: bool

    def wrong(self, piece: PieceFields, length: int | None) -> str | None:
        """What is wrong with a piece, which must be of this length if one is given."""
        part, stored, start, checksum, _ = piece
        if part >= len(self.starts) or self.starts[part] + start + stored > self.data.size:
            return BOUNDS
        if length is not None and stored != length:
            return SIZE
        if self.check and crc32(self.bytes_of(piece)) != checksum:
            return CHECKSUM
        return None

    def bytes_of(self, piece: PieceFields) -> ByteArray:
        """The bytes of a piece that is inside the bounds."""
        part, stored, start, _, _ = piece
        start += self.starts[part]
        return self.data[start : start + stored]


class NumpyDecoder:
    """A ``GroupDecoder`` in NumPy alone.

    Args:
        codebook: the codebook of the pack.
        unsigned: write uint8 with zero point 128 instead of int8.
    """

    path = PORTABLE

    def __init__(self, codebook: Codebook, *, unsigned: bool = False) -> None:
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if unsigned else np.int8)
        self._flip = np.array(SIGN if unsigned else 0, dtype=np.uint8)
        self._bits = plane_bits(codebook.ladder)
        self._recipes = Recipes(codebook.ladder, codebook.values, unsigned=unsigned)

    def decode(
        self,
        data: ByteArray,
        starts: NDArray[np.uint64],
        shards: NDArray[Any],
        operands: Sequence[NDArray[Any]],
        *,
        check: bool = True,
        first: int = 0,
        stride: int = 1,
    ) -> Fault | None:
        """See ``GroupDecoder.decode``."""
        check_stored(data, starts, shards, first=first, stride=stride)
        sizes = operand_sizes(shards, operands, self.dtype, len(self._bits))
        segments, runs = segments_of(sizes), runs_of(sizes)
        group = _Group(data, starts.tolist(), check)
        chosen = shards[first::stride]
        for row, count, pieces in zip(
            *(chosen[name].tolist() for name in ("row", "planes", "pieces")), strict=True
        ):
            listed, *stored = pieces[: count + 1]
            what = group.wrong(listed, None)
            outliers = None if what else read_outliers(group.bytes_of(listed), segments)
            if outliers is None:
                return Fault(row, 0, what or OUTLIERS)
            recipe = self._recipes.of(count)
            for number, (piece, bits) in enumerate(zip(stored, recipe.bits, strict=True), 1):
                what = group.wrong(piece, sum(sizes) * bits // 8)
                if what:
                    return Fault(row, number, what)
            planes = [group.bytes_of(piece) for piece in stored]
            rows = [operand[row].reshape(-1).view(np.uint8) for operand in operands]
            look_up(recipe, planes, runs, rows)
            for out, (places, values) in zip(rows, outliers.by_operand(), strict=True):
                out[places] = values ^ self._flip
        return None
