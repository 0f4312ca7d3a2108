"""What the storage lane reads into: the ring, and the preload buffer, which it fills between runs.

In: the jobs of a plan's steps, how much of them may be held. Effect: their leading bytes are held,
read in the background; given back where less is wanted, where they prove damaged, or where the
reading thread hangs. Knows nothing of decoding, computing or budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sti.arrays import ByteArray
from sti.errors import PackCorruptError, StorageError
from sti.pipeline.loading import Loader
from sti.pipeline.preload_buffer import Preload
from sti.pipeline.read_lane import ReadLane
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Latch
from sti.planning.downgrade import DAMAGED
from sti.planning.memory import ring_size
from sti.planning.plan import Plan
from sti.planning.step_jobs import StepJob
from sti.storage.byte_ranges import SECTOR
from sti.storage.reader import aligned_buffer

if TYPE_CHECKING:
    from sti.planning.deadlines import Watch


class Preloading:
    """The ring and the preload buffer of one storage lane.

    Used by one thread at a time, and no run may be at work, except for ``held_bytes``, ``holds``,
    ``is_filled``, ``is_filling`` and ``wait_held``.

    Args:
        lane: reads; stays the caller's, who leaves threads that hang by ``leave_stuck``.
    """

    def __init__(self, lane: ReadLane) -> None:
        self._lane = lane
        self._preload = Preload()
        self._filled = _opened()
        self._most_held = 0
        """Bytes that the preload buffer has at most while it is being filled."""
        self._unwanted = False
        """Whether what was held, or was to be, was given back since."""
        self.hold_failed = False
        """Whether what the last ``hold`` was to hold could not be read, or proved damaged."""
        self.ring: ByteArray = aligned_buffer(0)
        """Has room for the plan that ``make_room`` was asked for last."""

    @property
    def held_bytes(self) -> int:
        """Compressed bytes in the preload buffer."""
        return self._preload.held_bytes

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the ring and of the preload buffer."""
        return self.ring.nbytes + self._preload.held_bytes

    @property
    def is_filled(self) -> bool:
        """Whether the preload buffer holds what the last ``hold`` asked for."""
        return self._filled.is_open and not self.hold_failed and not self._unwanted

    @property
    def is_filling(self) -> bool:
        """Whether the preload buffer is being filled."""
        return not self._filled.is_open

    def holds(self, jobs: Sequence[StepJob]) -> bool:
        """Whether the preload buffer holds what ``jobs`` want held."""
        return all(self._preload.holds_leading(job) for job in jobs)

    def hold(self, jobs: Sequence[StepJob], plan: Plan, *, most: int | None = None) -> None:
        """Make the preload buffer hold what ``plan`` wants held, in the background.

        Args:
            jobs: of the plan's steps.
            most: bytes; steps beyond are left out.
        """
        self.make_room(jobs, plan)
        self._unwanted = False
        wanted = sum(job.preload_bytes for job in jobs)
        self._most_held = max(
            self._preload.held_bytes, wanted if most is None else min(wanted, most)
        )

        preload, reads, ring = self._preload, self._lane.reads, self.ring

        def fill() -> None:
            # A read that fails here fails again in the run that needs the bytes, and is told there.
            try:
                for job in preload.retain(jobs):
                    after = preload.held_bytes + job.preload_bytes
                    if self._unwanted or (most is not None and after > most):
                        break
                    preload.fill(job, reads, ring)
            except BaseException:  # an interrupt of the reader's own too: the thread goes on
                preload.retain(())
                failed = True
            else:
                failed = False
            if not reads.given_up:
                self.hold_failed = failed

        self._filled = self._lane.worker.submit(fill)

    def hold_at_most(self, size: int) -> bool:
        """Give back what the preload buffer holds beyond ``size`` bytes; whether there was any."""
        if (self._most_held if self.is_filling else self._preload.held_bytes) <= size:
            return False
        self.await_filled()
        if self._preload.held_bytes <= size:
            return False
        self._preload.drop(size)
        self._unwanted = True
        return True

    def wait_held(self, timeout_s: float | None) -> bool:
        """Wait until the last ``hold`` is through; False if it fails, takes longer than asked, or
        was given back since.
        """
        try:
            return self._filled.wait(timeout_s) and self.is_filled
        except StorageError:
            return False

    def await_filled(self) -> None:
        """Wait until whatever fills the preload buffer has ended; go on without it if it hangs."""
        try:
            self._filled.wait()
        except StorageError:
            self.leave_stuck()
            self.hold_failed = True

    def make_room(self, jobs: Sequence[StepJob], plan: Plan) -> None:
        """Grow the ring to the plan's steps; within a budget, shrink it."""
        size = ring_size(plan, [job.slot_bytes for job in jobs])
        limited = plan.target.memory_bytes is not None
        if self.ring.size < size or (limited and self.ring.size - size >= SECTOR):
            self.await_filled()
            self.ring = aligned_buffer(size)

    def loader(self, recorder: Recorder, watch: Watch | None) -> Loader:
        """Where the steps of one run come from."""
        return Loader(self._lane.reads, self._preload, recorder, watch)

    @contextmanager
    def trusting(self, recorder: Recorder) -> Iterator[None]:
        """While a run is at work, in its thread: what is held is read again where the run finds it
        damaged, as storage may be sound by now.
        """
        try:
            yield
        except PackCorruptError:
            self.hold_failed |= self._preload.held_bytes > 0
            self._preload.retain(())
            raise
        for item in recorder.downgrades:
            if item.reason == DAMAGED:
                self.hold_failed |= self._preload.forget(item.layer, item.kind, item.group)

    def leave_stuck(self) -> None:
        """Leave a thread that hangs in a read to itself, with the memory that it reads into."""
        if self._lane.leave_stuck():
            self._preload, self.ring = Preload(), aligned_buffer(0)
            self._filled = _opened()

    def release_held(self) -> None:
        """Give back the preload buffer alone, until the next ``hold``."""
        self._unwanted = True  # a fill ends with the group that it reads
        self.await_filled()
        self._preload.retain(())

    def release(self) -> None:
        """Give back the preload buffer and the ring."""
        if self._preload.held_bytes or not self._filled.is_open:
            self.release_held()
        self.ring = aligned_buffer(0)

    def close(self) -> None:
        """Give back the memory, once the lane's thread has ended. Idempotent."""
        self._preload.retain(())
        self.ring = aligned_buffer(0)


def _opened() -> Latch:
    latch = Latch()
    latch.open()
    return latch
