"""Bringing a step's bytes together: what is preloaded, what is read, and what would come too late.

In: a step's job, the preload buffer, storage, room in the ring; the run's deadline, if it may leave
out late planes. Out: the step's bytes, and the job that they are enough for. Here alone a run that
is late becomes less than its plan. Knows nothing of threads or decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from sti.arrays import ByteArray
from sti.device.lanes import STORAGE
from sti.pipeline.preload_buffer import Preload, StepBytes, missing_reads
from sti.pipeline.trace import Recorder
from sti.planning.downgrade import LATE, Downgrade
from sti.planning.step_jobs import StepJob
from sti.storage.reader import Reader

if TYPE_CHECKING:
    from sti.planning.deadlines import Watch


class LoadedStep(NamedTuple):
    """A step that can be decoded."""

    job: StepJob
    """With the planes that are there."""
    data: StepBytes
    bytes_read: int
    """From storage."""
    late: Downgrade | None = None
    """What was left out because it would have come too late."""


class Loader(NamedTuple):
    """Where the steps of one run come from."""

    reader: Reader
    preload: Preload
    recorder: Recorder
    watch: Watch | None = None
    """Tells what would come too late; None where everything is waited for."""

    def held(self, job: StepJob) -> LoadedStep | None:
        """The bytes of a step, if all of them are preloaded."""
        data = self.preload.whole(job)
        return None if data is None else LoadedStep(job, data, 0)

    def load(self, number: int, job: StepJob, room: Callable[[int], ByteArray]) -> LoadedStep:
        """The bytes of a step.

        Args:
            number: of the step in the plan.
            job: all that the plan reads of it.
            room: gives memory for so many bytes; it is not asked where all of them are preloaded.

        Raises:
            What the reader raises.
        """
        held = self.held(job)
        if held is not None:
            return held
        slot = room(job.slot_bytes)
        start = perf_counter()
        wanted, read = self._read(number, job, slot, start)
        end = perf_counter()
        self.recorder.add(STORAGE, job.name, start, end)
        if self.watch is not None:
            self.watch.has_read(number, len(wanted.plane_ends), end - start)
        data = StepBytes(slot, wanted.slot_starts, from_ring=True)
        return LoadedStep(wanted, data, read, _left_out(job, wanted))

    def _read(self, number: int, job: StepJob, slot: ByteArray, now: float) -> tuple[StepJob, int]:
        """The job of what is worth reading, and the bytes read for it."""
        watch = self.watch
        if watch is not None:
            job = job.lowered(watch.planes(number, now))
        read, held = 0, self.preload.copy_into(job, slot)
        for part, item, place in missing_reads(job, held):
            if read and watch is not None:
                have = sum(end <= job.ranges[part].offset for end in job.plane_ends)
                if have and watch.planes(number, perf_counter(), have=have) <= have:
                    return job.lowered(have), read
            self.reader.read(item, slot[place : place + item.length])
            read += item.length
        return job, read


def _left_out(job: StepJob, wanted: StepJob) -> Downgrade | None:
    planes = len(wanted.plane_ends)
    if planes == len(job.plane_ends):
        return None
    group = job.group
    return Downgrade(group.layer, group.kind, group.number, group.planes[planes].bits, None, LATE)
