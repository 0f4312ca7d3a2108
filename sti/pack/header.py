"""The header of a pack: its checksum, tensor table and manifest, checked against one another.

In: an open file. Out: manifest and tensor table. Knows nothing of what tensors mean.
``FORMAT.md`` specifies every byte.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sti.errors import PackCorruptError, PackError, PackFormatError, StorageError
from sti.model.manifest import ALIGNMENT, Manifest
from sti.pack.manifest_reader import read_manifest
from sti.pack.safetensors_table import (
    LENGTH_BYTES,
    TensorInfo,
    TensorTable,
    header_bytes,
    parse_table,
)

WORDS = "words"
VOCABULARY = "tokenizer.vocab"

HEADER_START = b'{"__metadata__":{"format":"sti","crc32":"'
"""How the header of every pack starts; eight hexadecimal digits follow."""

CHECKSUM_DIGITS = 8

_FIRST_READ = 131072
DTYPES: Mapping[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}


def padded(length: int) -> int:
    """``length`` rounded up to the alignment of the embedding table and of blocks."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def header_checksum(header: bytes) -> int:
    """CRC-32 of a header, with the eight digits of its own checksum taken as zeros."""
    start = len(HEADER_START)
    crc = zlib.crc32(header[:start])
    crc = zlib.crc32(b"0" * CHECKSUM_DIGITS, crc)
    return zlib.crc32(header[start + CHECKSUM_DIGITS :], crc)


def pack_id_of(manifest_text: str) -> str:
    """The identity of a pack: sixteen hexadecimal digits of the hash of its manifest.

    The manifest holds the checksums of everything else, so the identity names the content.
    """
    return hashlib.sha256(manifest_text.encode("utf-8")).hexdigest()[:16]


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
    """Read ``length`` bytes at ``offset`` of a file whose size was checked before.

    Raises:
        PackCorruptError: the file ends before that.
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

    Args:
        stream: the open pack; its position changes.
        path: the file's name, for messages.

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
        raise PackFormatError(f"{where}: the header contains no manifest; rebuild the pack")
    if table.end != file_bytes:
        raise PackCorruptError(
            f"{where}: the file has {file_bytes} bytes, its tensors end at byte {table.end}; "
            "it is truncated or has been appended to, fetch it again"
        )
    manifest = read_manifest(text, where=where)
    _check_layout(table, manifest, end, where)
    return text, table, manifest


def resident_place(table: TensorTable, manifest: Manifest) -> TensorInfo:
    """The resident region: from the start of the data to the embedding table."""
    length = manifest.resident.length
    return TensorInfo("U8", (length,), table.tensors[WORDS].offset - length, length)


def _check_frame(header: bytes, where: str) -> None:
    """Refuse files that are not packs, and headers that do not match their checksum."""
    if not header.startswith(HEADER_START):
        if header[:1] == b"{":
            raise PackFormatError(
                f"{where}: a safetensors file, but not a pack (it has no STI manifest); "
                "make a pack from a checkpoint with `sti-shard build`"
            )
        raise PackFormatError(f"{where}: not a pack; make one with `sti-shard build`")
    start = len(HEADER_START)
    digits = header[start : start + CHECKSUM_DIGITS]
    if digits != b"%08x" % header_checksum(header):
        raise PackCorruptError(
            f"{where}: the header does not match its checksum; fetch the pack again"
        )


def _check_layout(table: TensorTable, manifest: Manifest, start: int, where: str) -> None:
    """Refuse a table whose order, types or sizes differ from what the manifest says."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise PackFormatError(f"{where}: {message}; rebuild or fetch the pack again")

    def stored(name: str, length: int) -> TensorInfo:
        place = table.tensors.get(name)
        if place is None:
            raise PackFormatError(f"{where}: tensor {name!r} is missing; rebuild the pack")
        require(place.dtype == "U8", f"tensor {name!r} must be of type U8, is {place.dtype}")
        require(place.length == padded(length), f"tensor {name!r} has the wrong length")
        return place

    words = manifest.embeddings
    place = stored(WORDS, words.rows * words.row_bytes)
    require(start % ALIGNMENT == 0, f"the data starts at {start}, not a multiple of {ALIGNMENT}")
    require(start + manifest.resident.length == place.offset, "the resident region does not fit")
    require(place.offset % ALIGNMENT == 0, "the embedding table is not aligned")
    names = list(table.tensors)
    at = names.index(WORDS)
    first = bool(at) and manifest.resident.first == names[0]
    require(first, "the resident region does not begin with the first tensor")
    for name in names[:at]:
        item = table.tensors[name]
        require(item.dtype in DTYPES, f"tensor {name!r} is of unknown type {item.dtype}")
        aligned = item.offset % DTYPES[item.dtype].itemsize == 0
        require(aligned, f"tensor {name!r} is not aligned to its type")
    for block in manifest.blocks:
        stored(block.tensor, block.length)
    require([block.tensor for block in manifest.blocks] == names[at + 1 :], "blocks out of order")
    for name in (*manifest.graphs.values(), VOCABULARY):
        require(name in names[:at], f"resident tensor {name!r} is missing")
        require(table.tensors[name].dtype == "U8", f"resident tensor {name!r} must be bytes")
