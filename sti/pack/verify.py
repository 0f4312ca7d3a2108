"""Checks a whole pack: every checksum, and that padding is zero.

In: the path of a pack. Out: a report that names every part that does not match its checksum: the
layer, kind, slice and plane of a shard, or the region. Reads the file once, block by block. Knows
nothing of what tensors mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sti.errors import PackCorruptError
from sti.model.manifest import Block, EmbeddingTable
from sti.pack.header import WORDS, open_file, padded, read_exactly, read_header, resident_place

_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of a pack that does not match its checksum (or, for padding, is not zero)."""

    part: str
    """``resident``, ``words``, ``outliers``, ``plane`` or ``padding``."""
    offset: int
    length: int
    layer: int | None = None
    kind: str | None = None
    slice: int | None = None
    bits: int | None = None
    """The plane, by the fidelity it raises a shard to."""

    def __str__(self) -> str:
        place = f"bytes {self.offset} to {self.offset + self.length}"
        if self.layer is None:
            return f"{self.part} ({place})"
        inside = f"layer {self.layer} {self.kind}"
        if self.slice is not None:
            inside += f" slice {self.slice}"
        return f"{inside} {self.part}" + (f" {self.bits}" if self.bits else "") + f" ({place})"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of a whole pack found."""

    path: Path
    file_bytes: int
    checksums: int
    """How many checksums were compared."""
    faults: tuple[Fault, ...]
    """In the order of the file; empty for a sound pack."""

    @property
    def good(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


def verify(path: Path | str, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Read a pack once and compare every checksum.

    Args:
        path: the pack.
        progress: called with bytes done and total bytes, from the calling thread.

    Raises:
        PackFormatError, PackCorruptError: the header is unusable, so that nothing can be compared.
        PackError, StorageError: the file cannot be read.
    """
    path = Path(path)
    with open_file(path) as stream:
        _, table, manifest = read_header(stream, path)
        check = _Check(stream, path, table.end, progress)
        place = resident_place(table, manifest)
        check.span("resident", place.offset, place.length, manifest.resident.checksum)
        check.words(table.tensors[WORDS].offset, manifest.embeddings)
        for block in manifest.blocks:
            check.block(table.tensors[block.tensor].offset, block)
    return VerifyReport(path, table.end, check.compared, tuple(check.faults))


def verify_embeddings(path: Path, offset: int, table: EmbeddingTable) -> None:
    """Compare the embedding table with its checksum; single rows have none of their own.

    Args:
        path: the pack.
        offset: where the table starts in the file, in bytes.
        table: its layout and checksum.

    Raises:
        PackCorruptError: it does not match, or the file ends inside it.
        PackError, StorageError: the file cannot be read.
    """
    length = table.rows * table.row_bytes
    with open_file(path) as stream:
        check = _Check(stream, path, offset + length, None)
        check.span(WORDS, offset, length, table.checksum)
    if check.faults:
        raise PackCorruptError(
            f"{path}: embedding table: checksum does not match; the pack is damaged, fetch it again"
        )


class _Check:
    """One pass over an open pack."""

    def __init__(
        self,
        stream: BinaryIO,
        path: Path,
        total: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._stream, self._path, self._total, self._progress = stream, path, total, progress
        self.compared = 0
        self.faults: list[Fault] = []

    def span(self, part: str, offset: int, length: int, checksum: int) -> None:
        """Compare one span of any length."""
        crc = 0
        for data in self._chunks(offset, length):
            crc = zlib.crc32(data, crc)
        self.compared += 1
        if crc != checksum:
            self.faults.append(Fault(part, offset, length))

    def words(self, offset: int, table: EmbeddingTable) -> None:
        """Compare the embedding table; the padding after it must be zero."""
        length = table.rows * table.row_bytes
        self.span(WORDS, offset, length, table.checksum)
        rest = padded(length) - length
        if any(read_exactly(self._stream, self._path, offset + length, rest)):
            self.faults.append(Fault("padding", offset + length, rest))

    def block(self, offset: int, block: Block) -> None:
        """Compare every outlier list and shard of a block."""
        data = memoryview(read_exactly(self._stream, self._path, offset, padded(block.length)))
        for at, length, checksum, fault in _pieces(offset, block):
            self.compared += 1
            if zlib.crc32(data[at : at + length]) != checksum:
                self.faults.append(fault)
        if any(data[block.length :]):
            rest = len(data) - block.length
            place = offset + block.length
            self.faults.append(Fault("padding", place, rest, block.layer, block.kind))
        self._report(offset + len(data))

    def _chunks(self, offset: int, length: int) -> Iterator[bytes]:
        for start in range(offset, offset + length, _CHUNK):
            size = min(_CHUNK, offset + length - start)
            yield read_exactly(self._stream, self._path, start, size)
            self._report(start + size)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total)


def _pieces(offset: int, block: Block) -> Iterator[tuple[int, int, int, Fault]]:
    """Offset in the block, length, checksum, and the fault to report, for each part of a block."""
    at = 0
    layer, kind = block.layer, block.kind
    for index, (length, checksum) in enumerate(
        zip(block.outlier_bytes, block.outlier_checksums, strict=True)
    ):
        yield at, length, checksum, Fault("outliers", offset + at, length, layer, kind, index)
        at += length
    for plane in block.planes:
        length = plane.shard_bytes
        for index, checksum in zip(plane.order, plane.checksums, strict=True):
            fault = Fault("plane", offset + at, length, layer, kind, index, plane.bits)
            yield at, length, checksum, fault
            at += length
