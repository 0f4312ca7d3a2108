"""Which bytes of a block a plan reads. Pure: decides reads, performs none.

In: a block's layout (manifest) and the shard counts of a plan. Out: byte ranges inside the
block's tensor, coalesced. The planner counts the same ranges that the storage lane reads, so that
predicted and actual bytes agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sti.model.manifest import Block
from sti.storage.byte_ranges import ByteRange, coalesce


def segments(block: Block, counts: Sequence[int]) -> Iterator[ByteRange]:
    """The prefixes that a plan reads, as ranges inside the block's tensor.

    First the outlier lists of ``counts[0]`` slices, then ``counts[p]`` shards of each plane ``p``;
    ranges may be empty.
    """
    yield ByteRange(0, sum(block.outlier_bytes[: counts[0]]))
    start = sum(block.outlier_bytes)
    for plane, count in zip(block.planes, counts, strict=True):
        yield ByteRange(start, plane.shard_bytes * count)
        start += plane.shard_bytes * len(plane.order)


def block_ranges(block: Block, counts: Sequence[int]) -> tuple[ByteRange, ...]:
    """The ranges of ``segments``, coalesced: ascending and disjoint."""
    return coalesce(segments(block, counts))
