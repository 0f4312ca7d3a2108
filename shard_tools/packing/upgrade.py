"""Rewriting an older pack in the format of this release, without its checkpoint.

In: the path of the old pack, of format 1 or of an earlier form of format 2. Out: a pack with the
same weights at every fidelity, token embeddings, residents, gains and measurements. Of format 1
codes are kept as they are and stored in other places, a plane's order is the old one, inside each
slice group, and graphs tell themselves what they were made from. All graphs are made again. The
notes say what was upgraded (``upgraded``): format and identity of the old pack, and ``joined``,
false, if it was of format 2. Every byte that is read is compared with its checksum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.graphs.parse import parse_graphs
from shard_tools.graphs.spec import GraphSpec
from shard_tools.packing.build import made_residents
from shard_tools.packing.encoding import Gains, with_gains
from shard_tools.packing.format1 import FORMAT, Format1, OldBlock
from shard_tools.packing.joints import joined_kinds
from shard_tools.packing.pack_writer import (
    NO_HASH,
    EncodedGroup,
    PackWriter,
    graph_tensor,
    replacing_pack,
)
from shard_tools.packing.repack import repack
from shard_tools.packing.unjoined import open_unjoined
from shard_tools.progress import Progress
from shard_tools.quantization.blocks import GROUP_BYTES, group_sizes
from shard_tools.quantization.encode import stored_shard
from sti.codec.word_rows import CHECKSUM, row_checksum
from sti.errors import PackFormatError
from sti.model.manifest import FORMAT_VERSION, JOINED, BlockKind, Manifest
from sti.pack.header import VOCABULARY
from sti.pack.manifest_reader import read_manifest
from sti.pack.pack_reader import PackReader
from sti.text.tokenizer_spec import TokenizerSpec


def upgrade(
    old: Path,
    output: Path,
    *,
    group_bytes: int = GROUP_BYTES,
    progress: bool | None = None,
) -> Manifest:
    """Write an old pack anew.

    Args:
        old: the pack; only read, unless it is ``output``, too.
        output: the new pack; replaced as a whole when all went well, untouched otherwise.
        group_bytes: the least that a slice group is to have at 2 bits; a pack of format 2 keeps its
            groups.
        progress: True or False shows or hides the progress line; None shows it on a terminal. A
            pack of format 2 is copied without one.

    Returns:
        The manifest as written.

    Raises:
        InputError: the pack is of this release's format already, or ``output`` cannot be a file.
        PackFormatError: not a pack, malformed, or with graphs that this release does not know.
        PackCorruptError: the pack is damaged; names the part.
        PackError, StorageError: reading or writing failed.
    """
    found = open_unjoined(old)
    if found is not None:
        with found[0] as reader:
            return _joined(reader, output, found[1])
    with Format1(old) as source:
        parsed = _parsed(source)
        blocks = _in_order(source, parsed)
        residents = source.residents()
        manifest = _grouped(source, parsed, residents, group_bytes)
        weights = sum(block.shard_weights * len(block.outlier_bytes) for block in blocks)
        with (
            replacing_pack(output, old.stat().st_size) as stream,
            Progress(float(weights), shown=progress) as line,
        ):
            writer = PackWriter(stream, manifest, residents)
            writer.words(_word_rows(source))
            groups = []
            for block, kind in zip(blocks, _kinds(manifest), strict=True):
                groups += [writer.group(item) for item in _groups(source, block, kind, manifest)]
                size = block.shard_weights * len(block.outlier_bytes)
                line.step(float(size), f"rewriting layer {block.layer}")
            gains: Gains = {
                (block.layer, block.kind): [plane.gains for plane in block.planes]
                for block in blocks
            }
            return writer.finish(manifest._replace(groups=with_gains(groups, gains)))


def _joined(reader: PackReader, output: Path, pack_id: str) -> Manifest:
    """Write a pack of an earlier format 2 with graphs that take joined slices."""
    old = reader.manifest
    spec = GraphSpec.from_json(old.graph_spec, where=str(reader.path))
    upgraded = {"format": FORMAT_VERSION, "joined": False, "pack_id": pack_id}
    notes = old.notes | {"upgraded": upgraded}
    return repack(reader, output, old._replace(notes=notes), graphs=spec.build())


def _parsed(source: Format1) -> Manifest:
    """The old manifest as one of this format, each block in a single group yet."""
    fields = source.fields
    words, slices = fields.object("words"), fields.object("dimensions").integer("slices")
    changed = {
        "format": FORMAT_VERSION,
        "sha256": {"content": NO_HASH, "index": NO_HASH},
        "graph_spec": {},
        "words": words.members() | {"row_bytes": words.integer("row_bytes") + CHECKSUM.itemsize},
        "requires": [JOINED],
        "kinds": [kind | {"groups": [slices]} for kind in joined_kinds(fields)],
    }
    return read_manifest(json.dumps(fields.members() | changed), where=str(source.path))


def _grouped(
    source: Format1, parsed: Manifest, residents: dict[str, NDArray[Any]], group_bytes: int
) -> Manifest:
    """The new manifest without groups; puts new graphs and the vocabulary into ``residents``."""
    where = str(source.path)
    missing = {VOCABULARY, *parsed.graphs.values()} - residents.keys()
    if missing:
        raise PackFormatError(
            f"{where}: resident tensor {min(missing)!r} is missing; fetch the pack again"
        )
    graphs = {name: residents[tensor].tobytes() for name, tensor in parsed.graphs.items()}
    spec = parse_graphs(graphs, where=where)
    made = spec.build()
    vocabulary = residents[VOCABULARY].tobytes()
    for name in (VOCABULARY, *parsed.graphs.values()):
        residents.pop(name, None)
    kind = TokenizerSpec.from_json(parsed.tokenizer).kind
    residents |= made_residents(made, kind, vocabulary, {})
    slices = parsed.dimensions.slices
    kinds = tuple(
        kind._replace(groups=group_sizes(kind.shard_weights, slices, group_bytes=group_bytes))
        for kind in parsed.kinds
    )
    return parsed._replace(
        kinds=kinds,
        graphs={name: graph_tensor(name) for name in made},
        graph_spec=spec.to_json(),
        notes=parsed.notes | {"upgraded": {"format": FORMAT, "pack_id": source.pack_id}},
    )


def _kinds(manifest: Manifest) -> Iterator[BlockKind]:
    """The kind of each block, in the order of execution."""
    for _ in range(manifest.dimensions.layers):
        yield from manifest.kinds


def _in_order(source: Format1, manifest: Manifest) -> Sequence[OldBlock]:
    """The old blocks, if they are every layer's of every kind, in the order of execution."""
    wanted = [
        (layer, kind.name, kind.shard_weights)
        for layer in range(manifest.dimensions.layers)
        for kind in manifest.kinds
    ]
    found = [(block.layer, block.kind, block.shard_weights) for block in source.blocks]
    if found != wanted:
        raise PackFormatError(
            f"{source.path}: its blocks are not those of every layer, in the order of execution; "
            "build the pack again from its checkpoint"
        )
    return source.blocks


def _word_rows(source: Format1) -> Iterator[NDArray[np.uint8]]:
    """The rows of the embedding table with their checksums."""
    first = 0
    for rows in source.word_rows():
        sums = [row_checksum(first + place, row) for place, row in enumerate(rows)]
        stored = np.array(sums, CHECKSUM).view(np.uint8).reshape(len(rows), CHECKSUM.itemsize)
        yield np.concatenate([rows, stored], axis=1)
        first += len(rows)


def _groups(
    source: Format1, block: OldBlock, kind: BlockKind, manifest: Manifest
) -> Iterator[EncodedGroup]:
    """A block, group by group."""
    ladder = manifest.ladder
    sizes = [prod(operand.shape) for operand in kind.operands]
    shards = [
        stored_shard(ladder, shard.codes, shard.places, shard.exact, sizes)
        for shard in source.shards(block)
    ]
    first = 0
    for count in kind.groups:
        part = shards[first : first + count]
        yield EncodedGroup(
            outliers=[shard.outliers for shard in part],
            planes={bits: [shard.planes[bits] for shard in part] for bits in ladder},
            orders=[
                [index - first for index in plane.order if first <= index < first + count]
                for plane in block.planes
            ],
        )
        first += count
