"""Running a plan on tokens: the memory and threads of the lanes, kept between runs.

In: prepared step jobs and encoded texts. Out: the head's answer for each text, the bytes read and
a trace. Owns the ring and the preload buffer, the threads and the back end (which owns the working
buffers); decides nothing. One run at a time: the engine ensures it. Independent of any
compute library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple, TypeVar

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.backend.interface import Backend, BlocksGraph
from sti.device.lanes import SEQUENTIAL, LaneThreads
from sti.errors import ClosedError, RunError
from sti.pack.pack_reader import PackReader
from sti.pipeline.batch_work import BatchWork
from sti.pipeline.bound_threads import BoundThreads
from sti.pipeline.decoding import DecodePolicy
from sti.pipeline.executor import RunResources, run_sequential
from sti.pipeline.loading import Loader
from sti.pipeline.pipelined import run_pipelined
from sti.pipeline.preloading import Preloading
from sti.pipeline.read_lane import ReadLane
from sti.pipeline.run_waits import RunWaits
from sti.pipeline.shared import run_shared
from sti.pipeline.sources import HiddenSource, HiddenStates, Source, TextSource, by_text
from sti.pipeline.token_embeddings import Embedder
from sti.pipeline.trace import Recorder, Trace
from sti.pipeline.watches import Watches
from sti.pipeline.workers import Latch, Worker, check_process
from sti.planning.downgrade import AS_PLANNED, Adapt
from sti.planning.plan import Plan
from sti.planning.stages import Stage
from sti.planning.step_jobs import StepJob
from sti.storage.file_reader import FileReader
from sti.storage.reader import Reader
from sti.storage.watched_reader import READ_TIMEOUT_S
from sti.text.encoding import Encoding

T = TypeVar("T")

READERS = ("sti-storage", "sti-rows")
"""Names of the threads that only read: slice groups, and token embeddings."""
Mode = Literal["planned", "sequential"]
"""On the threads of the plan, or on the caller's alone."""


class Outcome(NamedTuple):
    """What a run gave: one array per text (see ``SentenceState.finish``), and what it cost."""

    outputs: tuple[Float32Array, ...]
    bytes_read: int
    trace: Trace
    stages: tuple[Stage, ...] = ()
    """Which layers ran on which device; none where this machine ran all of them."""


class StageOutcome(NamedTuple):
    """What a stage of a chain gave, and what it cost."""

    found: tuple[Float32Array, ...] | HiddenStates
    """Of each group of sentences the head's answer, ``[B, ...]``, where the stage is the last one;
    else the hidden states behind it."""
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
        ending: opened when the engine is to be closed amid a run, which stops at its next step.
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
        self._ending, self._process = ending, os.getpid()
        self._backend = backend
        self._check = check
        if storage is None:
            storage = FileReader(pack.path, descriptor=pack.descriptor)
        self._storage, where = storage, str(pack.path)
        self._lane = ReadLane(READERS[0], storage, timeout_s, where=where)
        self._row_lane = ReadLane(READERS[1], storage, timeout_s, where=where)
        self.preloading = Preloading(self._lane)
        """What the storage lane reads into, held between runs."""
        self._workers: list[Worker] = []
        self._embedder = Embedder(
            pack.manifest.embeddings, self._read_rows, backend, where=str(pack.path), check=check
        )
        self._bound = BoundThreads()
        self._watches = Watches(pack.manifest)

    @property
    def direct(self) -> bool:
        """Whether slice groups are read past the page cache."""
        return self._storage.direct

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
        source = TextSource(encodings, self._embedder)
        with self._leaving_stuck():
            answers, read, trace = self._run(
                jobs, plan, source, mode, recorder, adapt, _answers, self._go_on
            )
        return Outcome(by_text(source.groups, answers), read + source.row_bytes, trace)

    def run_stage(
        self,
        jobs: Sequence[StepJob],
        plan: Plan,
        start: Sequence[Encoding] | Callable[[], HiddenStates],
        *,
        last: bool,
        recorder: Recorder,
        go_on: Callable[[], None] = lambda: None,
    ) -> StageOutcome:
        """Run the part of a plan that is this device's: some consecutive layers.

        Args:
            jobs: of the steps of these layers.
            plan: of these steps alone.
            start: texts, for the first layers; else what waits for the hidden states before them,
                while storage is read already. What it raises ends the run.
            last: whether these are the last layers, and the head is to answer.
            go_on: called before each step that the caller's thread computes; what it raises ends
                the run.

        Raises:
            As ``run``.
        """
        caller = threading.get_ident()
        source: Source = (
            HiddenSource(start, self._backend)
            if callable(start)
            else TextSource(start, self._embedder)
        )

        def may_go_on() -> None:
            self._go_on()
            if threading.get_ident() == caller:
                go_on()

        def finish(work: BatchWork) -> tuple[Float32Array, ...] | HiddenStates:
            return work.answers() if last else HiddenStates.of(work.states, source.lengths)

        with self._leaving_stuck():
            found, read, trace = self._run(
                jobs, plan, source, "planned", recorder, AS_PLANNED, finish, may_go_on
            )
        return StageOutcome(found, read + source.row_bytes, trace)

    def _run(
        self,
        jobs: Sequence[StepJob],
        plan: Plan,
        source: Source,
        mode: Mode,
        recorder: Recorder,
        adapt: Adapt,
        finish: Callable[[BatchWork], T],
        go_on: Callable[[], None],
    ) -> tuple[T, int, Trace]:
        """What ``finish`` makes of the batch once it is through the steps, bytes read of groups,
        and the trace.
        """
        threads = SEQUENTIAL if mode == "sequential" else plan.threads
        if threads.compute > self._backend.lanes:
            raise RunError(
                f"the plan computes on {threads.compute} threads, the back end on "
                f"{self._backend.lanes}; open the engine with as many"
            )
        self.preloading.make_room(jobs, plan)
        watch = self._watches.of(plan, threads, adapt)
        loader = self.preloading.loader(recorder, watch)
        resources = self._resources(threads, loader, damaged=adapt.damaged)
        work = BatchWork(source, recorder, watch, go_on)
        bound = False
        with (
            self.preloading.trusting(recorder),
            RunWaits(threads, self._lane.worker, resources.workers) as waits,
        ):
            if threads == SEQUENTIAL:
                # Whoever fills must not touch the preload buffer meanwhile.
                self.preloading.await_filled()
                read = run_sequential(jobs, resources, work.computation, recorder)
            else:
                execute = run_pipelined if threads.decode else run_shared
                with self._bound.of_lanes(threads, self._lane.worker, self._workers) as bound:
                    read = execute(
                        jobs, resources, work.computation, recorder, read_ahead=plan.read_ahead
                    )
            found = finish(work)
            trace = recorder.trace(threads, waits.so_far())
        if bound:
            self._bound.learn(trace.waited_share)
        return found, read, trace

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
        source = TextSource(encodings, self._embedder)
        work = BatchWork(source, recorder, None, self._go_on)
        helper = graph.helper
        with (
            self._leaving_stuck(),
            RunWaits(SEQUENTIAL, self._lane.worker, (), helper) as waits,
        ):
            with self._bound.of_graph(helper) as bound:
                work.run_blocks(graph)
            answers = work.answers()
            threads = LaneThreads(0, 0, graph.threads)
            trace = recorder.trace(threads, waits.so_far())
        if bound:
            self._bound.learn(trace.waited_share)
        return Outcome(by_text(source.groups, answers), source.row_bytes, trace)

    def release(self) -> None:
        """Give back the memory of the preload buffer, the ring and the back end; what the next run
        needs is made anew. No run may be at work.
        """
        self.preloading.release()
        self._watches.forget()
        self._embedder.close()
        self._backend.close()

    def release_states(self) -> None:
        """Give back the memory of token embeddings and hidden states. No run may be at work."""
        self._embedder.close()
        self._backend.release_states()

    def close(self) -> None:
        """End the threads, give back descriptors and memory. Idempotent."""
        threads = self._threads()
        with ExitStack() as last:  # all of them, whatever interrupts one
            last.callback(self._backend.close)
            last.callback(self._embedder.close)
            last.callback(self.preloading.close)
            last.callback(self._storage.close)
            for thread in threads:
                last.callback(thread.close)
            for thread in threads:
                thread.end()

    def is_own_thread(self) -> bool:
        """Whether one of the runner's threads asks."""
        return any(thread.is_current for thread in self._threads())

    def _threads(self) -> list[Worker]:
        return [self._lane.worker, self._row_lane.worker, *self._workers]

    def close_descriptors(self) -> None:
        """Give back descriptors alone: in a forked child, whose parent has the threads."""
        self._storage.close()

    def _go_on(self) -> None:
        """Asked before each step.

        Raises:
            ClosedError: the engine is being closed.
            RunError: this is a forked child, which the threads did not come along to.
        """
        check_process(self._process)
        if self._ending is not None and self._ending.is_open:
            raise ClosedError(f"{self._pack.path}: a run was stopped, as the engine was closed")

    def _read_rows(self, rows: Int64Array, out: ByteArray) -> None:
        reads, base = self._row_lane.reads, self._pack.embeddings_offset
        self._row_lane.worker.do(lambda: reads.read_rows(base, rows, out))

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
        self.preloading.leave_stuck()
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
            ring=self.preloading.ring,
            buffers=[backend.buffer(number) for number in range(threads.buffers)],
            kinds={kind.name: kind for kind in self._pack.manifest.kinds},
            decoding=DecodePolicy(backend.decoder, where, check=self._check, adapt=damaged),
            storage_worker=self._lane.worker,
            workers=self._workers[:count],
        )


def _answers(work: BatchWork) -> tuple[Float32Array, ...]:
    return work.answers()
