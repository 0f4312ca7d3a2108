"""The pipelined executor: storage, decode and compute lane, with a thread each.

    storage lane   ring slot free -> read step k -> hand it to the decode lane
    decode lane    step k read, a working buffer free -> decode it -> hand it over
    compute lane   (the caller's thread) step k decoded -> compute it -> working buffer free

A failure on one lane breaks the channels of the others; the caller sees the first error once all
lanes have stopped. Bit-identical to ``run_sequential``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.pipeline.executor import Computation, RunResources, decode_step
from sti.pipeline.loading import LoadedStep
from sti.pipeline.ring_buffer import Ring
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Channel, Latch, Stopped, wait_for_all
from sti.planning.lane_threads import WHOLE
from sti.planning.step_jobs import StepJob


def run_pipelined(
    jobs: Sequence[StepJob],
    resources: RunResources,
    work: Computation,
    recorder: Recorder,
    *,
    read_ahead: int,
) -> int:
    """As ``run_sequential``, with the three lanes at work at the same time.

    Returns:
        The bytes read from storage.

    Raises:
        The first error of any lane, after all lanes have stopped.
    """
    lanes = _Lanes(jobs, resources, recorder, read_ahead)
    ended: list[Latch] = []
    try:
        lanes.start(ended)
        work.begin()
        for index, job in enumerate(jobs):
            lanes.decoded.get()
            work.step(job, index % len(resources.buffers), 0, WHOLE)
            lanes.free.put(None)
            if job.connects:
                work.connect(job, 0)
    except BaseException as error:
        lanes.stop(error)
    finally:
        wait_for_all(ended, lanes.stop)
    if lanes.error is not None:
        raise lanes.error
    return lanes.bytes_read


class _Lanes:
    """The channels of one pipelined run, and the two lanes that run beside the caller."""

    def __init__(
        self,
        jobs: Sequence[StepJob],
        resources: RunResources,
        recorder: Recorder,
        read_ahead: int,
    ) -> None:
        self._jobs, self._resources, self._recorder = jobs, resources, recorder
        self.bytes_read = 0
        self.error: BaseException | None = None
        """What ended the run, if anything did."""
        self._ring = Ring(resources.ring, most=read_ahead + 1)
        self._loaded: Channel[LoadedStep] = Channel()
        self.decoded: Channel[None] = Channel(resources.storage_worker.check)
        self.free: Channel[None] = Channel()
        """Working buffers that may be written again, the one that was used longest ago first."""
        for _ in resources.buffers:
            self.free.put(None)

    def start(self, ended: list[Latch]) -> None:
        """Set storage and decode lane going; ``ended`` gets the latches that tell they are done."""
        ended.append(self._resources.storage_worker.submit(self._store))
        ended.append(self._resources.workers[0].submit(self._decode))

    def stop(self, error: BaseException) -> None:
        """Break every channel, so that all lanes end."""
        self.error = self.error or error
        stopped = error if isinstance(error, Exception) else Stopped()
        self._ring.fail(stopped)
        for channel in (self._loaded, self.decoded, self.free):
            channel.fail(stopped)

    def _store(self) -> None:
        try:
            for number, job in enumerate(self._jobs):
                step = self._resources.loader.load(number, job, self._ring.take)
                self.bytes_read += step.bytes_read
                self._loaded.put(step)
        except BaseException as error:
            self.stop(error)

    def _decode(self) -> None:
        try:
            for index in range(len(self._jobs)):
                step = self._loaded.get()
                self.free.get()
                buffer = index % len(self._resources.buffers)
                decode_step(step, buffer, self._resources, self._recorder)
                self.decoded.put(None)
                if step.data.from_ring:
                    self._ring.give_back()
        except BaseException as error:
            self.stop(error)
