"""What one block of a plan needs at run time: where its bytes lie and how its shards decode.

In: a plan and a pack's layout. Out: one ``BlockJob`` per block, computed once per plan, so that the
lanes only follow addresses. Knows nothing of threads, files or graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sti.model.block_layout import block_ranges
from sti.model.manifest import Block, Manifest
from sti.planning.plan import Plan, PlanStep
from sti.storage.byte_ranges import ByteRange, cover

GROUP_WEIGHTS = 393_216
"""Weights decoded in one call at most: shards are decoded together to save calls."""


class Piece(NamedTuple):
    """A checksummed run of bytes: ``length`` bytes at ``start`` of the job's range ``part``."""

    part: int
    start: int
    length: int
    checksum: int


class ShardJob(NamedTuple):
    """One shard in use: its outlier list and the planes up to its fidelity, lowest first."""

    slice: int
    outliers: Piece
    planes: tuple[Piece, ...]


class BlockJob(NamedTuple):
    """One block of a plan, ready to be read, decoded and computed. Offsets are the file's."""

    block: Block
    width: int
    preload_bytes: int
    ranges: tuple[ByteRange, ...]
    covers: tuple[ByteRange, ...]
    """Sector-aligned ``ranges``, as they are read; they lie one after the other in a slot."""
    slot_starts: tuple[int, ...]
    """Where the first byte of each range lies in a slot."""
    packed_starts: tuple[int, ...]
    """Where it lies when the ranges are stored end to end, as in the preload buffer."""
    groups: tuple[tuple[ShardJob, ...], ...]
    """The shards in use, in groups of neighbours of one fidelity that are decoded together."""

    @property
    def name(self) -> str:
        """The block's name in traces and messages."""
        return f"{self.block.layer} {self.block.kind}"

    @property
    def slot_bytes(self) -> int:
        """Bytes of a ring slot that holds the block."""
        return sum(item.length for item in self.covers)


def prepare(
    plan: Plan, manifest: Manifest, offset_of: Callable[[str], int]
) -> tuple[BlockJob, ...]:
    """Jobs for all blocks of a plan. ``offset_of`` tells where a tensor starts in the file."""
    blocks = [manifest.block(item.layer, item.kind) for item in plan.steps]
    return tuple(
        prepare_block(item, block, offset_of(block.tensor), threads=plan.decode_threads)
        for item, block in zip(plan.steps, blocks, strict=True)
    )


def prepare_block(item: PlanStep, block: Block, offset: int, *, threads: int = 1) -> BlockJob:
    """The job of one planned block whose tensor starts at ``offset`` in the file.

    ``threads`` threads decode it, each every ``threads``-th group. No group holds more than one
    thread's share, and large groups come first, so that the shares are nearly even.
    """
    inside = block_ranges(block, item.counts)
    covers = tuple(cover(ByteRange(offset + r.offset, r.length)) for r in inside)
    slot_starts, packed_starts = [], []
    slot = packed = 0
    for found, whole in zip(inside, covers, strict=True):
        slot_starts.append(slot + offset + found.offset - whole.offset)
        packed_starts.append(packed)
        slot += whole.length
        packed += found.length
    return BlockJob(
        block=block,
        width=item.counts[0],
        preload_bytes=item.preload_bytes,
        ranges=tuple(ByteRange(offset + r.offset, r.length) for r in inside),
        covers=covers,
        slot_starts=tuple(slot_starts),
        packed_starts=tuple(packed_starts),
        groups=_groups(_shards(block, item.counts, inside), block.shard_weights, threads),
    )


def _groups(
    shards: Sequence[ShardJob], weights: int, threads: int
) -> tuple[tuple[ShardJob, ...], ...]:
    """Groups of neighbouring shards of one fidelity, of at most ``GROUP_WEIGHTS`` weights."""
    each = -(-len(shards) // threads)
    rounds = -(-each // max(1, GROUP_WEIGHTS // weights))
    most = -(-each // rounds)
    groups: list[tuple[ShardJob, ...]] = []
    for shard in shards:
        last = groups[-1] if groups else ()
        if last and len(last) < most and len(last[0].planes) == len(shard.planes):
            groups[-1] = (*last, shard)
        else:
            groups.append((shard,))
    if threads > 1:
        groups.sort(key=lambda group: -len(group) * len(group[0].planes))
    return tuple(groups)


def _shards(
    block: Block, counts: Sequence[int], ranges: Sequence[ByteRange]
) -> tuple[ShardJob, ...]:
    def home(start: int) -> tuple[int, int]:
        """The range in which a segment lies, and the segment's first byte inside it."""
        index = next(i for i, item in enumerate(ranges) if item.offset <= start < item.end)
        return index, start - ranges[index].offset

    planes: list[list[Piece]] = [[] for _ in block.outlier_bytes]
    segment = sum(block.outlier_bytes)
    for level, (plane, count) in enumerate(zip(block.planes, counts, strict=True)):
        if count:
            index, start = home(segment)
            for place, number in enumerate(plane.order[:count]):
                if len(planes[number]) == level:  # a plane is useless without the ones below it
                    at = start + place * plane.shard_bytes
                    planes[number].append(
                        Piece(index, at, plane.shard_bytes, plane.checksums[place])
                    )
        segment += plane.shard_bytes * len(plane.order)
    jobs = []
    index, start = home(0)
    for number in range(counts[0]):
        length = block.outlier_bytes[number]
        outliers = Piece(index, start, length, block.outlier_checksums[number])
        jobs.append(ShardJob(number, outliers, tuple(planes[number])))
        start += length
    return tuple(jobs)
