"""What one step of a plan needs at run time: where its bytes lie and how its shards decode.

In: a plan and a pack's layout. Out: one ``StepJob`` per step, computed once per plan, so that the
lanes only follow addresses. Knows nothing of threads, files or graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.codec.pieces import SHARD
from sti.model.group_layout import group_ranges, prefixes
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.plan import Plan, PlanStep, step_name
from sti.storage.byte_ranges import ByteRange, cover, total_bytes

Starts = NDArray[np.uint64]
_HEAD, _PIECE = 2, 5
"""Numbers of a shard before its pieces, and of each piece."""
_MOST_PIECES = SHARD["pieces"].shape[0]
_NUMBERS = _HEAD + _PIECE * _MOST_PIECES
_LAYOUT = Struct("<II" + "IIQII" * _MOST_PIECES)
"""``SHARD``: packing numbers is several times as fast as making arrays of tuples."""


class StepJob(NamedTuple):
    """One step of a plan, ready to be read, decoded and computed. Offsets are the file's."""

    group: SliceGroup
    used: int
    """How many of the group's slices are in use."""
    connects: bool
    """Whether it is the last step of its block."""
    variant: str
    """How its products are computed: one of ``sti.planning.plan.VARIANTS``."""
    preload_bytes: int
    ranges: tuple[ByteRange, ...]
    covers: tuple[ByteRange, ...]
    """Sector-aligned ``ranges``, as they are read; they lie one after the other in a slot."""
    slot_starts: Starts
    """Where the first byte of each range lies in a slot."""
    packed_starts: Starts
    """Where it lies when the ranges are stored end to end, as in the preload buffer."""
    shards: NDArray[Any]
    """``SHARD [width]``: the shards in use; the parts of their pieces are ``ranges``."""
    plane_ends: tuple[int, ...]
    """Of each plane that is read, from the lowest on, the offset after its last byte."""

    @property
    def name(self) -> str:
        """The step's name in traces and messages."""
        return step_name(self.group.layer, self.group.kind, self.group.number)

    @property
    def slot_bytes(self) -> int:
        """Bytes of a ring slot that holds the step."""
        return sum(item.length for item in self.covers)

    def limited(self, planes: int) -> NDArray[Any]:
        """``shards`` with at most the first ``planes`` planes of each; a copy."""
        shards = self.shards.copy()
        np.minimum(shards["planes"], planes, out=shards["planes"])
        return shards

    def lowered(self, planes: int) -> StepJob:
        """The job of the same step with the first ``planes`` planes alone, at least one.

        What it reads lies in a slot where it lies for the whole step.
        """
        if planes >= len(self.plane_ends):
            return self
        end = self.plane_ends[planes - 1]
        ranges = tuple(
            ByteRange(item.offset, min(item.end, end) - item.offset)
            for item in self.ranges
            if item.offset < end
        )
        return self._replace(
            preload_bytes=min(self.preload_bytes, total_bytes(ranges)),
            ranges=ranges,
            covers=tuple(cover(item) for item in ranges),
            slot_starts=self.slot_starts[: len(ranges)],
            packed_starts=self.packed_starts[: len(ranges)],
            shards=self.limited(planes),
            plane_ends=self.plane_ends[:planes],
        )


def prepare(
    plan: Plan, manifest: Manifest, offset_of: Callable[[SliceGroup], int]
) -> tuple[StepJob, ...]:
    """Jobs for all steps of a plan. ``offset_of`` tells where a group starts in the file."""
    groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
    return tuple(
        prepare_step(item, group, offset_of(group), width=plan.width)
        for item, group in zip(plan.steps, groups, strict=True)
    )


def prepare_step(item: PlanStep, group: SliceGroup, offset: int, *, width: int) -> StepJob:
    """The job of one planned group that starts at ``offset`` in the file.

    ``width`` is the plan's: how many slices of the whole block are in use.
    """
    inside = group_ranges(group, item.counts)
    _, *planes = prefixes(group, item.counts)
    covers = tuple(cover(ByteRange(offset + r.offset, r.length)) for r in inside)
    slot_starts, packed_starts = [], []
    slot = packed = 0
    for found, whole in zip(inside, covers, strict=True):
        slot_starts.append(slot + offset + found.offset - whole.offset)
        packed_starts.append(packed)
        slot += whole.length
        packed += found.length
    used = group.used(width)
    return StepJob(
        group=group,
        used=used,
        connects=group.first + used == width,
        variant=item.variant,
        preload_bytes=item.preload_bytes,
        ranges=tuple(ByteRange(offset + r.offset, r.length) for r in inside),
        covers=covers,
        slot_starts=np.array(slot_starts, np.uint64),
        packed_starts=np.array(packed_starts, np.uint64),
        shards=_shards(group, item.counts, inside),
        plane_ends=tuple(offset + plane.end for plane in planes if plane.length),
    )


def _shards(group: SliceGroup, counts: Sequence[int], ranges: Sequence[ByteRange]) -> NDArray[Any]:
    """The shards in use: their outlier lists, and the planes up to their fidelity."""

    def home(start: int) -> tuple[int, int]:
        """The range in which a prefix lies, and the prefix's first byte inside it."""
        index = next(i for i, item in enumerate(ranges) if item.offset <= start < item.end)
        return index, start - ranges[index].offset

    used = counts[0]
    rows = [[number, 0] for number in range(used)]
    """Of each shard the numbers of its ``SHARD`` entry, so far; ``planes`` is set at the end."""
    part, start = home(0) if any(group.outlier_bytes[:used]) else (0, 0)
    for row, length, checksum in zip(
        rows, group.outlier_bytes, group.outlier_checksums, strict=False
    ):
        row += part, length, start, checksum, 0
        start += length
    plane_start, below = sum(group.outlier_bytes), _HEAD + _PIECE
    for plane, count in zip(group.planes, counts, strict=True):
        size, checksums = plane.shard_bytes, plane.checksums
        if count:
            part, start = home(plane_start)
            for number in plane.order[:count]:
                # A plane is useless without the ones below it.
                if number < used and len(rows[number]) == below:
                    rows[number] += part, size, start, checksums[number], 0
                start += size
        plane_start += size * len(plane.order)
        below += _PIECE
    for row in rows:
        row[1] = (len(row) - _HEAD) // _PIECE - 1
        row += [0] * (_NUMBERS - len(row))
    return np.frombuffer(bytearray().join([_LAYOUT.pack(*row) for row in rows]), SHARD)
