"""Encodes blocks and token embeddings, part by part, for the pack writer.

In: blocks on their grids, an encoder, the errors that planes take away; float embeddings. Out:
``EncodedGroup``s whose planes are in the order of importance, encoded rows, and, when all blocks
are measured, the gains of the groups. Knows nothing of checkpoints, or of where the bytes go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shard_tools.architectures.base import Model, cuts
from shard_tools.packing.pack_writer import EncodedGroup
from shard_tools.progress import Progress
from shard_tools.quantization.blocks import QuantizedBlock
from shard_tools.quantization.embedding_table import encode_rows
from shard_tools.quantization.encode import Encoder
from sti.arrays import ByteArray, Float64Array
from sti.model.manifest import EmbeddingTable, SliceGroup

Gains = Mapping[tuple[int, str], Sequence[Sequence[float]]]
"""By layer and kind: one row per plane, one number per slice of the block."""

_ROWS = 4096
"""Rows of the embedding table that are encoded at a time."""


def encode_embeddings(model: Model, table: EmbeddingTable, line: Progress) -> Iterator[ByteArray]:
    """The embedding table in chunks, uint8 ``[rows, row_bytes]``; steps ``line`` by 1 a weight."""
    for start, stop in cuts(table.rows, _ROWS):
        line.step((stop - start) * table.hidden, "encoding token embeddings")
        yield encode_rows(model.token_rows(start, stop), group=table.group, first=start)


def encode_block(
    block: QuantizedBlock,
    encoder: Encoder,
    slices: int,
    groups: Sequence[int],
    errors: Float64Array,
) -> Iterator[EncodedGroup]:
    """A block's groups, each plane of a group in the order of the errors it takes away.

    The first plane keeps the order of the slices: it is the order that width cuts.

    Args:
        slices: of the block.
        groups: slices of each group.
        errors: ``[planes, slices]``, what each shard's plane takes away.
    """
    sizes = block.operand_sizes(slices)
    ladder = encoder.codebook.ladder
    first = 0
    for count in groups:
        numbers = range(first, first + count)
        shards = [encoder.encode(block.shard(index, slices), sizes) for index in numbers]
        yield EncodedGroup(
            outliers=[shard.outliers for shard in shards],
            planes={bits: [shard.planes[bits] for shard in shards] for bits in ladder},
            orders=[
                list(range(count)) if not plane else falling(taken[first : first + count])
                for plane, taken in enumerate(errors.tolist())
            ],
        )
        first += count


def falling(gains: Sequence[float]) -> list[int]:
    """The order of falling gains; equal ones keep theirs."""
    return sorted(range(len(gains)), key=lambda index: -gains[index])


def with_gains(groups: Sequence[SliceGroup], gains: Gains) -> tuple[SliceGroup, ...]:
    """The groups with the gains of their blocks."""
    found = []
    for group in groups:
        part = slice(group.first, group.first + group.slices)
        rows = gains[group.layer, group.kind]
        planes = tuple(
            plane._replace(gains=tuple(row[part]))
            for plane, row in zip(group.planes, rows, strict=True)
        )
        found.append(group._replace(planes=planes))
    return tuple(found)
