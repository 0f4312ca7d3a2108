"""Executing a plan: the sequential executor, and the pipelined one, bit-identical to it.

In: block jobs, compressed bytes (storage or preload), and a compute function per block. Effect:
calls that function for one block after the other, with the block's decoded weights. Neither
executor decides anything: order, fidelities and read-ahead are the plan's. Knows nothing of what a
block computes, or of texts.

    storage lane   ring slot free -> read block k -> hand to every decoder
    decode lane    block k read, a working buffer of its kind free -> its shards -> hand over
    compute lane   (the caller's thread) block k decoded -> compute(k) -> working buffer free

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
from sti.backend.block_bytes import BlockBytes, check_block
from sti.backend.interface import BlockDecoder, DecodeTask
from sti.backend.working_buffer import WorkingBuffer
from sti.device.lanes import DECODE, STORAGE
from sti.errors import PackCorruptError
from sti.pipeline.preload_buffer import Preload, load_block
from sti.pipeline.ring_buffer import Ring
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Channel, Stopped, Worker
from sti.planning.block_jobs import BlockJob
from sti.storage.reader import Reader

Begin = Callable[[], None]
"""Embeds the texts: what the compute lane does before the first block."""

Compute = Callable[[BlockJob, int], None]
"""Computes one block; its weights are in the working buffer of its kind with that number."""


class PipelineResources(NamedTuple):
    """What executors need of a machine and a pack; owned by the engine, one run at a time."""

    reader: Reader
    preload: Preload
    ring: ByteArray
    """Memory of the ring."""
    buffers: Mapping[str, Sequence[WorkingBuffer]]
    """The working buffers of each block kind."""
    decoders: Sequence[BlockDecoder]
    """One a decode thread."""
    storage_worker: Worker
    decode_workers: Sequence[Worker]
    where: str
    """Name of the pack, for messages."""
    verify: bool
    """Whether every piece is checked before it is decoded."""


def run_sequential(
    jobs: Sequence[BlockJob],
    resources: PipelineResources,
    begin: Begin,
    compute: Compute,
    recorder: Recorder,
) -> int:
    """Read, decode and compute one block after the other on the caller's thread.

    Returns:
        The bytes read from storage.
    """
    bytes_read = 0
    begin()
    for job, buffer in zip(jobs, _buffers(jobs, resources), strict=True):
        data, read = _load(job, resources, resources.ring, recorder)
        bytes_read += read
        out = resources.buffers[job.block.kind][buffer]
        _decode(DecodeTask(job, data, out), resources, recorder)
        compute(job, buffer)
    return bytes_read


def run_pipelined(
    jobs: Sequence[BlockJob],
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
            flow.release(job.block.kind)
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
        jobs: Sequence[BlockJob],
        resources: PipelineResources,
        recorder: Recorder,
        decode_threads: int,
        read_ahead: int,
    ) -> None:
        self.jobs, self.resources, self.recorder = jobs, resources, recorder
        self.parts = decode_threads
        self.bytes_read = 0
        self.ring = Ring(resources.ring, most=read_ahead + 1)
        self.loaded: list[Channel[BlockBytes]] = [Channel() for _ in range(decode_threads)]
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
                self.free_buffers[part][job.block.kind].get()
                out = self.resources.buffers[job.block.kind][buffer]
                task = DecodeTask(job, data, out, part, self.parts)
                _decode(task, self.resources, self.recorder)
                self.decoded[part].put(index)
                self._give_back(index, data)
        except BaseException as error:
            self.stop(error)

    def _give_back(self, index: int, data: BlockBytes) -> None:
        """Free the block's place in the ring once the last decoder is through with it."""
        with self._lock:
            self._unfinished[index] -= 1
            last = self._unfinished[index] == 0
        if last and data.from_ring:
            self.ring.give_back()


def _buffers(jobs: Sequence[BlockJob], resources: PipelineResources) -> list[int]:
    """The working buffer of each job, by its number in its kind: each kind's in turn."""
    taken = dict.fromkeys(resources.buffers, 0)
    numbers = []
    for job in jobs:
        kind = job.block.kind
        numbers.append(taken[kind] % len(resources.buffers[kind]))
        taken[kind] += 1
    return numbers


def _load(
    job: BlockJob, resources: PipelineResources, slot: ByteArray | None, recorder: Recorder
) -> tuple[BlockBytes, int]:
    """The block's bytes and how many of them were read; checked if asked for.

    ``slot`` may be None where the preload buffer holds the whole block.
    """
    data, read = resources.preload.whole(job), 0
    if data is None:
        assert slot is not None
        start = perf_counter()
        read = load_block(job, resources.preload, resources.reader, slot)
        data = BlockBytes(slot, job.slot_starts, from_ring=True)
        recorder.add(STORAGE, job.name, start, perf_counter())
    if resources.verify:
        check_block(job, data, where=resources.where)
    return data, read


def _decode(task: DecodeTask, resources: PipelineResources, recorder: Recorder) -> None:
    """Decode one thread's share of a block; says which block of which pack is damaged."""
    start = perf_counter()
    try:
        resources.decoders[task.part].decode(task)
    except PackCorruptError as error:
        block = task.job.block
        raise PackCorruptError(
            f"{resources.where}: layer {block.layer} {block.kind}: {error}; the pack is damaged, "
            "fetch it again (`sti-shard verify` names the slice)"
        ) from error
    recorder.add(DECODE, task.job.name, start, perf_counter())
