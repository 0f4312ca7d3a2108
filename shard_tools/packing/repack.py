"""Rewriting a pack with other gains, plane orders, graphs or facts about itself, without decoding.

In: an open pack, the manifest it is to have, and perhaps other graphs. Out: a pack in which each
plane's shards lie in the order of the new manifest and are the same to the bit, as are the
embedding table and the residents but for graphs and staircases that were replaced.
Every byte that is copied is compared with its checksum. Knows nothing of how gains are measured.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.encoding import Gains, falling, with_gains
from shard_tools.packing.pack_writer import (
    EncodedGroup,
    PackWriter,
    graph_residents,
    graph_tensor,
    replacing_pack,
)
from sti.errors import PackCorruptError
from sti.model.manifest import Manifest, SliceGroup
from sti.pack.content_hash import bad_rows, pieces_of, word_chunks
from sti.pack.header import PAD, STAIRCASES, WORDS
from sti.pack.index import INDEX
from sti.pack.pack_reader import PackReader


def ranked_groups(groups: Sequence[SliceGroup], gains: Gains) -> tuple[SliceGroup, ...]:
    """The groups with these gains, every plane but the first in the order of its own, most first.

    The first plane keeps the slice order: it is the order that width cuts.
    """
    found = []
    for group in with_gains(groups, gains):
        first, *others = group.planes
        planes = [plane._replace(order=tuple(falling(plane.gains))) for plane in others]
        found.append(group._replace(planes=(first, *planes)))
    return tuple(found)


def repack(
    reader: PackReader,
    output: Path,
    manifest: Manifest,
    *,
    graphs: Mapping[str, bytes] | None = None,
    staircases: bytes | None = None,
) -> Manifest:
    """Write the pack with another manifest.

    Args:
        reader: the pack to take everything from.
        output: the new pack; may be the same file, which is replaced when all went well.
        manifest: the pack's own but for gains, orders, submodels, quality, rejection and notes.
            With ``graphs`` also but for what says how these are fed (``requires``, how a kind's
            operands are joined); its own list of graphs is replaced.
        graphs: ONNX models by name, which take the place of the pack's. The content is another one
            then, so its hash is not compared with the pack's; without them it is.
        staircases: of the new manifest, as ``Staircases.to_bytes`` gives them. Without them the
            pack gets none: its own may be of another ranking.

    Returns:
        The manifest as written.

    Raises:
        PackCorruptError: the pack is damaged; names the part.
        InputError, StorageError: ``output`` cannot be written.
    """
    old = reader.manifest
    with replacing_pack(output, reader.file_bytes) as target:
        residents = _residents(reader)
        if graphs is not None:
            manifest = manifest._replace(graphs={name: graph_tensor(name) for name in graphs})
            residents = _with_graphs(residents, {*old.graphs.values()}, graphs)
        if staircases is not None:
            residents[STAIRCASES] = np.frombuffer(staircases, np.uint8)
        writer = PackWriter(target, manifest._replace(groups=()), residents)
        writer.words(_words(reader))
        for before, after in zip(old.groups, manifest.groups, strict=True):
            orders = [plane.order for plane in after.planes]
            writer.group(_stored_group(reader, before, orders))
        written = writer.finish(manifest)
        if graphs is None and written.sha256.content != old.sha256.content:
            raise _damaged(reader, "the content as a whole")
        return written


def _residents(reader: PackReader) -> dict[str, NDArray[Any]]:
    names = [name for name in reader.tensors() if reader.has_resident(name)]
    left_out = (PAD, STAIRCASES, WORDS, *INDEX)
    return {name: reader.resident(name) for name in names if name not in left_out}


def _with_graphs(
    residents: Mapping[str, NDArray[Any]], old: Collection[str], graphs: Mapping[str, bytes]
) -> dict[str, NDArray[Any]]:
    """The residents with other graphs in the place of the old ones."""
    made, found = graph_residents(graphs), dict[str, NDArray[Any]]()
    for name, array in residents.items():
        if name in old:
            found |= made
        elif name not in made:
            found[name] = array
    return found


def _words(reader: PackReader) -> Iterator[NDArray[np.uint8]]:
    """The embedding table in chunks."""
    table = reader.manifest.embeddings
    for first, rows in word_chunks(reader.read, table, reader.embeddings_offset):
        bad = bad_rows(rows, table.row_bytes, first=first)
        if bad:
            raise _damaged(reader, f"token embedding {bad[0]}")
        yield np.frombuffer(rows, dtype=np.uint8)


def _stored_group(
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
            raise _damaged(
                reader,
                f"layer {group.layer} {group.kind}, group {group.number}, "
                f"slice {group.first + piece.slice}, {name}",
            )
        parts[piece.plane][piece.slice] = part
    outliers, *planes = ([found[number] for number in range(group.slices)] for found in parts)
    each = {plane.bits: shards for plane, shards in zip(group.planes, planes, strict=True)}
    return EncodedGroup(outliers, each, orders)


def _damaged(reader: PackReader, part: str) -> PackCorruptError:
    return PackCorruptError(
        f"{reader.path}: {part}: checksum does not match; the pack is damaged, fetch it again"
    )
