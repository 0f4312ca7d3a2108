"""What an open pack stores, as ``PackWriter`` takes it: for packs that are made of other packs.

In: an open pack. Out: its residents, the rows of its embedding table, and its slice groups without
decoding them. Every byte of rows and groups is compared with its checksum. Knows nothing of what
they are for.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.pack_writer import EncodedGroup
from sti.errors import PackCorruptError
from sti.model.manifest import SliceGroup
from sti.pack.content_hash import bad_rows, pieces_of, word_chunks
from sti.pack.header import PAD, STAIRCASES, WORDS
from sti.pack.index import INDEX
from sti.pack.pack_reader import PackReader


def stored_residents(reader: PackReader) -> dict[str, NDArray[Any]]:
    """The resident tensors but the index, which the writer makes, and staircases, which may be of
    another ranking; read-only views.
    """
    names = [name for name in reader.tensors() if reader.has_resident(name)]
    left_out = (PAD, STAIRCASES, WORDS, *INDEX)
    return {name: reader.resident(name) for name in names if name not in left_out}


def stored_words(reader: PackReader) -> Iterator[NDArray[np.uint8]]:
    """The embedding table in chunks, every row compared with its checksum.

    Raises:
        PackCorruptError: a row is damaged; names it.
        StorageError: reading failed.
    """
    table = reader.manifest.embeddings
    for first, rows in word_chunks(reader.read, table, reader.embeddings_offset):
        bad = bad_rows(rows, table.row_bytes, first=first)
        if bad:
            raise damaged(reader, f"token embedding {bad[0]}")
        yield np.frombuffer(rows, dtype=np.uint8)


def stored_group(
    reader: PackReader, group: SliceGroup, orders: Sequence[Sequence[int]]
) -> EncodedGroup:
    """A group as it is stored, every part compared with its checksum.

    Args:
        orders: for each plane the order that it is to have.

    Raises:
        PackCorruptError: a part is damaged; names it.
        StorageError: reading failed.
    """
    data = np.frombuffer(reader.read(reader.group_offset(group), group.length), dtype=np.uint8)
    parts: list[dict[int, NDArray[np.uint8]]] = [{} for _ in range(len(group.planes) + 1)]
    for piece in pieces_of(group):
        part = data[piece.start : piece.start + piece.length]
        if zlib.crc32(part) != piece.checksum:
            bits = group.planes[piece.plane - 1].bits
            name = f"plane of {bits} bits" if piece.plane else "outlier list"
            raise damaged(
                reader,
                f"layer {group.layer} {group.kind}, group {group.number}, "
                f"slice {group.first + piece.slice}, {name}",
            )
        parts[piece.plane][piece.slice] = part
    outliers, *planes = ([found[number] for number in range(group.slices)] for found in parts)
    each = {plane.bits: shards for plane, shards in zip(group.planes, planes, strict=True)}
    return EncodedGroup(outliers, each, orders)


def damaged(reader: PackReader, part: str) -> PackCorruptError:
    """An error (to be raised by the caller) that says what of a pack is damaged."""
    return PackCorruptError(
        f"{reader.path}: {part}: checksum does not match; the pack is damaged, fetch it again"
    )
