"""Rewriting a pack with other gains, plane orders or facts about itself, without decoding.

In: an open pack and the manifest it is to have. Out: a pack in which each plane's shards lie in the
order of the new manifest and are the same to the bit, as are the embedding table and the residents.
Every byte that is copied is compared with its checksum. Knows nothing of how gains are measured.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.pack_writer import PAD, EncodedBlock, PackWriter, replacing_pack
from sti.errors import PackCorruptError
from sti.model.manifest import Block, Manifest, Plane
from sti.pack.header import WORDS, open_file, read_exactly
from sti.pack.pack_reader import PackReader

Gains = Mapping[tuple[int, str], Sequence[Sequence[float]]]
"""By layer and kind: one row per plane, one number per slice."""

_COPY_BYTES = 1 << 22


def ranked_blocks(blocks: Sequence[Block], gains: Gains) -> tuple[Block, ...]:
    """The blocks with these gains, every plane but the first in the order of its own, most first.

    The first plane keeps the slice order: it is the order that width cuts.
    """
    found = []
    for block in blocks:
        rows = gains[block.layer, block.kind]
        planes = [replace(block.planes[0], gains=tuple(rows[0]))]
        planes += [
            _ordered(plane, tuple(row))
            for plane, row in zip(block.planes[1:], rows[1:], strict=True)
        ]
        found.append(replace(block, planes=tuple(planes)))
    return tuple(found)


def _ordered(plane: Plane, gains: tuple[float, ...]) -> Plane:
    order = tuple(sorted(range(len(gains)), key=lambda index: (-gains[index], index)))
    places = {index: place for place, index in enumerate(plane.order)}
    checksums = tuple(plane.checksums[places[index]] for index in order)
    return replace(plane, order=order, checksums=checksums, gains=gains)


def repack(reader: PackReader, output: Path, manifest: Manifest) -> Manifest:
    """Write the pack with another manifest.

    Args:
        reader: the pack to take everything from.
        output: the new pack; may be the same file, which is replaced when all went well.
        manifest: the pack's own but for gains, orders with their checksums, submodels, quality,
            rejection and notes.

    Returns:
        The manifest as written.

    Raises:
        PackCorruptError: the pack is damaged; names the part.
        InputError, StorageError: ``output`` cannot be written.
    """
    with open_file(reader.path) as stream, replacing_pack(output) as target:
        writer = PackWriter(target, manifest, _residents(reader))
        found = writer.words(_words(reader, stream))
        if found != manifest.embeddings.checksum:
            raise _damaged(reader, "the embedding table")
        for block in manifest.blocks:
            old = reader.manifest.block(block.layer, block.kind)
            writer.block(EncodedBlock(block, _parts(reader, stream, old, block)))
        return writer.finish(manifest)


def _residents(reader: PackReader) -> dict[str, NDArray[Any]]:
    names = [name for name in reader.tensors() if reader.has_resident(name)]
    return {name: reader.resident(name) for name in names if name not in (PAD, WORDS)}


def _words(reader: PackReader, stream: BinaryIO) -> Iterator[NDArray[np.uint8]]:
    """The embedding table in pieces."""
    table = reader.manifest.embeddings
    length = table.rows * table.row_bytes
    for start in range(0, length, _COPY_BYTES):
        size = min(_COPY_BYTES, length - start)
        piece = read_exactly(stream, reader.path, reader.embeddings_offset + start, size)
        yield np.frombuffer(piece, dtype=np.uint8)


def _parts(reader: PackReader, stream: BinaryIO, old: Block, new: Block) -> list[NDArray[np.uint8]]:
    """A block's bytes, in the order of ``new``."""
    raw = read_exactly(stream, reader.path, reader.block_offset(old.tensor), old.length)
    data = np.frombuffer(raw, dtype=np.uint8)
    tag = f"layer {old.layer} {old.kind}"
    parts, start = [], 0
    for index, (length, checksum) in enumerate(
        zip(old.outlier_bytes, old.outlier_checksums, strict=True)
    ):
        parts.append(data[start : start + length])
        if zlib.crc32(parts[-1].data) != checksum:
            raise _damaged(reader, f"{tag}, slice {index}, outlier list")
        start += length
    for before, after in zip(old.planes, new.planes, strict=True):
        shards = {}
        for index, checksum in zip(before.order, before.checksums, strict=True):
            shards[index] = data[start : start + before.shard_bytes]
            if zlib.crc32(shards[index].data) != checksum:
                raise _damaged(reader, f"{tag}, slice {index}, plane of {before.bits} bits")
            start += before.shard_bytes
        parts += [shards[index] for index in after.order]
    return parts


def _damaged(reader: PackReader, part: str) -> PackCorruptError:
    return PackCorruptError(
        f"{reader.path}: {part}: checksum does not match; the pack is damaged, fetch it again"
    )
