"""The header of a pack: its checksum, tensor table and manifest, checked against one another.

In: an open file. Out: manifest and tensor table. The slice groups come from the index, which is
read with the resident region (``sti.pack.index``); whether the blocks fit them is checked then.
Knows nothing of what tensors mean. ``FORMAT.md`` specifies every byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sti.errors import PackCorruptError, PackFormatError
from sti.model.manifest import ALIGNMENT, Manifest
from sti.pack.manifest_reader import HEADER_LIMITS, read_manifest
from sti.pack.pack_file import PackFile
from sti.pack.safetensors_table import (
    ITEM_BYTES,
    LENGTH_BYTES,
    TensorInfo,
    TensorTable,
    header_bytes,
    parse_table,
)
from sti.storage.digest import sha256
from sti.storage.json_input import JsonLimits

WORDS = "words"
VOCABULARY = "tokenizer.vocab"
PAD = "resident.pad"
"""Fills the resident region up to the alignment."""

STAIRCASES = "staircases"
"""Optional: fidelities worth running (``sti.planning.staircases``). They follow from a ranking, and
are no part of the content."""

HEADER_START = b'{"__metadata__":{"format":"sti","crc32":"'
"""How the header of every pack starts; eight hexadecimal digits follow."""

CHECKSUM_DIGITS = 8

MOST_RESIDENT_BYTES = 1 << 26
"""Of the resident region, which opening reads as a whole."""

_FIRST_READ = 131072
DTYPES: Mapping[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
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

    The manifest holds hashes of the content and of the index, and the checksum of the residents. So
    the identity names the pack, its ranking included.
    """
    return sha256(manifest_text.encode("utf-8")).hexdigest()[:16]


def read_header(file: PackFile) -> tuple[str, TensorTable, Manifest]:
    """Manifest text, tensor table and manifest of an open pack, checked against one another.

    The manifest has no groups yet, and no block's length is checked.

    Raises:
        PackFormatError, PackCorruptError, StorageError: as ``PackReader.open``.
    """
    text, table, start = read_frame(file)
    words = table.tensors.get(WORDS)
    if words is not None and words.offset > start:  # the residents lie between
        file.expect(start, words.offset - start)
    return text, table, fitting_manifest(text, table, start, where=str(file.path))


def fitting_manifest(text: str, table: TensorTable, start: int, *, where: str) -> Manifest:
    """The manifest of a text, checked against a tensor table whose data begins at ``start``.

    Raises:
        PackFormatError: malformed, or they contradict one another.
    """
    manifest = read_manifest(text, where=where)
    _require(table.in_order, where, "tensors are not listed in the order in which they are stored")
    _check_layout(table, manifest, start, where)
    return manifest


def read_frame(file: PackFile, limits: JsonLimits = HEADER_LIMITS) -> tuple[str, TensorTable, int]:
    """What packs of all formats have: manifest text, tensor table, and where the data starts.

    Raises:
        PackFormatError, PackCorruptError, StorageError: as ``PackReader.open``.
    """
    where, file_bytes = str(file.path), file.opened.size
    first = file.read(0, min(_FIRST_READ, file_bytes))
    length = header_bytes(first, file_bytes, where=where, error=PackFormatError)
    if length > limits.most_bytes:  # before anything of it is read
        raise PackFormatError(
            f"{where}: a header of {length} bytes is longer than that of any pack, "
            f"{limits.most_bytes} bytes; rebuild or fetch the pack again"
        )
    end = LENGTH_BYTES + length
    header = first[LENGTH_BYTES:end]
    if end > len(first):
        header += file.read(len(first), end - len(first))
    _check_frame(header, where)
    table = parse_table(header, limits, where=where, error=PackFormatError)
    text = table.metadata.get("sti")
    if text is None:
        raise PackFormatError(f"{where}: the header contains no manifest; rebuild the pack")
    if table.end != file_bytes:
        raise PackCorruptError(
            f"{where}: the file has {file_bytes} bytes, its tensors end at byte {table.end}; "
            "it is truncated or has been appended to, fetch it again"
        )
    return text, table, end


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


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise PackFormatError(f"{where}: {message}; rebuild or fetch the pack again")


def _stored(table: TensorTable, name: str, length: int, where: str) -> TensorInfo:
    """A tensor of bytes that is as long as ``length`` padded to the alignment."""
    place = table.tensors.get(name)
    if place is None:
        raise PackFormatError(f"{where}: tensor {name!r} is missing; rebuild the pack")
    _require(place.dtype == "U8", where, f"tensor {name!r} must be of type U8, is {place.dtype}")
    _require(place.length == padded(length), where, f"tensor {name!r} has the wrong length")
    return place


def _check_layout(table: TensorTable, manifest: Manifest, start: int, where: str) -> None:
    """Refuse a table whose order, types or sizes differ from what the manifest says."""

    def require(condition: bool, message: str) -> None:
        _require(condition, where, message)

    words = manifest.embeddings
    rows = words.rows if manifest.holds_words else 0
    place = _stored(table, WORDS, rows * words.row_bytes, where)
    require(start % ALIGNMENT == 0, f"the data starts at {start}, not a multiple of {ALIGNMENT}")
    require(start + manifest.resident.length == place.offset, "the resident region does not fit")
    require(place.offset % ALIGNMENT == 0, "the embedding table is not aligned")
    names = list(table.tensors)
    at = names.index(WORDS)
    first = bool(at) and manifest.resident.first == names[0]
    require(first, "the resident region does not begin with the first tensor")
    for name in names[:at]:
        item = table.tensors[name]
        if item.dtype not in DTYPES:
            require(False, f"tensor {name!r} is of unknown type {item.dtype}")
        if item.offset % ITEM_BYTES[item.dtype]:
            require(False, f"tensor {name!r} is not aligned to its type")
    vocabulary = (VOCABULARY,) if manifest.part is None else ()
    for name in (*manifest.graphs.values(), *vocabulary):
        require(name in names[:at], f"resident tensor {name!r:.80} is missing")
        require(table.tensors[name].dtype == "U8", f"resident tensor {name!r} must be bytes")
    require(
        manifest.resident.length <= MOST_RESIDENT_BYTES,
        f"a resident region of {manifest.resident.length} bytes is longer than that of any pack, "
        f"{MOST_RESIDENT_BYTES} bytes",
    )
    # What the index describes must be there before anything is made of the index.
    kinds, blocks = manifest.kinds, names[at + 1 :]
    layers = len(manifest.held_layers)
    wanted = layers * len(kinds)
    require(len(blocks) == wanted, f"{len(blocks)} tensors follow the words, not {wanted} blocks")
    shards = manifest.dimensions.slices * manifest.ladder[-1]
    least = [kind.shard_weights * shards // 8 for kind in kinds] * layers
    for name, length in zip(blocks, least, strict=True):
        if table.tensors[name].length < length:
            require(False, f"tensor {name!r} has the wrong length")


def check_blocks(table: TensorTable, manifest: Manifest, where: str) -> None:
    """Refuse blocks that are not in the order of execution, or not as long as their groups say.

    Those of a part are the blocks of its layers.

    Raises:
        PackFormatError: names the block.
    """
    names = list(table.tensors)
    lengths: dict[str, int] = {}
    for group in manifest.held_groups:
        lengths[group.tensor] = group.start + group.length
    for name, length in lengths.items():
        _stored(table, name, length, where)
    _require(list(lengths) == names[names.index(WORDS) + 1 :], where, "blocks out of order")
