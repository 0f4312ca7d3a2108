"""The target that an engine aims at now: its plans, the preload buffer, and how it has been kept.

In: a target, and the result of each run. Out: the plan of the next run, what the preload buffer is
to hold, what the caller should know. Between runs it makes the plans of the next ones. Not
thread-safe.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sti.device import host
from sti.engine.health import Health, HealthLog
from sti.engine.held_weights import HeldWeights
from sti.engine.machine import Machine
from sti.engine.memory_budget import MemoryBudget, groups_of_texts
from sti.engine.options import EngineOptions
from sti.engine.plan_store import PlanStore
from sti.engine.plans_ahead import PlansAhead
from sti.engine.prepared import PreparedPlan, StepJobs
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, InputError, PlanError
from sti.model.workload import Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan

if TYPE_CHECKING:
    from sti.engine.conditions import PlannedPlan
    from sti.engine.held_graph import HeldGraph
    from sti.engine.plan_maker import PlanMaker


_AMPLE = "1000GB"
"""More than any plan takes."""

_NOTHING_HELD = TargetSpec(preload="0")


class CurrentPlans:
    """The plans of the target an engine aims at now, and the preload buffer that follows them.

    Args:
        reader: the pack.
        machine: what it runs on.
        options: how to run.
        budget: counts the engine's memory.
        held: what is held between runs.
    """

    def __init__(
        self,
        reader: PackReader,
        machine: Machine,
        options: EngineOptions,
        budget: MemoryBudget,
        held: HeldWeights,
    ) -> None:
        self._reader, self._machine = reader, machine
        self._options, self._budget, self.held = options, budget, held
        self._lean: PlanStore | None = None
        """Plans without a preload, while memory is short."""
        self._store: PlanStore | None = None
        self._log: HealthLog | None = None
        self._jobs = StepJobs(reader)
        self._maker: PlanMaker | None = None
        self.ahead = PlansAhead()
        """Makes plans between runs; to be closed."""
        self._told: set[Workload] = set()
        """Workloads whose notice was told."""

    def aim(self, target: TargetSpec, make_graph: Callable[[], HeldGraph | None]) -> Plan:
        """Plan for another target from now on; begins to fill the preload buffer.

        Args:
            make_graph: makes what holds a plan as a graph, where there is room for one; None where
                there can be none.

        Returns:
            The plan to prepare for.

        Raises:
            InfeasibleError, PlanError, InputError: as ``PlanStore``; everything is as it was.
        """
        self.ahead.stop()
        store = self._store_of(target)
        prepared = store.opening()
        if store.limits.memory_bytes is not None:
            host.map_large_memory()
            gc.collect()
            host.trim_heap()  # of the plans that were compared
        again, self._lean = self._store is not None, None
        self._store, self._log = store, HealthLog(store.limits)
        graph = store.as_graph()
        if graph is not None and self.held.graph is None:
            self.held.graph = make_graph()
            self._budget.note_loaded()
        self.held.aim(prepared, graph, again=again)
        self._told.clear()
        return prepared.plan

    def rehearse(self, target: TargetSpec) -> None:
        """Make the plans of a target once, so that what that takes of memory is taken.

        Its budget does not count: ``aim`` tells what cannot be met, and knows the least then.

        Raises:
            RunError, ProfileError: the machine cannot be measured, or staircases cannot be made.
        """
        ample = target.overridden(TargetSpec(memory=_AMPLE))
        with suppress(PlanError, InputError):
            self._store_of(ample).opening()
        gc.collect()
        host.trim_heap()

    def make_ahead(self, last: Workload | None = None, due_s: float | None = None) -> None:
        """Make the plans of runs that may be next.

        Args:
            last: what ran last.
            due_s: by this time of ``perf_counter``, on this thread; None: on another one, until a
                run begins.
        """
        jobs = (self._lean or self._current).ahead(last)
        if due_s is None:
            self.ahead.between_runs(jobs)
        else:
            self.ahead.before(due_s, jobs)

    def release(self) -> None:
        """Give back all memory that the next run can make anew. No run may be at work."""
        self.ahead.settle()
        self._current.forget()
        self._lean = None
        self._machine.forget_runs()
        self.held.release()

    @property
    def refill_bytes(self) -> int:
        """As ``HeldWeights.refill_bytes``."""
        return self.held.refill_bytes

    def give_preload_back(self) -> int:
        """As ``HeldWeights.give_preload_back``; plans are for no preload until ``fill_again``."""
        self.ahead.stop()
        return self.held.give_preload_back()

    def fill_again(self) -> None:
        """As ``HeldWeights.fill_again``."""
        self.ahead.stop()
        self._lean = None
        self.held.fill_again()

    @property
    def target(self) -> TargetSpec:
        """What is aimed at."""
        return self._current.target

    def plan_for(self, *, batch: int, tokens: int, running: bool = False) -> PreparedPlan:
        """As ``PlanStore.plan_for``, for the current target."""
        if running:
            self.ahead.stop()
            graph = self.held.graph
            if graph is not None and not self.held.is_lean:
                workload = bucket(batch, tokens, most=self._reader.manifest.dimensions.max_tokens)
                found = graph.plan_for(workload, self._current.limits)
                if found is not None:
                    return found
        if self.held.is_lean and self._current.changes and self._current.limits.preload_bytes:
            try:
                with self._machine.as_known():
                    lean = self._lean_store()
                    return lean.plan_for(batch=batch, tokens=tokens, running=running)
            except InfeasibleError:
                # A run that only a preload buffer makes feasible is late without one, and says so.
                if batch > 1 and not running:
                    raise
        return self._current.plan_for(batch=batch, tokens=tokens, running=running)

    def planned(self, *, batch: int, tokens: int, target: TargetSpec | None = None) -> PlannedPlan:
        """As ``PlanStore.planned``.

        Args:
            target: instead of the current one, which stays. Its plan is the one that an engine
                would have that was opened with it, except that nothing is measured again.
        """
        if target is None:
            return self._current.planned(batch=batch, tokens=tokens)
        with self._machine.as_known():
            store = self._store_of(target)
            store.opening()  # plans where something is preloaded depend on the opening one
            return store.planned(batch=batch, tokens=tokens)

    def told_of(self, prepared: PreparedPlan) -> list[str]:
        """What the caller should know of a plan, once for each workload."""
        workload = prepared.plan.workload
        if prepared.notice is None or workload in self._told:
            return []
        self._told.add(workload)
        return [prepared.notice]

    def has_room(self, lengths: Sequence[int]) -> bool:
        """Whether the budget of memory, if there is one, has room for a batch of texts with so many
        tokens without giving up what is held; it has for a text alone.
        """
        if self.target.memory_bytes is None or len(lengths) < 2:
            return True
        mean = -(-sum(lengths) // len(lengths))
        try:
            plan = self.plan_for(batch=len(lengths), tokens=mean).plan
        except InfeasibleError:
            return False
        groups, graph = groups_of_texts(lengths), self.held.graph
        if graph is not None and graph.size:
            needed = self._budget.needed(plan, groups, as_graph=True) + graph.size
        else:
            needed = self._budget.needed(plan, groups) + plan.target.preload_bytes
        return needed <= self.target.memory_bytes

    def learn(
        self, prepared: PreparedPlan, result: Result, run_s: float, *, held: bool
    ) -> list[str]:
        """Take note of how a run went.

        Args:
            run_s: what it took, without what came before it.
            held: as ``is_held``, when it began.

        Returns:
            What the caller should know: that the target is missed too often.
        """
        assert self._log is not None, "nothing was aimed at"
        speeds = self._machine.known
        if prepared.basis is not None and speeds is not None:
            speeds.learn(prepared.plan, prepared.basis, result, run_s, held=held)
        if prepared.graph is not None and self.held.graph is not None:
            self.held.graph.note(prepared.plan.workload, run_s)
        self._machine.note_run(result.workload)
        warning = self._log.note(result)
        return [] if warning is None else [warning]

    def health(self) -> Health:
        """How runs under the current target went."""
        assert self._log is not None, "nothing was aimed at"
        return self._log.health(replans=self._current.replans)

    def _lean_store(self) -> PlanStore:
        if self._lean is None:
            self._lean = self._store_of(self._current.target.overridden(_NOTHING_HELD))
        return self._lean

    def _store_of(self, target: TargetSpec) -> PlanStore:
        return PlanStore(
            self._reader,
            target,
            self._machine,
            self._options,
            self._jobs,
            self._plan_maker,
            self._budget,
        )

    def _plan_maker(self) -> PlanMaker:
        if self._maker is None:
            from sti.engine.plan_maker import PlanMaker  # plans that stay need no prices

            self._maker = PlanMaker(
                self._reader,
                self._jobs,
                self._machine.notify,
                lambda: self._machine.is_measured_apart,
            )
        return self._maker

    @property
    def _current(self) -> PlanStore:
        assert self._store is not None, "nothing was aimed at"
        return self._store
