"""Executing a plan: the sequential executor, and the pipelined one, bit-identical to it.

In: step jobs, compressed bytes (storage or preload), and a compute function per step. Effect:
calls that function for one step after the other, with the step's decoded weights. Neither executor
decides anything: order, fidelities and read-ahead are the plan's, and what is damaged is left to
``sti.pipeline.decoding``. Knows nothing of what a step computes, or of texts.

    storage lane   ring slot free -> read step k -> hand to every decoder
    decode lane    step k read, a working buffer of its kind free -> its shards -> hand over
    compute lane   (the caller's thread) step k decoded -> compute(k) -> working buffer free

A failure on one lane breaks the channels of the others; the caller sees the first error once all
lanes have released the buffers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import NamedTuple

from sti.arrays import ByteArray
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.pieces import Fault
from sti.device.lanes import DECODE, STORAGE
from sti.pipeline.decoding import DecodePolicy, DecodeTask, decode, decode_less
from sti.pipeline.preload_buffer import Preload, StepBytes, load_step
from sti.pipeline.ring_buffer import Ring
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Channel, Stopped, Worker
from sti.planning.step_jobs import StepJob
from sti.storage.reader import Reader

Begin = Callable[[], None]
"""Embeds the texts: what the compute lane does before the first step."""

Compute = Callable[[StepJob, int], None]
"""Computes one step; its weights are in the working buffer of its kind with that number."""


class PipelineResources(NamedTuple):
    """What executors need of a machine and a pack; owned by the engine, one run at a time."""

    reader: Reader
    preload: Preload
    ring: ByteArray
    """Memory of the ring."""
    buffers: Mapping[str, Sequence[WorkingBuffer]]
    """The working buffers of each block kind."""
    decoding: DecodePolicy
    storage_worker: Worker
    decode_workers: Sequence[Worker]


def run_sequential(
    jobs: Sequence[StepJob],
    resources: PipelineResources,
    begin: Begin,
    compute: Compute,
    recorder: Recorder,
) -> int:
    """Read, decode and compute one step after the other on the caller's thread.

    Returns:
        The bytes read from storage.
    """
    bytes_read = 0
    begin()
    for job, buffer in zip(jobs, _buffers(jobs, resources), strict=True):
        data, read = _load(job, resources, resources.ring, recorder)
        bytes_read += read
        task = DecodeTask(job, data, resources.buffers[job.group.kind][buffer])
        start = perf_counter()
        fault = decode(task, resources.decoding)
        if fault is not None:
            recorder.leave_out(decode_less(task, resources.decoding, fault))
        recorder.add(DECODE, job.name, start, perf_counter())
        compute(job, buffer)
    return bytes_read


def run_pipelined(
    jobs: Sequence[StepJob],
    resources: PipelineResources,
    begin: Begin,
    compute: Compute,
    recorder: Recorder,
    *,
    decode_threads: int,
    read_ahead: int,
) -> int:
    """As ``run_sequential``, with the three lanes at work at the same time.

    Returns:
        The bytes read from storage.

    Raises:
        The first error of any lane, after all lanes have stopped.
    """
    flow = _Flow(jobs, resources, recorder, decode_threads, read_ahead)
    ended: list[threading.Event] = []
    try:
        flow.start(ended)
        begin()
        for job, buffer in zip(jobs, flow.buffers, strict=True):
            for done in flow.decoded:
                done.get()
            compute(job, buffer)
            flow.release(job.group.kind)
    except BaseException as error:
        flow.stop(error)
        raise
    finally:
        for event in ended:
            event.wait()
    return flow.bytes_read


class _Flow:
    """The channels of one pipelined run, and the two lanes that run beside the caller."""

    def __init__(
        self,
        jobs: Sequence[StepJob],
        resources: PipelineResources,
        recorder: Recorder,
        decode_threads: int,
        read_ahead: int,
    ) -> None:
        self.jobs, self.resources, self.recorder = jobs, resources, recorder
        self.parts = decode_threads
        self.bytes_read = 0
        self.ring = Ring(resources.ring, most=read_ahead + 1)
        self.loaded: list[Channel[StepBytes]] = [Channel() for _ in range(decode_threads)]
        self.decoded: list[Channel[int]] = [Channel() for _ in range(decode_threads)]
        self.free_buffers: list[dict[str, Channel[None]]] = [
            {kind: Channel() for kind in resources.buffers} for _ in range(decode_threads)
        ]
        self.buffers = _buffers(jobs, resources)
        for kind, buffers in resources.buffers.items():
            for _ in buffers:
                self.release(kind)
        self._lock = threading.Lock()
        self._unfinished = [decode_threads] * len(jobs)
        self._faulty: set[int] = set()

    def start(self, ended: list[threading.Event]) -> None:
        """Set storage and decode lanes going; ``ended`` gets the events that tell they are done."""
        ended.append(self.resources.storage_worker.submit(self._store))
        for part in range(self.parts):
            worker = self.resources.decode_workers[part]
            ended.append(worker.submit(partial(self._decode, part)))

    def release(self, kind: str) -> None:
        """Tell every decoder that the oldest working buffer of ``kind`` may be written again."""
        for channels in self.free_buffers:
            channels[kind].put(None)

    def stop(self, error: BaseException) -> None:
        """Break every channel, so that all lanes end."""
        stopped = error if isinstance(error, Exception) else Stopped()
        self.ring.fail(stopped)
        for part in range(self.parts):
            self.loaded[part].fail(stopped)
            self.decoded[part].fail(stopped)
            for channel in self.free_buffers[part].values():
                channel.fail(stopped)

    def _store(self) -> None:
        try:
            for job in self.jobs:
                held = self.resources.preload.holds(job)
                slot = None if held else self.ring.take(job.slot_bytes)
                data, read = _load(job, self.resources, slot, self.recorder)
                self.bytes_read += read
                for channel in self.loaded:
                    channel.put(data)
        except BaseException as error:
            self.stop(error)

    def _decode(self, part: int) -> None:
        try:
            for index, (job, buffer) in enumerate(zip(self.jobs, self.buffers, strict=True)):
                data = self.loaded[part].get()
                self.free_buffers[part][job.group.kind].get()
                task = DecodeTask(job, data, self.resources.buffers[job.group.kind][buffer])
                start = perf_counter()
                fault = decode(task, self.resources.decoding, first=part, stride=self.parts)
                last = self._finish(index, fault)
                if last and index in self._faulty:
                    # All shares are through: nobody else writes to the buffer. From the start, so
                    # that the fault found first is the same however shards were shared out.
                    fault = decode(task, self.resources.decoding)
                if last and fault is not None:
                    self.recorder.leave_out(decode_less(task, self.resources.decoding, fault))
                self.recorder.add(DECODE, job.name, start, perf_counter())
                self.decoded[part].put(index)
                if last and data.from_ring:
                    self.ring.give_back()
        except BaseException as error:
            self.stop(error)

    def _finish(self, index: int, fault: Fault | None) -> bool:
        """Note that one decoder is through with a step; whether it was the last one."""
        with self._lock:
            if fault is not None:
                self._faulty.add(index)
            self._unfinished[index] -= 1
            return self._unfinished[index] == 0


def _buffers(jobs: Sequence[StepJob], resources: PipelineResources) -> list[int]:
    """The working buffer of each job, by its number in its kind: each kind's in turn."""
    taken = dict.fromkeys(resources.buffers, 0)
    numbers = []
    for job in jobs:
        kind = job.group.kind
        numbers.append(taken[kind] % len(resources.buffers[kind]))
        taken[kind] += 1
    return numbers


def _load(
    job: StepJob, resources: PipelineResources, slot: ByteArray | None, recorder: Recorder
) -> tuple[StepBytes, int]:
    """The step's bytes and how many of them were read.

    ``slot`` may be None where the preload buffer holds the whole step.
    """
    data = resources.preload.whole(job)
    if data is not None:
        return data, 0
    assert slot is not None
    start = perf_counter()
    read = load_step(job, resources.preload, resources.reader, slot)
    recorder.add(STORAGE, job.name, start, perf_counter())
    return StepBytes(slot, job.slot_starts, from_ring=True), read
