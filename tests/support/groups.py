"""Slice groups in one buffer, for tests of decoders, and guarded memory to decode them into.

In: encoded shards, or none: then shards are made of random bytes, which any plane may have. Out:
what ``GroupDecoder.decode`` takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shard_tools.quantization.encode import EncodedShard
from sti.arrays import ByteArray
from sti.codec.outliers import SEGMENT_WEIGHTS
from sti.codec.pieces import SHARD, OperandRoom


class StoredGroup(NamedTuple):
    """Bytes of a group, where its parts begin in them, and its shards."""

    data: ByteArray
    starts: NDArray[np.uint64]
    shards: NDArray[Any]


def stored_group(
    encoded: Sequence[EncodedShard], planes: Sequence[int], *, lead: int = 0
) -> StoredGroup:
    """The group in the order of the file: lists, then plane after plane.

    Args:
        planes: how many each shard is to be decoded with; all of them are stored.
        lead: bytes before the first part.
    """
    lists = [shard.outliers for shard in encoded]
    planes_of = zip(*(shard.planes.values() for shard in encoded), strict=True)
    parts = [
        [(place, number, piece) for place, piece in enumerate(pieces)]
        for number, pieces in enumerate((lists, *planes_of))
    ]
    group = _laid_out(parts, len(encoded), lead)
    group.shards["row"], group.shards["planes"] = np.arange(len(encoded)), planes
    return group


@dataclass(frozen=True)
class RandomGroup:
    """The pieces of each shard: its list of outliers, then its planes."""

    sizes: tuple[int, ...]
    pieces: tuple[tuple[ByteArray, ...], ...]
    lead: int

    def stored(self) -> StoredGroup:
        """One part for each shard, of the last row first so that rows are not in order."""
        parts = [
            [(place, number, piece) for number, piece in enumerate(pieces)]
            for place, pieces in enumerate(self.pieces)
        ]
        group = _laid_out(parts, len(self.pieces), self.lead)
        group.shards["row"] = np.arange(len(self.pieces))[::-1]
        group.shards["planes"] = [len(pieces) - 1 for pieces in self.pieces]
        return group


def _laid_out(
    parts: Sequence[Sequence[tuple[int, int, ByteArray]]], count: int, lead: int
) -> StoredGroup:
    """Parts of a buffer, one after another.

    Args:
        parts: the pieces of each, with the place of their shard and their number in it.
        count: how many shards there are; their rows and planes are left to the caller.
        lead: bytes before the first part.
    """
    shards, starts, data = np.zeros(count, dtype=SHARD), [], bytearray(lead)
    for part, pieces in enumerate(parts):
        starts.append(len(data))
        for place, number, piece in pieces:
            start = len(data) - starts[-1]
            shards["pieces"][place, number] = (part, piece.nbytes, start, crc32(piece), 0)
            data += piece.tobytes()
    return StoredGroup(np.frombuffer(bytes(data), np.uint8), np.array(starts, np.uint64), shards)


def random_list(rng: np.random.Generator, sizes: Sequence[int], share: float) -> ByteArray:
    """An outlier list of about this share of a shard's weights."""
    counts, positions = [], []
    for size in sizes:
        for start in range(0, size, SEGMENT_WEIGHTS):
            inside = min(SEGMENT_WEIGHTS, size - start)
            positions.append(np.flatnonzero(rng.random(inside) < share).astype("<u2"))
            counts.append(positions[-1].size)
    values = rng.integers(0, 256, sum(counts)).astype(np.uint8).tobytes()
    found = np.array(counts, "<u4").tobytes() + np.concatenate(positions).tobytes() + values
    return np.frombuffer(found + bytes(-len(found) % 4), np.uint8)


def random_group(
    ladder: Sequence[int], sizes: Sequence[int], planes: Sequence[int], *, seed: int, lead: int = 0
) -> RandomGroup:
    """Shards of ``sizes`` weights with so many planes each."""
    rng = np.random.default_rng(seed)
    pieces = []
    for count in planes:
        found = [random_list(rng, sizes, rng.choice((0.0, 0.01, 0.1)))]
        for lower, bits in list(zip((0, *ladder), ladder, strict=False))[:count]:
            length = sum(sizes) * (bits - lower) // 8
            found.append(rng.integers(0, 256, length).astype(np.uint8))
        pieces.append(tuple(found))
    return RandomGroup(tuple(sizes), tuple(pieces), lead)


AROUND = 64
"""Bytes before and after each operand, to see that none is written."""
GUARD = 0xA5
"""What lies there, and in the matrices before anything is decoded."""


class Layout(NamedTuple):
    """How an operand is cut: parts of a slice, columns of a part, and where slices lie."""

    parts: int
    width: int
    columns: bool = False
    """Whether slices lie side by side."""


def random_layouts(sizes: Sequence[int], *, seed: int) -> list[Layout]:
    """A layout for each operand of so many weights."""
    rng = np.random.default_rng(seed)

    def divisor(size: int) -> int:
        return int(rng.choice([n for n in range(1, min(size, 300) + 1) if size % n == 0]))

    found = []
    for size in sizes:
        parts = divisor(size) if rng.random() < 0.5 else 1
        found.append(Layout(parts, divisor(size // parts), bool(rng.random() < 0.7)))
    return found


def room_in(memory: NDArray[Any], slices: int, layout: Layout | None = None) -> OperandRoom:
    """An operand's matrix in 1-D memory of its size; without a layout a row for each slice."""
    size = memory.size // slices
    parts, width, columns = layout or Layout(1, size)
    height = size // (parts * width)
    shape = (height, slices * parts * width) if columns else (slices * parts * height, width)
    return OperandRoom(memory.reshape(shape), slices, parts, columns)


def rooms_for(sizes: Sequence[int], slices: int, dtype: DTypeLike) -> list[OperandRoom]:
    """Matrices of zeros for operands of so many weights in a slice, a row for each slice."""
    return [room_in(np.zeros(slices * size, dtype), slices) for size in sizes]


def guarded(
    sizes: Sequence[int],
    slices: int,
    dtype: DTypeLike,
    *,
    shift: int = 0,
    layouts: Sequence[Layout | None] | None = None,
) -> tuple[list[ByteArray], list[OperandRoom]]:
    """For each operand, memory with guards on both sides; and the matrix inside of it.

    Args:
        shift: more bytes before the matrix, so that it begins at another address.
        layouts: of each operand.
    """
    memory = [np.full(shift + slices * size + 2 * AROUND, GUARD, dtype=np.uint8) for size in sizes]
    operands = [
        room_in(part[AROUND + shift : -AROUND].view(dtype), slices, layout)
        for part, layout in zip(memory, layouts or [None] * len(sizes), strict=True)
    ]
    return memory, operands


def untouched(memory: Sequence[ByteArray]) -> bool:
    """Whether all of it, guards and matrices, is as it was before anything was decoded."""
    return all(bool((part == GUARD).all()) for part in memory)
