"""Decoding a step: checks, and what happens where bytes are damaged.

In: a step's job, its compressed bytes, a working buffer. Effect: the buffer holds the step's
weights; or planes that are damaged were left out, which is noted; or an error says which part of
which pack is damaged. The one place where a run becomes less than its plan. Knows nothing of
threads or of what a block computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sti.backend.working_buffer import WorkingBuffer
from sti.codec.pieces import BOUNDS, CHECKSUM, OUTLIERS, SIZE, Fault, GroupDecoder
from sti.errors import PackCorruptError
from sti.model.manifest import BlockKind
from sti.pipeline.preload_buffer import StepBytes
from sti.planning.downgrade import Downgrade
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.step_jobs import StepJob

_FIRST_PLANE = 1
"""Number of a fault's piece for the first plane; 0 is the outlier list."""


class DecodePolicy(NamedTuple):
    """How steps are decoded."""

    decoder: Callable[[str], GroupDecoder]
    """By variant (``sti.backend.interface.Backend.decoder``)."""
    where: str
    """Name of the pack, for messages."""
    check: bool
    """Whether every piece is compared with its checksum. Only benchmarks go without."""
    adapt: bool
    """Whether damaged planes above the first may be left out."""


class DecodeTask(NamedTuple):
    """A step to be decoded."""

    job: StepJob
    data: StepBytes
    """Its bytes; only read."""
    out: WorkingBuffer
    """Where the weights go."""
    kind: BlockKind
    """Of the step's group."""


def decode(task: DecodeTask, policy: DecodePolicy, share: Share = WHOLE) -> Fault | None:
    """Decode a share of a step's shards; returns the first fault found among them."""
    shards = task.job.shards
    if share != WHOLE:
        shards = shards[share.number :: share.of].copy()
    return _decode(task, policy, shards)


def _decode(task: DecodeTask, policy: DecodePolicy, shards: NDArray[Any]) -> Fault | None:
    job, data = task.job, task.data
    decoder = policy.decoder(job.variant)
    rooms = task.out.operands(task.kind, job.used, decoder.dtype)
    return decoder.decode(data.buffer, data.starts, shards, rooms, check=policy.check)


def decode_again(task: DecodeTask, policy: DecodePolicy) -> Downgrade | None:
    """Decode a step that is at fault, without the plane at fault and those above it.

    From the start, so that the fault is the first one however its shards were shared out.

    Returns:
        What was left out; None if there is no fault after all.

    Raises:
        PackCorruptError: the plan may not be changed, or nothing sound is left.
    """
    fault = decode(task, policy)
    return None if fault is None else _decode_less(task, policy, fault)


def _decode_less(task: DecodeTask, policy: DecodePolicy, fault: Fault) -> Downgrade:
    group, again = task.job.group, True
    while again:
        if not policy.adapt or fault.piece <= _FIRST_PLANE or fault.what != CHECKSUM:
            raise damaged(task.job, fault, policy)
        found = _decode(task, policy, task.job.limited(fault.piece - 1))
        again, fault = found is not None, found or fault
    bits = group.planes[fault.piece - 1].bits
    return Downgrade(group.layer, group.kind, group.number, bits, group.first + fault.row)


_WHAT = {
    CHECKSUM: "checksum does not match",
    SIZE: "does not fit the shard",
    BOUNDS: "lies outside what was read",
    OUTLIERS: "contradicts itself",
}


def damaged(job: StepJob, fault: Fault, policy: DecodePolicy) -> PackCorruptError:
    """The error that names the damaged part and what to do."""
    group = job.group
    part = "outlier list"
    if fault.piece >= _FIRST_PLANE:
        part = f"plane of {group.planes[fault.piece - 1].bits} bits"
    return PackCorruptError(
        f"{policy.where}: layer {group.layer} {group.kind}, group {group.number}, slice "
        f"{group.first + fault.row}, {part}: {_WHAT[fault.what]}; the pack is damaged, fetch it "
        "again (`sti-shard verify` lists all damage)"
    )
