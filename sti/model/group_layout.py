"""Which bytes of a slice group a plan reads. Pure: decides reads, performs none.

In: a group's layout (manifest) and the shard counts of a plan. Out: byte ranges inside the group,
coalesced. The planner counts the same ranges that the storage lane reads, so that predicted and
actual bytes agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sti.model.manifest import SliceGroup
from sti.storage.byte_ranges import MERGE_GAP, ByteRange


def prefixes(group: SliceGroup, counts: Sequence[int]) -> Iterator[ByteRange]:
    """The prefixes that a plan reads, as ranges inside the group.

    First the outlier lists of ``counts[0]`` slices, then ``counts[p]`` shards of each plane ``p``;
    ranges may be empty.
    """
    yield ByteRange(0, sum(group.outlier_bytes[: counts[0]]))
    start = sum(group.outlier_bytes)
    for plane, count in zip(group.planes, counts, strict=True):
        yield ByteRange(start, plane.shard_bytes * count)
        start += plane.shard_bytes * len(plane.order)


def group_ranges(group: SliceGroup, counts: Sequence[int]) -> tuple[ByteRange, ...]:
    """The ranges of ``prefixes``, coalesced: ascending and disjoint.

    Like ``coalesce``, but in one pass, because prefixes ascend: planning asks for thousands.
    """
    found: list[ByteRange] = []
    start = end = -1
    for offset, length in prefixes(group, counts):
        if not length:
            continue
        if end < 0:
            start = offset
        elif offset - end > MERGE_GAP:
            found.append(ByteRange(start, end - start))
            start = offset
        end = offset + length
    if end >= 0:
        found.append(ByteRange(start, end - start))
    return tuple(found)
