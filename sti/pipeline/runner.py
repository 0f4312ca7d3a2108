"""Running a plan on tokens: the memory and threads of the lanes, kept between runs.

In: prepared step jobs and encoded texts. Out: the head's answer for each text, the bytes read and
a trace. Owns the ring, the preload buffer, the threads and the back end (which owns the working
buffers); decides nothing. One run at a time: the engine ensures it. Independent of any
compute library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.backend.interface import Backend, BlocksGraph
from sti.device.lanes import SEQUENTIAL, LaneThreads
from sti.errors import ClosedError, PackCorruptError, RunError, StorageError
from sti.pack.pack_reader import PackReader
from sti.pipeline.batch_work import BatchWork
from sti.pipeline.bound_threads import BoundThreads
from sti.pipeline.decoding import DecodePolicy
from sti.pipeline.executor import RunResources, run_sequential
from sti.pipeline.loading import Loader
from sti.pipeline.pipelined import run_pipelined
from sti.pipeline.preload_buffer import Preload
from sti.pipeline.read_lane import ReadLane
from sti.pipeline.run_waits import RunWaits
from sti.pipeline.shared import run_shared
from sti.pipeline.token_embeddings import Embedder
from sti.pipeline.trace import Recorder, Trace
from sti.pipeline.watches import Watches
from sti.pipeline.workers import Latch, Worker
from sti.planning.downgrade import AS_PLANNED, DAMAGED, Adapt
from sti.planning.memory import ring_size
from sti.planning.plan import Plan
from sti.planning.step_jobs import StepJob
from sti.storage.byte_ranges import SECTOR
from sti.storage.file_reader import FileReader
from sti.storage.reader import Reader, aligned_buffer
from sti.storage.watched_reader import READ_TIMEOUT_S
from sti.text.encoding import Encoding

Mode = Literal["planned", "sequential"]
"""On the threads of the plan, or on the caller's alone."""


class Outcome(NamedTuple):
    """What a run gave: one array per text (see ``SentenceState.finish``), and what it cost."""

    outputs: tuple[Float32Array, ...]
    bytes_read: int
    trace: Trace


class Runner:
    """The lanes of one engine.

    Args:
        pack: the opened pack; must stay open.
        backend: computes it; in no other use during a run, and closed with the runner.
        check: compare everything that is read with its checksum; only benchmarks go without.
        storage: what slice groups and token embeddings are read from; the pack's own file by
            default.
        timeout_s: how long a read may take; after it the run fails, and others go on without the
            thread that hangs in it and the memory that it reads into.
        ending: opened when the interpreter ends: a run that is at work stops at its next step.
    """

    def __init__(
        self,
        pack: PackReader,
        backend: Backend,
        *,
        check: bool = True,
        storage: Reader | None = None,
        timeout_s: float = READ_TIMEOUT_S,
        ending: Latch | None = None,
    ) -> None:
        self._pack = pack
        self._ending = ending
        self._backend = backend
        self._check = check
        if storage is None:
            storage = FileReader(pack.path, descriptor=pack.descriptor)
        self._storage, where = storage, str(pack.path)
        self._lane = ReadLane("sti-storage", storage, timeout_s, where=where)
        self._row_lane = ReadLane("sti-rows", storage, timeout_s, where=where)
        self._preload = Preload()
        self._ring: ByteArray = aligned_buffer(0)
        self._filled = _opened()
        self._workers: list[Worker] = []
        self._embedder = Embedder(
            pack.manifest.embeddings, self._read_rows, backend, where=str(pack.path), check=check
        )
        self._bound = BoundThreads()
        self._watches = Watches(pack.manifest)
        self._most_held = 0
        """Bytes that the preload buffer has at most while it is being filled."""
        self.hold_failed = False
        """Whether what the last ``hold`` was to hold could not be read, or proved damaged."""
        self._unwanted = False
        """Whether what was held, or was to be, was given back since."""

    @property
    def direct(self) -> bool:
        """Whether slice groups are read past the page cache."""
        return self._storage.direct

    @property
    def held_bytes(self) -> int:
        """Compressed bytes in the preload buffer."""
        return self._preload.held_bytes

    def hold(self, jobs: Sequence[StepJob], plan: Plan, *, most: int | None = None) -> None:
        """Make the preload buffer hold what ``plan`` wants held, in the background.

        Args:
            jobs: of the plan's steps.
            most: bytes; steps beyond are left out.
        """
        self._make_room(jobs, plan)
        self._unwanted = False
        wanted = sum(job.preload_bytes for job in jobs)
        self._most_held = max(
            self._preload.held_bytes, wanted if most is None else min(wanted, most)
        )

        preload, reads, ring = self._preload, self._lane.reads, self._ring

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

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the ring and of the preload buffer."""
        return self._ring.nbytes + self._preload.held_bytes

    def hold_at_most(self, size: int) -> bool:
        """Give back what the preload buffer holds beyond ``size`` bytes; whether there was any.

        No run may be at work.
        """
        if (self._most_held if self.is_filling else self._preload.held_bytes) <= size:
            return False
        self._await_filled()
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

    def run(
        self,
        jobs: Sequence[StepJob],
        plan: Plan,
        encodings: Sequence[Encoding],
        *,
        mode: Mode,
        recorder: Recorder,
        adapt: Adapt = AS_PLANNED,
    ) -> Outcome:
        """Run one batch through the plan's steps.

        Args:
            adapt: which planes may be left out; the trace lists those that were. None is for its
                lateness where the plan has no prediction, or the run is not on its threads.

        Raises:
            PackCorruptError: the pack is damaged.
            StorageError, BackendError: storage or computation failed.
            RunError: the plan computes on more threads than the back end has lanes, or a thread
                cannot be started.
        """
        with self._leaving_stuck():
            return self._run(jobs, plan, encodings, mode, recorder, adapt)

    def _run(
        self,
        jobs: Sequence[StepJob],
        plan: Plan,
        encodings: Sequence[Encoding],
        mode: Mode,
        recorder: Recorder,
        adapt: Adapt,
    ) -> Outcome:
        threads = SEQUENTIAL if mode == "sequential" else plan.threads
        if threads.compute > self._backend.lanes:
            raise RunError(
                f"the plan computes on {threads.compute} threads, the back end on "
                f"{self._backend.lanes}; open the engine with as many"
            )
        self._make_room(jobs, plan)
        watch = self._watches.of(plan, threads, adapt)
        loader = Loader(self._lane.reads, self._preload, recorder, watch)
        resources = self._resources(threads, loader, damaged=adapt.damaged)
        work = BatchWork(encodings, self._embedder, recorder, watch, self._go_on)
        bound = False
        with (
            self._trusting(recorder),
            RunWaits(threads, self._lane.worker, resources.workers) as waits,
        ):
            if threads == SEQUENTIAL:
                self._await_filled()  # whoever fills must not touch the preload buffer meanwhile
                read = run_sequential(jobs, resources, work.computation, recorder)
            else:
                execute = run_pipelined if threads.decode else run_shared
                with self._bound.of_lanes(threads, self._lane.worker, self._workers) as bound:
                    read = execute(
                        jobs, resources, work.computation, recorder, read_ahead=plan.read_ahead
                    )
            answers = work.finish()
            trace = recorder.trace(threads, waits.so_far())
        if bound:
            self._bound.learn(trace.waited_share)
        return Outcome(answers, read + work.row_bytes, trace)

    @contextmanager
    def _trusting(self, recorder: Recorder) -> Iterator[None]:
        """What is held is read again where a run finds it damaged: storage may be sound by now."""
        try:
            yield
        except PackCorruptError:
            self.hold_failed |= self._preload.held_bytes > 0
            self._preload.retain(())
            raise
        for item in recorder.downgrades:
            if item.reason == DAMAGED:
                self.hold_failed |= self._preload.forget(item.layer, item.kind, item.group)

    def run_graph(
        self, graph: BlocksGraph, encodings: Sequence[Encoding], *, recorder: Recorder
    ) -> Outcome:
        """Run one batch through a graph of all steps of a plan: nothing but embeddings is read.

        The answers equal those of ``run`` with the plan, to the bit. In the trace each group of
        sentences has one span, ``BLOCKS``; its threads are the caller's and those of the graph.

        Raises:
            PackCorruptError: the pack is damaged.
            StorageError, BackendError: storage or computation failed.
            GraphError: a file of the graph was changed meanwhile; no answer came of it.
        """
        work = BatchWork(encodings, self._embedder, recorder, None, self._go_on)
        helper = graph.helper
        with (
            self._leaving_stuck(),
            RunWaits(SEQUENTIAL, self._lane.worker, (), helper) as waits,
        ):
            with self._bound.of_graph(helper) as bound:
                work.run_blocks(graph)
            answers = work.finish()
            threads = LaneThreads(0, 0, graph.threads)
            trace = recorder.trace(threads, waits.so_far())
        if bound:
            self._bound.learn(trace.waited_share)
        return Outcome(answers, work.row_bytes, trace)

    def release(self) -> None:
        """Give back the memory of the preload buffer, the ring and the back end; what the next run
        needs is made anew. No run may be at work.
        """
        if self._preload.held_bytes or not self._filled.is_open:
            self.release_preload()
        self._ring = aligned_buffer(0)
        self._watches.forget()
        self._embedder.close()
        self._backend.close()

    def release_states(self) -> None:
        """Give back the memory of token embeddings and hidden states. No run may be at work."""
        self._embedder.close()
        self._backend.release_states()

    def release_preload(self) -> None:
        """Give back the preload buffer alone, until the next ``hold``. No run may be at work."""
        self._unwanted = True  # a fill ends with the group that it reads
        self._await_filled()
        self._preload.retain(())

    def close(self) -> None:
        """End the threads, give back descriptors and memory. Idempotent."""
        for thread in (self._lane.worker, self._row_lane.worker, *self._workers):
            thread.close()
        self._storage.close()
        self._preload.retain(())
        self._ring = aligned_buffer(0)
        self._embedder.close()
        self._backend.close()

    def close_descriptors(self) -> None:
        """Give back descriptors alone: in a forked child, whose parent has the threads."""
        self._storage.close()

    def _go_on(self) -> None:
        """Asked before each step.

        Raises:
            ClosedError: the interpreter ends.
        """
        if self._ending is not None and self._ending.is_open:
            raise ClosedError(f"{self._pack.path}: a run was stopped, as Python ends")

    def _make_room(self, jobs: Sequence[StepJob], plan: Plan) -> None:
        """Grow the ring to the plan's steps; within a budget, shrink it. No lane may be at work."""
        size = ring_size(plan, [job.slot_bytes for job in jobs])
        limited = plan.target.memory_bytes is not None
        if self._ring.size < size or (limited and self._ring.size - size >= SECTOR):
            self._await_filled()
            self._ring = aligned_buffer(size)

    def _read_rows(self, rows: Int64Array, out: ByteArray) -> None:
        reads, base = self._row_lane.reads, self._pack.embeddings_offset
        self._row_lane.worker.do(lambda: reads.read_rows(base, rows, out))

    def _await_filled(self) -> None:
        """Wait until whatever fills the preload buffer has ended; go on without it if it hangs."""
        try:
            self._filled.wait()
        except StorageError:
            self._leave_stuck()
            self.hold_failed = True

    @contextmanager
    def _leaving_stuck(self) -> Iterator[None]:
        """While a run is at work: before and after it, leave threads that hang.

        Raises:
            StorageError: too many do.
        """
        self._leave_stuck()
        self._lane.check_left()
        self._row_lane.check_left()
        try:
            yield
        finally:
            self._leave_stuck()

    def _leave_stuck(self) -> None:
        """Leave threads that hang in a read to themselves, with the memory that they read into."""
        if self._lane.leave_stuck():
            self._preload, self._ring = Preload(), aligned_buffer(0)
            self._filled = _opened()
        if self._row_lane.leave_stuck():
            self._embedder.close()

    def _resources(self, threads: LaneThreads, loader: Loader, *, damaged: bool) -> RunResources:
        """What the executors work with, workers for these threads included."""
        count = threads.decode + threads.compute - 1
        for number in range(len(self._workers), count):
            self._workers.append(Worker(f"sti-worker-{number + 1}"))
        backend, where = self._backend, str(self._pack.path)
        return RunResources(
            loader=loader,
            ring=self._ring,
            buffers=[backend.buffer(number) for number in range(threads.buffers)],
            kinds={kind.name: kind for kind in self._pack.manifest.kinds},
            decoding=DecodePolicy(backend.decoder, where, check=self._check, adapt=damaged),
            storage_worker=self._lane.worker,
            workers=self._workers[:count],
        )


def _opened() -> Latch:
    latch = Latch()
    latch.open()
    return latch
