"""Decoding in NumPy: the specification, and the path for machines without the native kernel.

In: the bytes of a slice group, where its shards' pieces are (``sti.codec.pieces``), a codebook.
Out: matrices of weights, written as ``sti.codec.weights`` says. The native kernel must give the
same bits and the same faults. Knows nothing of files, graphs, scales or layers.
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
    OperandRoom,
    check_stored,
    operand_sizes,
)
from sti.codec.tables import Recipes, plane_bits
from sti.codec.weights import DTYPES, WeightForm, written, written_codes

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
        weights: how weights are written.
    """

    path = PORTABLE

    def __init__(self, codebook: Codebook, *, weights: WeightForm = "s8") -> None:
        self.dtype: np.dtype[Any] = DTYPES[weights]
        self._written = written(weights)
        self._bits = plane_bits(codebook.ladder)
        self._recipes = Recipes(codebook.ladder, written_codes(codebook, weights))

    def decode(
        self,
        data: ByteArray,
        starts: NDArray[np.uint64],
        shards: NDArray[Any],
        operands: Sequence[OperandRoom],
        *,
        check: bool = True,
    ) -> Fault | None:
        """See ``GroupDecoder.decode``."""
        check_stored(data, starts, shards)
        sizes = operand_sizes(shards, operands, self.dtype, len(self._bits))
        segments, runs = segments_of(sizes), runs_of(sizes)
        group = _Group(data, starts.tolist(), check)
        for row, count, pieces in zip(
            *(shards[name].tolist() for name in ("row", "planes", "pieces")), strict=True
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
            places = [room.of(row) for room in operands]
            # What does not lie together is decoded elsewhere first.
            rows = [
                place.reshape(-1).view(np.uint8)
                if place.flags.c_contiguous
                else np.empty(place.size, np.uint8)
                for place in places
            ]
            look_up(recipe, planes, runs, rows)
            for out, (listed_at, values) in zip(rows, outliers.by_operand(), strict=True):
                out[listed_at] = self._written[values]
            for place, out in zip(places, rows, strict=True):
                if not place.flags.c_contiguous:
                    np.copyto(place, out.view(self.dtype).reshape(place.shape))
        return None
