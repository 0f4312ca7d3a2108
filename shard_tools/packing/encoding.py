"""Encodes blocks and token embeddings, piece by piece, for the pack writer.

In: blocks on their grids, an encoder, the errors that planes take away; float embeddings. Out:
``EncodedBlock``s whose planes are in the order of importance, encoded rows, and, when all blocks
are measured, their gains. Knows nothing of checkpoints, or of where the bytes go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from zlib import crc32

from shard_tools.architectures.base import Model, cuts
from shard_tools.packing.activation_importance import scaled_gains
from shard_tools.packing.pack_writer import EncodedBlock
from shard_tools.progress import Progress
from shard_tools.quantization.blocks import QuantizedBlock
from shard_tools.quantization.embedding_table import encode_rows
from shard_tools.quantization.encode import Encoder
from sti.arrays import ByteArray, Float64Array
from sti.model.manifest import Block, EmbeddingTable, Plane

_ROWS = 4096
"""Rows of the embedding table that are encoded at a time."""


def encode_embeddings(model: Model, table: EmbeddingTable, line: Progress) -> Iterator[ByteArray]:
    """The embedding table in pieces, uint8 ``[rows, row_bytes]``; steps ``line`` by 1 a weight."""
    for start, stop in cuts(table.rows, _ROWS):
        line.step((stop - start) * table.hidden, "encoding token embeddings")
        yield encode_rows(model.token_rows(start, stop), group=table.group)


def encode_block(
    block: QuantizedBlock, encoder: Encoder, slices: int, errors: Float64Array
) -> EncodedBlock:
    """A block's shards in their planes, each plane in the order of the errors it takes away.

    The first plane keeps the order of the slices: it is the order that width cuts.

    Args:
        errors: ``[planes, slices]``, what each shard's plane takes away.
    """
    shards = [encoder.encode(block.shard(index, slices)) for index in range(slices)]
    parts = [shard.outliers for shard in shards]
    planes: list[Plane] = []
    for bits, taken in zip(shards[0].planes, errors.tolist(), strict=True):
        order = list(range(slices))
        if planes:
            order.sort(key=taken.__getitem__, reverse=True)
        pieces = [shards[index].planes[bits] for index in order]
        checksums = tuple(crc32(piece) for piece in pieces)
        planes.append(Plane(bits, pieces[0].nbytes, tuple(order), checksums, ()))
        parts += pieces
    layout = Block(
        layer=block.layer,
        kind=block.layout.name,
        shard_weights=block.weights // slices,
        length=sum(part.nbytes for part in parts),
        outlier_bytes=tuple(shard.outliers.nbytes for shard in shards),
        outlier_checksums=tuple(crc32(shard.outliers) for shard in shards),
        planes=tuple(planes),
    )
    return EncodedBlock(layout, parts)


def with_gains(
    layouts: Sequence[Block], errors: Sequence[Float64Array], arriving: Sequence[float]
) -> tuple[Block, ...]:
    """The blocks with their gains, which are known only when the last one is measured.

    Args:
        errors: of each block, as ``encode_block`` took them.
        arriving: how much of each block's errors the head gets to read.
    """
    ranked = []
    for layout, taken, share in zip(layouts, errors, arriving, strict=True):
        rows = scaled_gains(taken, share)
        planes = tuple(
            replace(plane, gains=row) for plane, row in zip(layout.planes, rows, strict=True)
        )
        ranked.append(replace(layout, planes=planes))
    return tuple(ranked)
