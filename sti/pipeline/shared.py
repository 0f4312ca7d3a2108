"""The shared executor: several threads decode and compute the steps of a block side by side.

    storage lane    ring slot free -> read step k -> hand its shares to whichever threads are free
    compute thread  decode the share's shards -> all shares decoded, the block before is connected
                    -> compute the share's tokens -> after the last share of a block: connect

A step has one share where its block has slice groups enough for all threads; else its tokens are
shared out. A thread that finds no more shares of a block takes one of the next, and decodes it
meanwhile. So decoded weights are in the cache of a core that multiplies them, and no thread has to
be woken for a part of a product. The caller's thread is one of the threads. A failure on one breaks
the channels of the others; the caller sees the first error once all have stopped. Bit-identical to
``run_sequential``: tokens do not affect one another but through keys and values, which every share
computes for itself, and the partial sums of a block are added in an order that does not depend on
who computed them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from time import perf_counter

from sti.device.lanes import DECODE, lane_of
from sti.pipeline.decoding import decode, decode_again
from sti.pipeline.executor import Computation, RunResources
from sti.pipeline.loading import LoadedStep
from sti.pipeline.ring_buffer import Ring
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Channel, Latch, Stopped, wait_for_all
from sti.planning.downgrade import Downgrade
from sti.planning.lane_threads import Share, shares_of
from sti.planning.step_jobs import StepJob


def run_shared(
    jobs: Sequence[StepJob],
    resources: RunResources,
    work: Computation,
    recorder: Recorder,
    *,
    read_ahead: int,
) -> int:
    """As ``run_sequential``, on the caller's thread and all ``resources.workers``.

    Returns:
        The bytes read from storage.

    Raises:
        The error of the first step that has one, or what interrupted the caller, after all
        threads have stopped.
    """
    threads = _Threads(jobs, resources, work, recorder, read_ahead)
    ended: list[Latch] = []
    try:
        threads.start(ended)
        work.begin()
        threads.begun()
        threads.compute(0)
    except BaseException as error:
        threads.stop(error)
    finally:
        wait_for_all(ended, threads.stop)
    threads.end()
    return threads.bytes_read


class _Step:
    """A step on its way: what is left to do of it. Changed under the lock of the run."""

    def __init__(self, number: int, job: StepJob, block: int, shares: tuple[Share, ...]) -> None:
        self.number, self.job, self.block, self.shares = number, job, block, shares
        self.loaded: LoadedStep | None = None
        """Its bytes, once they are read."""
        self.buffer: int | None = None
        """Number of its working buffer, once a thread has begun with it."""
        self.undecoded = self.uncomputed = len(shares)
        self.faulty = False
        """Whether a share found a fault."""
        self.released = False
        """Whether its bytes are needed no longer."""
        self.downgrade: Downgrade | None = None
        self.decoded = Latch()
        """Opens when all shares are decoded."""


class _Threads:
    """The channels of one shared run, and what its threads do."""

    def __init__(
        self,
        jobs: Sequence[StepJob],
        resources: RunResources,
        work: Computation,
        recorder: Recorder,
        read_ahead: int,
    ) -> None:
        self._resources, self._work, self._recorder = resources, work, recorder
        self.bytes_read = 0
        self._ring = Ring(resources.ring, most=read_ahead + 1)
        reading = resources.storage_worker
        self._loaded: Channel[tuple[_Step, Share] | None] = Channel(reading.check)
        self._lock = threading.Lock()
        self._steps: list[_Step] = []
        self._uncomputed: list[int] = []
        """Of each block, the shares that are still to be computed."""
        threads = 1 + len(resources.workers)
        for _, block in groupby(jobs, key=lambda job: (job.group.layer, job.group.kind)):
            together = list(block)
            shares = shares_of(len(together), threads)
            for job in together:
                step = _Step(len(self._steps), job, len(self._uncomputed), shares)
                self._steps.append(step)
            self._uncomputed.append(len(together) * len(shares))
        self._ready = [Latch() for _ in range(len(self._uncomputed) + 1)]
        """Of each block, opened when the one before is connected."""
        self._free = list(range(len(resources.buffers)))
        self._kept = 0
        """The first step whose slot of the ring was not given back yet."""
        self._errors: list[tuple[int, BaseException]] = []
        """What went wrong, each once, with the number of its step; -1 for none."""

    def start(self, ended: list[Latch]) -> None:
        """Set the other threads going; ``ended`` gets the latches that tell they are done."""
        ended.append(self._resources.storage_worker.submit(self._store))
        for number, worker in enumerate(self._resources.workers, start=1):
            ended.append(worker.submit(partial(self._help, number)))

    def begun(self) -> None:
        """Let the first block be computed."""
        self._ready[0].open()

    def end(self) -> None:
        """Note what was left out, in the order of the steps.

        Raises:
            The error of the first step that has one, whoever was sooner to find it.
        """
        if self._errors:
            raise min(self._errors, key=lambda item: item[0])[1]
        for step in self._steps:
            late = None if step.loaded is None else step.loaded.late
            for downgrade in (late, step.downgrade):
                if downgrade is not None:
                    self._recorder.leave_out(downgrade)

    def stop(self, error: BaseException, number: int = -1) -> None:
        """Break every channel, so that all threads end.

        Args:
            error: a thread's own, or one that reached it through a channel.
            number: of the step that it was working on.
        """
        known = [found for _, found in self._errors]
        if not isinstance(error, Stopped) and all(found is not error for found in known):
            self._errors.append((number, error))
        stopped = error if isinstance(error, Exception) else Stopped()
        self._ring.fail(stopped)
        self._loaded.fail(stopped)
        for latch in (*self._ready, *(step.decoded for step in self._steps)):
            latch.fail(stopped)

    def compute(self, thread: int) -> None:
        """Decode and compute shares of steps until there are none left."""
        while (loaded := self._loaded.get()) is not None:
            step, share = loaded
            try:
                self._compute(step, share, thread)
            except Exception as error:
                self.stop(error, step.number)
                raise

    def _compute(self, step: _Step, share: Share, thread: int) -> None:
        buffer = self._decode(step, share, thread)
        step.decoded.wait()
        self._ready[step.block].wait()
        self._work.step(step.job, buffer, thread, share)
        if self._was_last(step):
            self._work.connect(step.job, thread)
            self._ready[step.block + 1].open()

    def _help(self, thread: int) -> None:
        try:
            self.compute(thread)
        except BaseException as error:
            self.stop(error)

    def _store(self) -> None:
        try:
            for step in self._steps:
                loaded = self._resources.loader.load(step.number, step.job, self._ring.take)
                step.loaded = loaded
                self.bytes_read += loaded.bytes_read
                for share in step.shares:
                    self._loaded.put((step, share))
            for _ in range(1 + len(self._resources.workers)):
                self._loaded.put(None)
        except BaseException as error:
            self.stop(error)

    def _decode(self, step: _Step, share: Share, thread: int) -> int:
        """Decode a share of a step; the number of the working buffer that the step is in."""
        with self._lock:
            if step.buffer is None:
                step.buffer = self._free.pop()  # a step under way has a thread to itself, or more
        assert step.loaded is not None
        task = self._resources.task(step.loaded, step.buffer)
        start = perf_counter()
        fault = decode(task, self._resources.decoding, share)
        with self._lock:
            step.faulty |= fault is not None
            step.undecoded -= 1
            last = step.undecoded == 0
        if last and step.faulty:
            # Nobody else writes to the buffer now. From the start, so that the fault found first is
            # the same however the shards were shared out.
            step.downgrade = decode_again(task, self._resources.decoding)
        self._recorder.add(lane_of(DECODE, thread), step.job.name, start, perf_counter())
        if last:
            self._give_back(step)
            step.decoded.open()
        return step.buffer

    def _give_back(self, step: _Step) -> None:
        """Give slots back in the order in which they were taken: the ring knows no other."""
        with self._lock:
            step.released = True
            while self._kept < len(self._steps) and self._steps[self._kept].released:
                loaded = self._steps[self._kept].loaded
                if loaded is not None and loaded.data.from_ring:
                    self._ring.give_back()
                self._kept += 1

    def _was_last(self, step: _Step) -> bool:
        """Note that a share of a step is computed; whether it was the last one of its block."""
        with self._lock:
            step.uncomputed -= 1
            if step.uncomputed == 0 and step.buffer is not None:
                self._free.append(step.buffer)
            self._uncomputed[step.block] -= 1
            return self._uncomputed[step.block] == 0
