"""Decoding a step: checks, and what happens where bytes are damaged.

In: a step's job, its compressed bytes, a working buffer. Effect: the buffer holds the step's
weights; or planes that are damaged were left out, which is noted; or an error says which part of
which pack is damaged. The one place where a run becomes less than its plan. Knows nothing of
threads or of what a block computes.
"""

from __future__ import annotations

from typing import NamedTuple

from sti.backend.working_buffer import WorkingBuffer
from sti.codec.pieces import BOUNDS, CHECKSUM, OUTLIERS, SIZE, Fault, GroupDecoder
from sti.errors import PackCorruptError
from sti.pipeline.preload_buffer import StepBytes
from sti.planning.downgrade import Downgrade
from sti.planning.step_jobs import StepJob

_FIRST_PLANE = 1
"""Number of a fault's piece for the first plane; 0 is the outlier list."""


class DecodePolicy(NamedTuple):
    """How steps are decoded."""

    decoder: GroupDecoder
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
    """Where the weights go: slice ``s`` of the group to row ``s`` of each operand."""


def decode(
    task: DecodeTask, policy: DecodePolicy, *, first: int = 0, stride: int = 1
) -> Fault | None:
    """Decode every ``stride``-th shard from ``first`` on; returns the first fault found."""
    data = task.data
    return policy.decoder.decode(
        data.buffer,
        data.starts,
        task.job.shards,
        task.out.operands,
        check=policy.check,
        first=first,
        stride=stride,
    )


def decode_less(task: DecodeTask, policy: DecodePolicy, fault: Fault) -> Downgrade:
    """Decode all shards of a step without the plane at fault and those above it.

    Raises:
        PackCorruptError: the plan may not be changed, or nothing sound is left.
    """
    data, group, again = task.data, task.job.group, True
    while again:
        if not policy.adapt or fault.piece <= _FIRST_PLANE or fault.what != CHECKSUM:
            raise damaged(task.job, fault, policy)
        found = policy.decoder.decode(
            data.buffer,
            data.starts,
            task.job.limited(fault.piece - 1),
            task.out.operands,
            check=policy.check,
        )
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
