"""The parts of a pack that have checksums, and the hash of all of its content.

In: an open pack and its bytes. Out: places and checksums of the parts of a slice group, rows of the
embedding table that do not match theirs, and the SHA-256 that the manifest states, whose order does
not depend on a ranking. Knows nothing of what is done about damage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sti.codec.word_rows import CHECKSUM, row_checksum
from sti.model.manifest import EmbeddingTable, SliceGroup
from sti.pack.header import PAD, STAIRCASES
from sti.pack.index import INDEX
from sti.pack.pack_reader import PackReader

_CHUNK = 1 << 22


def word_chunks(
    read: Callable[[int, int], bytes], table: EmbeddingTable, offset: int
) -> Iterator[tuple[int, bytes]]:
    """The rows of the embedding table in chunks, each with the number of its first row.

    Args:
        read: gives the bytes of the file at an offset, in this number.
        table: the embedding table.
        offset: where it starts in the file.
    """
    each = max(1, _CHUNK // table.row_bytes)
    for row in range(0, table.rows, each):
        size = min(each, table.rows - row) * table.row_bytes
        yield row, read(offset + row * table.row_bytes, size)


def bad_rows(rows: bytes, row_bytes: int, *, first: int) -> list[int]:
    """Rows of the embedding table that do not match their checksum.

    Args:
        rows: whole rows as they are stored.
        first: the number of the first of them.
    """
    data = np.frombuffer(rows, np.uint8).reshape(-1, row_bytes)
    stored = np.ascontiguousarray(data[:, -CHECKSUM.itemsize :]).view(CHECKSUM)[:, 0].tolist()
    return [
        number
        for number, (row, checksum) in enumerate(
            zip(data[:, : -CHECKSUM.itemsize], stored, strict=True), first
        )
        if row_checksum(number, row) != checksum
    ]


class Piece(NamedTuple):
    """A part of a group that has a checksum."""

    slice: int
    """Inside the group."""
    plane: int
    """0 for the outlier list, else one more than the plane's number."""
    start: int
    length: int
    checksum: int


def pieces_of(group: SliceGroup) -> Iterator[Piece]:
    """The parts of a group in the order in which it stores them."""
    at = 0
    for number, length in enumerate(group.outlier_bytes):
        yield Piece(number, 0, at, length, group.outlier_checksums[number])
        at += length
    for place, plane in enumerate(group.planes, 1):
        for number in plane.order:
            yield Piece(number, place, at, plane.shard_bytes, plane.checksums[number])
            at += plane.shard_bytes


class ContentHash:
    """The hash of a pack's content, part after part. Starts with the residents."""

    def __init__(self, reader: PackReader) -> None:
        self._found = hashlib.sha256()
        for name in reader.tensors():
            if reader.has_resident(name) and name not in (*INDEX, STAIRCASES, PAD):
                self._found.update(name.encode("utf-8") + b"\0")
                self._found.update(reader.resident(name).tobytes())

    def words(self, rows: bytes) -> None:
        """The next rows of the embedding table."""
        self._found.update(rows)

    def group(self, data: memoryview, pieces: Iterable[Piece]) -> None:
        """The next group, given with its pieces."""
        for piece in sorted(pieces):
            self._found.update(data[piece.start : piece.start + piece.length])

    def digest(self) -> str:
        """The hash as the manifest states it."""
        return self._found.hexdigest()
