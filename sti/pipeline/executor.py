"""Executing a plan: the sequential executor, which specifies the others, and what they share.

In: step jobs, compressed bytes (storage or preload), and what to compute for a step. Effect: calls
that for every step of a block, with the step's decoded weights, and then for the block as a whole.
Executors decide nothing: order, fidelities, threads and read-ahead are the plan's, and what is late
or damaged is left to ``sti.pipeline.loading`` and ``decoding``. Answers of all of them are equal to
the bit. They know nothing of what a step computes, or of texts.

``sti.pipeline.pipelined`` gives each lane a thread; ``sti.pipeline.shared`` lets several threads
compute, each of which decodes what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

from sti.arrays import ByteArray
from sti.backend.working_buffer import WorkingBuffer
from sti.device.lanes import DECODE
from sti.model.manifest import BlockKind
from sti.pipeline.decoding import DecodePolicy, DecodeTask, decode, decode_again
from sti.pipeline.loading import LoadedStep, Loader
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Worker
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.step_jobs import StepJob


class Computation(NamedTuple):
    """What executors call, and when."""

    begin: Callable[[], None]
    """Embeds the texts: on the caller's thread, before the first step is computed."""
    step: Callable[[StepJob, int, int, Share], None]
    """Computes a share of a step: number of the working buffer, number of the compute thread."""
    connect: Callable[[StepJob, int], None]
    """Ends a block once all of its steps are computed: one of its jobs, number of the thread."""


class RunResources(NamedTuple):
    """What executors need of a machine and a pack; owned by the engine, one run at a time."""

    loader: Loader
    ring: ByteArray
    """Memory of the ring."""
    buffers: Sequence[WorkingBuffer]
    """As many as ``LaneThreads.buffers`` of the plan's threads."""
    kinds: Mapping[str, BlockKind]
    decoding: DecodePolicy
    storage_worker: Worker
    workers: Sequence[Worker]
    """The decode thread of a pipelined run; the compute threads of a shared one but the caller."""

    def load_now(self, number: int, job: StepJob) -> LoadedStep:
        """The bytes of a step, at the start of the ring; waits for them.

        Raises:
            What the loader raises; StorageError too where a read does not return.
        """
        held = self.loader.held(job)
        if held is not None:
            return held
        return self.storage_worker.do(lambda: self.loader.load(number, job, lambda _: self.ring))

    def task(self, step: LoadedStep, buffer: int) -> DecodeTask:
        """To decode a step into the working buffer of this number."""
        kind = self.kinds[step.job.group.kind]
        return DecodeTask(step.job, step.data, self.buffers[buffer], kind)


def run_sequential(
    jobs: Sequence[StepJob],
    resources: RunResources,
    work: Computation,
    recorder: Recorder,
) -> int:
    """Read, decode and compute one step after the other: the caller's thread, which waits while
    the storage lane's reads.

    Returns:
        The bytes read from storage.
    """
    bytes_read = 0
    work.begin()
    for number, job in enumerate(jobs):
        step = resources.load_now(number, job)
        bytes_read += step.bytes_read
        decode_step(step, 0, resources, recorder)
        work.step(job, 0, 0, WHOLE)
        if job.connects:
            work.connect(job, 0)
    return bytes_read


def decode_step(step: LoadedStep, buffer: int, resources: RunResources, recorder: Recorder) -> None:
    """Decode a step into a working buffer, which nobody else uses; note what was left out of it.

    Raises:
        PackCorruptError: it is damaged, and the plan may not be changed, or not so far.
    """
    task = resources.task(step, buffer)
    start = perf_counter()
    if step.late is not None:
        recorder.leave_out(step.late)
    if decode(task, resources.decoding) is not None:
        downgrade = decode_again(task, resources.decoding)
        if downgrade is not None:
            recorder.leave_out(downgrade)
    recorder.add(DECODE, step.job.name, start, perf_counter())
