"""Opening packs: what a run needs of the file before the first block is streamed.

In: the path of a pack. Out: its manifest, its resident tensors, and where words and blocks lie.
Opening takes two or three reads: the header, then the resident region as one span with one
checksum. Blocks and word rows are streamed by others; ``sti.verify`` checks all of them. Knows
nothing of graphs, plans or of what tensors mean. ``FORMAT.md`` specifies every byte.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackCorruptError, PackError, PackFormatError, StorageError
from sti.manifest import ALIGNMENT, Manifest, WordTable
from sti.manifest_reader import read_manifest
from sti.storage import no_read_ahead
from sti.tensorfile import LENGTH_BYTES, TensorPlace, TensorTable, header_bytes, parse_table

WORDS = "words"
VOCABULARY = "tokenizer.vocab"

HEADER_START = b'{"__metadata__":{"format":"sti","crc32":"'
"""How the header of every pack starts; eight hexadecimal digits follow."""

CHECKSUM_DIGITS = 8

_FIRST_READ = 131072
_ROWS_AT_ONCE = 32
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}


def padded(length: int) -> int:
    """``length`` rounded up to the alignment of words and blocks."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def header_checksum(header: bytes) -> int:
    """CRC-32 of a header whose own eight digits count as zeros."""
    start = len(HEADER_START)
    crc = zlib.crc32(header[:start])
    crc = zlib.crc32(b"0" * CHECKSUM_DIGITS, crc)
    return zlib.crc32(header[start + CHECKSUM_DIGITS :], crc)


def pack_id_of(manifest_text: str) -> str:
    """Sixteen hexadecimal digits that name a pack by its manifest, checksums included."""
    return hashlib.sha256(manifest_text.encode("utf-8")).hexdigest()[:16]


def decode_rows(raw: NDArray[np.uint8], table: WordTable, out: NDArray[np.float32]) -> None:
    """Decode word rows.

    Args:
        raw: uint8 ``[n, row_bytes]``, rows as they are stored.
        table: their layout.
        out: float32 ``[n, hidden]``, C-contiguous, overwritten; owned by the caller.
    """
    half = table.hidden // 2
    for start in range(0, len(raw), _ROWS_AT_ONCE):  # so that what is in between stays small
        some, target = raw[start : start + _ROWS_AT_ONCE], out[start : start + _ROWS_AT_ONCE]
        codes = some[:, :half]
        scales = np.ascontiguousarray(some[:, half:]).view("<f2")
        np.copyto(target[:, :half], codes & 15)
        np.copyto(target[:, half:], codes >> 4)
        groups = target.reshape(len(some), -1, table.group)
        groups -= 8.0
        groups *= scales[:, :, None]


class PackReader:
    """An open pack. Immutable but for ``close``; safe to share between threads.

    Attributes:
        path: the file.
        file_bytes: its size.
        manifest: what the pack says about itself.
        pack_id: names the pack by its content; plans and profiles refer to it.
        words_offset: where the first word row starts in the file.
    """

    def __init__(
        self, path: Path, text: str, table: TensorTable, manifest: Manifest, region: bytes
    ) -> None:
        """For ``open`` alone: all parts are checked and belong together."""
        self.path = path
        self.file_bytes = table.end
        self.manifest = manifest
        self.pack_id = pack_id_of(text)
        self.words_offset = table.tensors[WORDS].offset
        self._table = table._replace(metadata={})  # the manifest's text is through with
        self._region: bytes | None = region
        self._start = self.words_offset - manifest.resident.length

    @classmethod
    def open(cls, path: Path | str) -> PackReader:
        """Read and check header and resident region; the file is closed again.

        Raises:
            PackFormatError: not a pack, an unknown format version, or a malformed manifest.
            PackCorruptError: truncated, or a checksum that does not match.
            PackError: there is no such file, or it may not be read.
            StorageError: reading failed.
        """
        path = Path(path)
        with open_file(path) as stream:
            no_read_ahead(stream.fileno())
            text, table, manifest = read_header(stream, path)
            place = resident_place(table, manifest)
            region = read_exactly(stream, path, place.offset, place.length)
        if zlib.crc32(region) != manifest.resident.checksum:
            raise PackCorruptError(
                f"{path}: the resident tensors (bytes {place.offset} to "
                f"{place.offset + place.length}) do not match their checksum; fetch the pack again"
            )
        return cls(path, text, table, manifest, region)

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor as a read-only view (int64, float32 or uint8).

        Raises:
            PackFormatError: there is none of this name, or the pack was closed.
        """
        if not self.has_resident(name):
            raise PackFormatError(
                f"{self.path}: resident tensor {name!r} is missing; rebuild the pack"
            )
        place = self._table.tensors[name]
        if self._region is None:
            raise PackFormatError(f"{self.path}: closed; open the pack again")
        start = place.offset - self._start
        return np.ndarray(place.shape, _DTYPES[place.dtype], self._region, start)

    def has_resident(self, name: str) -> bool:
        """Whether there is a resident tensor of this name."""
        place = self._table.tensors.get(name)
        return place is not None and place.offset + place.length <= self.words_offset

    def block_offset(self, block: str) -> int:
        """Where a block's tensor (``Block.tensor``) starts in the file.

        Raises:
            PackFormatError: there is no such block.
        """
        place = self._table.tensors.get(block)
        if place is None or place.offset <= self.words_offset:
            raise PackFormatError(f"{self.path}: block {block!r} is missing; rebuild the pack")
        return place.offset

    def tensors(self) -> Mapping[str, TensorPlace]:
        """Every tensor of the file, in the order in which they lie there."""
        return self._table.tensors

    def close(self) -> None:
        """Let go of the resident region; views already given out stay valid. Idempotent."""
        self._region = None

    def __enter__(self) -> PackReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_file(path: Path) -> BinaryIO:
    """Open a pack for reading.

    Raises:
        PackError: there is no such file, or it may not be read.
        StorageError: the system refuses for another reason.
    """
    try:
        return path.open("rb", buffering=0)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise PackError(f"{path}: cannot be opened: {error.strerror}") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened: {error.strerror}") from error


def read_exactly(stream: BinaryIO, path: Path, offset: int, length: int) -> bytes:
    """Bytes of a file whose size was checked before.

    Raises:
        PackCorruptError: the file ends before they do.
        StorageError: reading failed.
    """
    parts: list[bytes] = []
    try:
        stream.seek(offset)
        while length > 0:
            part = stream.read(length)
            if not part:
                raise PackCorruptError(f"{path}: ends unexpectedly; fetch the pack again")
            parts.append(part)
            length -= len(part)
    except OSError as error:
        raise StorageError(f"{path}: reading at {offset} failed: {error.strerror}") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_header(stream: BinaryIO, path: Path) -> tuple[str, TensorTable, Manifest]:
    """Manifest text, tensor table and manifest of an open pack, checked against one another.

    Raises:
        PackFormatError, PackCorruptError, StorageError: as ``PackReader.open``.
    """
    where = str(path)
    try:
        file_bytes = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise StorageError(f"{path}: cannot be examined: {error.strerror}") from error
    first = read_exactly(stream, path, 0, min(_FIRST_READ, file_bytes))
    length = header_bytes(first, file_bytes, where=where, error=PackFormatError)
    end = LENGTH_BYTES + length
    header = first[LENGTH_BYTES:end]
    if end > len(first):
        header += read_exactly(stream, path, len(first), end - len(first))
    _check_frame(header, where)
    table = parse_table(header, where=where, error=PackFormatError)
    text = table.metadata.get("sti")
    if text is None:
        raise PackFormatError(f"{where}: the header holds no manifest; rebuild the pack")
    if table.end != file_bytes:
        raise PackCorruptError(
            f"{where}: the file has {file_bytes} bytes, its tensors end at byte {table.end}; "
            "it is truncated or has been appended to, fetch it again"
        )
    manifest = read_manifest(text, where=where)
    _check_layout(table, manifest, end, where)
    return text, table, manifest


def resident_place(table: TensorTable, manifest: Manifest) -> TensorPlace:
    """The resident region: from the start of the data to the word table."""
    length = manifest.resident.length
    return TensorPlace("U8", (length,), table.tensors[WORDS].offset - length, length)


def _check_frame(header: bytes, where: str) -> None:
    """Refuse what is no pack, and headers that do not match their checksum."""
    if not header.startswith(HEADER_START):
        if header[:1] == b"{":
            raise PackFormatError(
                f"{where}: a safetensors file, but not a pack (it has no STI manifest); "
                "make a pack of a checkpoint with `sti-shard build`"
            )
        raise PackFormatError(f"{where}: not a pack; make one with `sti-shard build`")
    start = len(HEADER_START)
    digits = header[start : start + CHECKSUM_DIGITS]
    if digits != b"%08x" % header_checksum(header):
        raise PackCorruptError(
            f"{where}: the header does not match its checksum; fetch the pack again"
        )


def _check_layout(table: TensorTable, manifest: Manifest, start: int, where: str) -> None:
    """Refuse a table that does not have the order, types and sizes the manifest speaks of."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise PackFormatError(f"{where}: {message}; rebuild or fetch the pack again")

    def stored(name: str, length: int) -> TensorPlace:
        place = table.tensors.get(name)
        if place is None:
            raise PackFormatError(f"{where}: tensor {name!r} is missing; rebuild the pack")
        require(place.dtype == "U8", f"tensor {name!r} must be of type U8, is {place.dtype}")
        require(place.length == padded(length), f"tensor {name!r} has the wrong length")
        return place

    words = manifest.words
    place = stored(WORDS, words.rows * words.row_bytes)
    require(start % ALIGNMENT == 0, f"the data starts at {start}, no multiple of {ALIGNMENT}")
    require(start + manifest.resident.length == place.offset, "the resident region does not fit")
    require(place.offset % ALIGNMENT == 0, "the word table is not aligned")
    names = list(table.tensors)
    at = names.index(WORDS)
    require(bool(at) and manifest.resident.first == names[0], "the resident region is elsewhere")
    for name in names[:at]:
        item = table.tensors[name]
        require(item.dtype in _DTYPES, f"tensor {name!r} is of unknown type {item.dtype}")
        aligned = item.offset % _DTYPES[item.dtype].itemsize == 0
        require(aligned, f"tensor {name!r} is not aligned to its type")
    for block in manifest.blocks:
        stored(block.tensor, block.length)
    require([block.tensor for block in manifest.blocks] == names[at + 1 :], "blocks out of order")
    for name in (*manifest.graphs.values(), VOCABULARY):
        require(name in names[:at], f"resident tensor {name!r} is missing")
        require(table.tensors[name].dtype == "U8", f"resident tensor {name!r} must be bytes")
