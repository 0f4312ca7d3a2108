"""The parts of an engine, and what they do together.

In: an open pack, a target, options, texts. Out: ``Result``. Owns the back end, the lanes, the plans
and the tokenizer, from opening to closing. Texts are checked in ``inputs``, plans chosen and held
in ``current_plans``, batches answered in ``batch_runner``; who may call, and when it ends, is in
``lifetime``; what runs is in ``sti.pipeline``.
"""

from __future__ import annotations

import math
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from sti.backend.interface import Backend
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import best_threads
from sti.device.at_exit import OPEN
from sti.engine.batch_runner import Arrival, BatchRunner
from sti.engine.current_plans import CurrentPlans
from sti.engine.health import Health
from sti.engine.held_weights import HeldWeights
from sti.engine.history_log import history_log
from sti.engine.inputs import Batch, check_room, check_texts
from sti.engine.lifetime import Lifetime
from sti.engine.machine import Machine
from sti.engine.memory_budget import MemoryBudget, more_than_there_is
from sti.engine.memory_watch import MemoryWatch
from sti.engine.options import EngineOptions
from sti.engine.plans_ahead import PlansAhead
from sti.engine.prepared import StepJobs
from sti.engine.prompts import PromptingTokenizer
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import InputError
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.runner import Mode, Runner
from sti.planning.plan import Plan
from sti.text.encoding import Encoding, Text

if TYPE_CHECKING:
    from sti.engine.device_options import DeviceOptions
    from sti.engine.held_graph import HeldGraph
    from sti.engine.several_devices import SeveralDevices
    from sti.planning.strategies import Strategy

T = TypeVar("T")

_AT_ONCE_S = 3e-3
"""A caller who comes back within less leaves no time to make plans between runs."""


class EngineCore:
    """The parts of one engine. Thread-safe where ``use`` says so; in a forked child it can only be
    closed. Closed when the interpreter ends.

    Args:
        reader: the open pack; closed with the core.
        target: what to aim at.
        options: how to run.

    Raises:
        InfeasibleError: the target cannot be met; says which limit, and by how much.
        PackError, PlanError: the pack, which must be a whole one, or a pinned plan cannot be used.
        ClosedError: the interpreter ends.
    """

    def __init__(self, reader: PackReader, target: TargetSpec, options: EngineOptions) -> None:
        self.reader, self.options = reader, options
        self._life = Lifetime(str(reader.path))
        self._life.closers.append(reader.close)
        self._life.closers_in_child.append(reader.close)
        with self._life.lock:  # whoever ends the interpreter waits until it is open
            try:
                OPEN.add(self._life)
                self._open(reader, target, options)
            except BaseException:
                self.close()
                raise

    def _open(self, reader: PackReader, target: TargetSpec, options: EngineOptions) -> None:
        reader.check_whole()
        options.check_task(reader.manifest.task, where=str(reader.path))
        if options.verify:
            from sti.pack.verify import verify_content  # rarely asked for

            verify_content(reader)
        self.threads = options.threads or best_threads(reader)
        """Compute threads."""
        self._returned_s = -math.inf
        """When the last run was through, as ``perf_counter`` tells."""
        backend = OrtBackend(reader, lanes=self.threads)
        self._saturates = backend.saturates
        reader.check_graphs(backend.forms, masked=False)
        self.machine = Machine(reader, backend, options, threads=self.threads)
        wrap = options.wrap_backend
        self.runner = Runner(
            reader,
            backend if wrap is None else wrap(backend),
            check=options.check,
            storage=options.storage,
            timeout_s=options.read_timeout_s,
            ending=self._life.ending,
        )
        self._life.closers.append(self.runner.close)
        self._life.closers_in_child.append(self.runner.close_descriptors)
        self._life.is_own_thread = self.runner.is_own_thread
        self.budget = MemoryBudget(
            reader,
            options.before_bytes,
            self.machine,
            changing=options.may_differ(reader.manifest.task),
        )
        """What the engine takes."""
        self.held = HeldWeights(self.runner, self.budget)
        """What is held between runs."""
        self._life.closers.append(self.held.close)
        self.plans = CurrentPlans(reader, self.machine, options, self.budget, self.held)
        self._life.closers.append(self.plans.ahead.close)
        self._history = history_log(reader, options)
        if self._history is not None:
            self._life.closers.insert(0, self._history.close)
        self.devices = None if options.devices is None else self._open_devices(options.devices)
        """Other devices that runs may use."""
        self._batches = BatchRunner(
            reader, self.runner, self.plans, options, self._history, self.devices
        )
        self.watch = MemoryWatch(
            self.plans, self._life.lock, options.notify, wanted=options.yield_memory
        )
        self._life.closers += [self.watch.close, self.machine.save]
        self._life.release = _releasing(self.held, self.plans, self.watch)
        self._forgotten = weakref.finalize(
            self,
            _end_forgotten,
            self.runner,
            self.held,
            self.plans.ahead,
            self.watch,
            reader.path,
            os.getpid(),
        )
        self._forgotten.atexit = False
        self._life.closers.append(self._forgotten.detach)
        self._life.closers_in_child.append(self._forgotten.detach)
        self._make_ready(target, backend)

    def _make_ready(self, target: TargetSpec, backend: Backend) -> None:
        """Plan for the target, and make what every run needs."""
        reader = self.reader
        self.watch.before_run()  # what would be given back at once is not filled
        if target.memory_bytes is None:
            # First what lets the preload buffer fill while sessions and tokenizer are made.
            opening = self.aim(target)
            backend.prepare({step.variant for step in opening.steps})
            self._tokenizer = PromptingTokenizer(pack_tokenizer(reader))
            self.budget.measure(held_bytes=self.runner.preloading.buffer_bytes)
        else:
            # First what the budget has no choice about.
            backend.prepare(backend.variants)
            self._tokenizer = PromptingTokenizer(pack_tokenizer(reader))
            self.plans.rehearse(target)
            self.budget.measure()
            opening = self.aim(target)
        self.plans.make_ahead()
        if self.devices is not None:
            usual = opening.workload
            self.devices.make_ready(self.plans.plan_for(batch=usual.batch, tokens=usual.tokens))
        if opening.target.preload_bytes:
            self.watch.took_memory()

    def _open_devices(self, devices: DeviceOptions) -> SeveralDevices:
        from sti.engine.open_devices import open_devices  # most engines have none

        jobs = StepJobs(self.reader)
        found = open_devices(
            devices, self.reader, self.runner, self.machine, jobs.of, notify=self.options.notify
        )
        self._life.closers.append(found.close)
        return found

    def _held_graph(self) -> HeldGraph | None:
        """What may hold a plan as a graph, for an engine that computes as this machine does, from
        the pack's own file.
        """
        from sti.engine.held_graph import HeldGraph  # few targets limit memory
        from sti.engine.plan_graphs import PlanGraphs

        options = self.options
        if options.storage is not None or options.wrap_backend is not None or not options.check:
            return None
        notify = options.notify
        graphs = PlanGraphs(
            self.reader, threads=self.threads, saturates=self._saturates, notify=notify
        )
        return HeldGraph(
            graphs, self.reader.manifest, self.machine, self._life.lock, self.held.make_way, notify
        )

    def aim(self, target: TargetSpec) -> Plan:
        """Plan for another target from now on; tell where it asks for more than there is.

        Returns:
            The plan to prepare for.

        Raises:
            InfeasibleError, PlanError, InputError: as ``CurrentPlans.aim``.
        """
        with self._life.lock:
            plan = self.plans.aim(target, self._held_graph)
        for line in more_than_there_is(plan, self.reader.manifest):
            self.options.notify(line)
        return plan

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._life.closed

    def close(self) -> None:
        """End the threads and give back memory and descriptors; as ``Lifetime.close``."""
        self._life.close()

    def release(self) -> None:
        """Give back all memory that the next run can make anew; as ``Engine.release``."""
        self._life.ask_to_release()

    def use(self, work: Callable[[], T]) -> T:
        """Do something with the engine, one call at a time; as ``Lifetime.use``."""
        return self._life.use(work)

    def check_idle_here(self) -> None:
        """Refuse who may not call now; as ``Lifetime.check_idle_here``."""
        self._life.check_idle_here()

    def tokenize(self, texts: Sequence[Text], prompt: str) -> list[Encoding]:
        """Check and encode texts; ``Engine.tokenize`` says what is raised."""
        check_texts(texts, pairs=self.reader.manifest.takes_pairs)
        return self.use(lambda: self._tokenizer.encode(texts, prompt))

    def encode(self, text: Text, prompt: str) -> Encoding:
        """The tokens of a text that was checked, behind a prompt."""
        return self.use(lambda: self._tokenizer.encode((text,), prompt)[0])

    def run(self, texts: Sequence[Text], mode: Mode, prompt: str) -> Result:
        """Answer texts as one batch; as ``Engine.run`` where there is no latency."""

        def work() -> Result:
            arrived = perf_counter()
            check_texts(texts, pairs=self.reader.manifest.takes_pairs)
            batch = Batch(texts, self._tokenizer.encode(texts, prompt), prompt)
            return self._answer(batch, mode, arrived, perf_counter())

        return self.use(work)

    def answer(self, batch: Batch, mode: Mode, *, tokenize_s: float, plan_s: float = 0.0) -> Result:
        """Answer a batch, and make what is left of the time ready for the next one.

        Args:
            tokenize_s, plan_s: seconds that were spent on the batch before, which count.
        """
        tokenized = perf_counter() - plan_s
        return self.use(lambda: self._answer(batch, mode, tokenized - tokenize_s, tokenized))

    def _answer(self, batch: Batch, mode: Mode, arrived: float, tokenized: float) -> Result:
        self.watch.before_run()
        check_room(batch, self.reader.manifest.dimensions.hidden)
        result = self._batches.answer(batch, mode, Arrival(arrived, tokenized))
        due = self._batches.due(result.plan, arrived)
        at_once = arrived - self._returned_s < _AT_ONCE_S
        self.plans.make_ahead(result.workload, due if at_once else None)
        self.watch.took_memory()
        self._returned_s = perf_counter()
        return result

    def set_target(self, target: TargetSpec) -> None:
        """As ``Engine.set_target``."""

        def work() -> None:
            self.aim(target)
            self.plans.make_ahead()
            self.watch.took_memory()

        self.use(work)

    def strategies(self, *, batch: int, tokens: int) -> tuple[list[Strategy], Strategy]:
        """As ``Engine.strategies``; the engine's call."""
        devices = self._several()
        prepared = self.plans.plan_for(batch=batch, tokens=tokens)
        return devices.strategies(prepared, texts=batch, tokens=tokens)

    def set_strategy(self, strategy: str) -> None:
        """As ``Engine.set_strategy``."""
        self._several().set_strategy(strategy)

    def _several(self) -> SeveralDevices:
        if self.devices is None:
            raise InputError(
                "there are no other devices; name them (`devices`, --devices) when opening"
            )
        return self.devices

    def health(self) -> Health:
        """How runs under the current target went."""
        return self.use(
            lambda: replace(
                self.plans.health(), memory_short=self.watch.short, memory_yields=self.watch.yields
            )
        )


def _releasing(held: HeldWeights, plans: CurrentPlans, watch: MemoryWatch) -> Callable[[], None]:
    """What gives back all memory that the next run can make anew."""

    def release() -> None:
        held.forget_refill()
        plans.release()
        watch.released()

    return release


def _end_forgotten(
    runner: Runner,
    held: HeldWeights,
    ahead: PlansAhead,
    watch: MemoryWatch,
    path: Path,
    process: int,
) -> None:
    """End an engine that was dropped without being closed, in the process that opened it or not."""
    if os.getpid() != process:
        runner.close_descriptors()
        return
    warnings.warn(f"{path}: an engine was not closed", ResourceWarning, stacklevel=2)
    with ExitStack() as last:
        last.callback(runner.close)
        last.callback(ahead.close)
        last.callback(watch.close)
        last.callback(held.close)
