"""The target that an engine aims at now: its plans, the preload buffer, and how it has been kept.

In: a target, and the result of each run. Out: the plan of the next run, what the preload buffer is
to hold, what the caller should know. Between runs it makes the plans of the next ones. Not
thread-safe.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sti.backend.onnxruntime.session import shrink_arena
from sti.device import host
from sti.engine.health import Health, HealthLog
from sti.engine.machine import Machine
from sti.engine.memory_budget import MemoryBudget, groups_of_texts
from sti.engine.options import EngineOptions
from sti.engine.plan_store import PlanStore
from sti.engine.plans_ahead import PlansAhead
from sti.engine.prepared import PreparedPlan, StepJobs
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, StiError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.planning.plan import Plan, PlanStep

if TYPE_CHECKING:
    from sti.engine.conditions import PlannedPlan
    from sti.engine.plan_maker import PlanMaker


class CurrentPlans:
    """The plans of the target an engine aims at now, and the preload buffer that follows them.

    Args:
        reader: the pack.
        machine: what it runs on.
        runner: has the preload buffer.
        options: how to run.
        budget: counts the engine's memory.
    """

    def __init__(
        self,
        reader: PackReader,
        machine: Machine,
        runner: Runner,
        options: EngineOptions,
        budget: MemoryBudget,
    ) -> None:
        self._reader, self._machine, self._runner = reader, machine, runner
        self._options, self._budget = options, budget
        self._held: tuple[PlanStep, ...] | None = None
        """Steps that the preload buffer is for."""
        self._ran: tuple[PlanStep, ...] | None = None
        """Steps of the last run."""
        self._lean: PlanStore | None = None
        """Plans without a preload, while memory is short."""
        self._refill: PreparedPlan | None = None
        """What the preload buffer is to hold once memory is not short any more."""
        self.lean = False
        """Whether runs are without a preload buffer because memory is short."""
        self._holding: PreparedPlan | None = None
        """What the preload buffer was asked to hold last."""
        self._store: PlanStore | None = None
        self._log: HealthLog | None = None
        self._jobs = StepJobs(reader)
        self._maker: PlanMaker | None = None
        self.ahead = PlansAhead()
        """Makes plans between runs; to be closed."""
        self._told: set[Workload] = set()
        """Workloads whose notice was told."""
        self._taken = 0
        """Bytes that the most demanding run took since memory was given back."""

    def aim(self, target: TargetSpec) -> Plan:
        """Plan for another target from now on; begins to fill the preload buffer.

        Returns:
            The plan to prepare for.

        Raises:
            InfeasibleError, PlanError, InputError: as ``PlanStore``; everything is as it was.
        """
        self.ahead.stop()
        store = self._store_of(target)
        prepared = store.opening()
        if store.limits.memory_bytes is not None and self._store is not None:
            self._trim()  # what runs took before may be more than the budget
        self._lean = self._refill = None
        self._store, self._log = store, HealthLog(store.limits)
        self._hold(prepared)
        self._told.clear()
        self._ran = None
        return prepared.plan

    def rehearse(self, target: TargetSpec) -> bool:
        """Make the plans of a target once, so that what that takes of memory is taken.

        Returns:
            Whether plans are going to follow the machine.

        Raises:
            InfeasibleError: there is no room for it. What else cannot be met is told by ``aim``.
        """
        self._budget.check_least(target)
        changing = False
        with suppress(StiError):
            store = self._store_of(target)
            changing = store.changes
            store.opening()
        gc.collect()
        host.trim_heap()
        return changing

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
        self._ran = self._holding = self._lean = None
        self._machine.forget_runs()
        self._trim()

    def give_preload_back(self) -> int:
        """Give back the preload buffer, and do without one until ``fill_again``. No run may be at
        work.

        Returns:
            The bytes that it held.
        """
        self.ahead.stop()
        held = self._runner.held_bytes
        self.lean = True
        holding = self._holding
        if self._held is not None and holding is not None and holding.plan.target.preload_bytes:
            self._refill, self._held = holding, None
            self._runner.release_preload()
        return held

    @property
    def refill_bytes(self) -> int:
        """Bytes that the preload buffer is to hold again when memory is not short any more."""
        return 0 if self._refill is None else sum(job.preload_bytes for job in self._refill.jobs)

    def fill_again(self) -> None:
        """Have a preload buffer again; it is filled in the background."""
        self.ahead.stop()
        refill, self._refill, self._lean, self.lean = self._refill, None, None, False
        if refill is not None:
            self._hold(refill)

    def forget_refill(self) -> None:
        """The preload buffer is filled for the next run, whenever that comes."""
        self._refill = None

    @property
    def target(self) -> TargetSpec:
        """What is aimed at."""
        return self._current.target

    def plan_for(self, *, batch: int, tokens: int, running: bool = False) -> PreparedPlan:
        """As ``PlanStore.plan_for``, for the current target."""
        if running:
            self.ahead.stop()
        if self.lean and self._current.changes and self._current.limits.preload_bytes:
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

    def is_held(self, prepared: PreparedPlan) -> bool:
        """Whether the preload buffer holds what a plan wants held."""
        plan = prepared.plan
        if not plan.target.preload_bytes or (plan.steps == self._held and self._runner.is_filled):
            return True
        return self._runner.holds(prepared.jobs)

    def make_room(self, prepared: PreparedPlan, lengths: Sequence[int]) -> PreparedPlan:
        """Let a run of texts with so many tokens keep the budget of memory, if there is one.

        What the preload buffer holds gives way to it; where it takes less than runs before, what
        those took is given back, so that the buffer can be filled again.

        Returns:
            The plan to run: the same, or the same on one thread.

        Raises:
            InfeasibleError: the texts take more than the budget.
        """
        limit = prepared.plan.target.memory_bytes
        if limit is None:
            return prepared
        groups = groups_of_texts(lengths)
        prepared = self._budget.fitting(prepared, groups)
        needed = self._budget.needed(prepared.plan, groups)
        wanted = sum(step.preload_bytes for step in prepared.plan.steps)
        if self._taken + wanted > limit >= needed + wanted:
            self._trim()
        self._taken = max(self._taken, needed)
        if self._runner.hold_at_most(limit - self._taken):
            self._held = None
            host.trim_heap()
        return prepared

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
        needed = self._budget.needed(plan, groups_of_texts(lengths))
        return needed + plan.target.preload_bytes <= self.target.memory_bytes

    def _trim(self) -> None:
        """Give back the memory of runs, and what is held."""
        self._runner.release()
        self._held, self._taken = None, 0
        shrink_arena()
        host.trim_heap()

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
        self._machine.note_run(result.workload)
        warning = self._log.note(result)
        return [] if warning is None else [warning]

    def health(self) -> Health:
        """How runs under the current target went."""
        assert self._log is not None, "nothing was aimed at"
        return self._log.health(replans=self._current.replans)

    def follow(self, prepared: PreparedPlan) -> None:
        """Let the preload buffer follow the plan of a run, if that changes anything.

        It follows what was run twice: refilled for each of texts of different lengths it would
        hold nothing for the next one.
        """
        steps = prepared.plan.steps
        again, self._ran = steps == self._ran, steps
        if again or self._held in (None, steps):
            self._hold(prepared)

    def _hold(self, prepared: PreparedPlan) -> None:
        plan = prepared.plan
        wanted = plan.target.preload_bytes or self._held is not None
        limit = plan.target.memory_bytes
        if limit is not None and self._taken + plan.target.preload_bytes > limit:
            return
        if self.lean and plan.target.preload_bytes:
            self._refill, self._held = prepared, None
            self._runner.release_preload()
        elif wanted and (plan.steps != self._held or self._runner.hold_failed):
            self._held, self._holding = plan.steps, prepared
            self._runner.hold(prepared.jobs, plan)

    def _lean_store(self) -> PlanStore:
        if self._lean is None:
            self._lean = self._store_of(_without_preload(self._current.target))
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

            self._maker = PlanMaker(self._reader, self._jobs, self._machine.notify)
        return self._maker

    @property
    def _current(self) -> PlanStore:
        assert self._store is not None, "nothing was aimed at"
        return self._store


def _without_preload(target: TargetSpec) -> TargetSpec:
    return TargetSpec(
        latency=target.latency,
        memory=target.memory,
        preload="0",
        quantile=target.quantile,
        floor=target.floor,
    )
