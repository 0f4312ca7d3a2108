"""A working buffer: where one block's decoded weights lie, and where its outliers go.

In: a block kind's operands. Out: one array per operand, as graphs take them, all cut from one flat
array, so that the outliers of many shards are written in one go. Knows nothing of planes, files or
of what computes with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sti.arrays import ByteArray
from sti.codec.lookup import COUNT, POSITION, SEGMENT_WEIGHTS, beyond, too_short, unordered
from sti.model.fidelity import working_buffers
from sti.model.manifest import Manifest

_MOST_OUTLIERS = 16_384
"""Outliers that are placed in one go."""

_UNSIGNED_ZERO = 128
"""The weight 0 where weights are uint8."""


class OutlierRoom:
    """What placing outliers works in, 176 KB; of one thread."""

    __slots__ = ("exact", "index", "positions")

    def __init__(self, most: int = _MOST_OUTLIERS) -> None:
        self.positions = np.empty(most, dtype=POSITION)
        self.exact = np.empty(most, dtype=np.uint8)
        self.index = np.empty(most, dtype=np.intp)


class WorkingBuffer:
    """Room for the decoded weights of one block. Threads may write different slices.

    Args:
        shapes: of each operand's part of one slice; a slice's weights fill them in this order.
        slices: of a block.
        dtype: of the weights, int8 or uint8.

    Attributes:
        operands: one ``[slices, *shape]`` array per operand; views of ``flat``.
        sizes: weights of each operand in one slice.
        flat: all weights, uint8 ``[slices * shard_weights]``: operand after operand.
        shard_weights: weights of one slice.
    """

    __slots__ = (
        "__weakref__",
        "_bounds",
        "_moved",
        "_places",
        "flat",
        "operands",
        "shard_weights",
        "sizes",
    )

    def __init__(self, shapes: Sequence[tuple[int, ...]], slices: int, dtype: DTypeLike) -> None:
        self.sizes = tuple(prod(shape) for shape in shapes)
        self.shard_weights = weights = sum(self.sizes)
        self.flat: ByteArray = np.zeros(slices * weights, dtype=np.uint8)
        self._moved: dict[tuple[int, ...], list[int]] = {}
        starts = np.cumsum((0, *self.sizes[:-1]))
        cuts = slices * starts
        self.operands: tuple[NDArray[Any], ...] = tuple(
            self.flat[cut : cut + slices * size].view(dtype).reshape(slices, *shape)
            for cut, size, shape in zip(cuts.tolist(), self.sizes, shapes, strict=True)
        )
        ranks = np.arange(slices)[:, None]
        # Of the k-th shard of several, end to end: where its parts begin, and the last one ends.
        self._bounds = np.append(ranks * weights + starts, slices * weights)
        # Of a slice: where the parts begin in the flat array, less where they begin in the shard.
        self._places = cuts - starts + ranks * self.sizes

    def another(self) -> WorkingBuffer:
        """A new buffer for the same operands, slices and type of weights."""
        shapes = [operand.shape[1:] for operand in self.operands]
        return WorkingBuffer(shapes, len(self.operands[0]), self.operands[0].dtype)

    def copy_slice(self, number: int, other: WorkingBuffer) -> None:
        """Copy the weights of one slice from a buffer for the same operands."""
        for mine, theirs in zip(self.operands, other.operands, strict=True):
            np.copyto(mine[number], theirs[number])

    def clear_slice(self, number: int) -> None:
        """Make all weights of one slice zero, as the type of weights writes it."""
        for operand in self.operands:
            operand[number] = _UNSIGNED_ZERO if operand.dtype == np.uint8 else 0

    def fill(self, number: int, weights: NDArray[Any]) -> None:
        """Copy the weights of one slice, ``[shard_weights]`` of the operands' dtype, into it."""
        start = 0
        for operand, size in zip(self.operands, self.sizes, strict=True):
            operand[number].reshape(-1)[:] = weights[start : start + size]
            start += size

    def put_outliers(
        self,
        slices: Sequence[int],
        records: Sequence[ByteArray],
        flip: ByteArray | None,
        room: OutlierRoom,
    ) -> None:
        """Overwrite the outliers of several slices with their exact values.

        Args:
            slices: different ones, at least one.
            records: the outliers of each, as stored.
            flip: what the values are xored with, if anything.
            room: of the calling thread.

        Raises:
            PackCorruptError: a record does not fit a shard of as many weights, or its positions do
                not ascend. Records before it may have been written.
        """
        counts = self._counts(records)
        first = together = 0
        for place, number in enumerate(map(sum, counts)):
            if together + number > _MOST_OUTLIERS and place > first:
                span = slice(first, place)
                self._put(slices[span], records[span], counts[span], flip, room)
                first, together = place, 0
            together += number
        self._put(slices[first:], records[first:], counts[first:], flip, room)

    def _counts(self, records: Sequence[ByteArray]) -> list[list[int]]:
        """Outliers of each segment of each record, which is long enough for them."""
        segments = -(-self.shard_weights // SEGMENT_WEIGHTS)
        head = COUNT.itemsize * segments
        if any(record.size < head for record in records):
            raise too_short(min(record.size for record in records))
        heads = np.concatenate([record[:head] for record in records])
        counts: list[list[int]] = heads.view(COUNT).reshape(-1, segments).tolist()
        for record, found in zip(records, counts, strict=True):
            if record.size < head + 3 * sum(found):
                raise too_short(record.size)
        return counts

    def _put(
        self,
        slices: Sequence[int],
        records: Sequence[ByteArray],
        counts: Sequence[Sequence[int]],
        flip: ByteArray | None,
        room: OutlierRoom,
    ) -> None:
        totals = [sum(found) for found in counts]
        total, head = sum(totals), COUNT.itemsize * len(counts[0])
        if total > room.index.size:  # a shard with so many: no matter for speed
            room = OutlierRoom(total)
        both = list(zip(records, totals, strict=True))
        positions, exact, index = (
            array[:total] for array in (room.positions, room.exact, room.index)
        )
        np.concatenate([r[head : head + 2 * n] for r, n in both], out=positions.view(np.uint8))
        np.concatenate([r[head + 2 * n : head + 3 * n] for r, n in both], out=exact)
        if flip is not None:
            np.bitwise_xor(exact, flip, exact)
        np.copyto(index, positions)
        # To where the weights would be if the shards lay end to end.
        begin = 0
        for rank, found in enumerate(counts):
            for segment, count in enumerate(found):
                start = rank * self.shard_weights + segment * SEGMENT_WEIGHTS
                if count and start:
                    index[begin : begin + count] += start
                begin += count
            if found[-1] and index[begin - 1] >= (rank + 1) * self.shard_weights:
                raise beyond(self.shard_weights)
        if (index[1:] <= index[:-1]).any():
            raise unordered()
        # And from there to the parts of the operands.
        cuts = index.searchsorted(self._bounds[: len(slices) * len(self.sizes) + 1]).tolist()
        for move, (begin, end) in zip(self._moves(tuple(slices)), pairwise(cuts), strict=True):
            if move and begin < end:
                index[begin:end] += move
        self.flat[index] = exact

    def _moves(self, slices: tuple[int, ...]) -> list[int]:
        """How far the parts of the k-th shard, all end to end, are from those of ``slices[k]``."""
        found = self._moved.get(slices)
        if found is None:
            ranks = np.arange(len(slices))[:, None] * self.shard_weights
            moves: list[int] = (self._places[list(slices)] - ranks).reshape(-1).tolist()
            found = self._moved[slices] = moves
        return found


def make_buffers(manifest: Manifest, dtype: DTypeLike) -> dict[str, tuple[WorkingBuffer, ...]]:
    """The working buffers that running a pack takes, by block kind.

    Args:
        dtype: of the weights, int8 or uint8.
    """
    slices, counts = manifest.dimensions.slices, working_buffers(manifest)
    return {
        kind.name: tuple(
            WorkingBuffer([operand.shape for operand in kind.operands], slices, dtype)
            for _ in range(counts[kind.name])
        )
        for kind in manifest.kinds
    }
