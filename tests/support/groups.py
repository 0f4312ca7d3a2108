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
from sti.codec.pieces import SHARD


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
"""What lies there, and in the rows before anything is decoded."""


def guarded(
    sizes: Sequence[int], rows: int, dtype: DTypeLike, *, shift: int = 0
) -> tuple[list[ByteArray], list[NDArray[Any]]]:
    """For each operand, memory with guards on both sides; and the rows inside of it.

    Args:
        shift: more bytes before the rows, so that they begin at another address.
    """
    memory = [np.full(shift + rows * size + 2 * AROUND, GUARD, dtype=np.uint8) for size in sizes]
    operands = [
        part[AROUND + shift : -AROUND].view(dtype).reshape(rows, size)
        for part, size in zip(memory, sizes, strict=True)
    ]
    return memory, operands


def untouched(memory: Sequence[ByteArray]) -> bool:
    """Whether all of it, guards and rows, is as it was before anything was decoded."""
    return all(bool((part == GUARD).all()) for part in memory)
