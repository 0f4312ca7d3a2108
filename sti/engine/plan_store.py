"""The plans of one target, with the jobs of their steps.

In: what the caller asked for (``TargetSpec``), the pack, the machine. Out: plans and their step
jobs, from one of three sources: plans that change with the machine (``elastic_plans``), plans that
stay (``fixed_plans``), or the one that was given. Every target gets a ``PlanStore`` of its own, so
that an infeasible one leaves the engine unchanged. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sti.device.memory_limit import check_memory
from sti.engine.fixed_plans import ComparableMaker, FixedPlans, PinnedPlan, UniformMaker
from sti.engine.machine import Machine
from sti.engine.memory_budget import MemoryBudget
from sti.engine.options import EngineOptions
from sti.engine.plan_source import Source
from sti.engine.prepared import PreparedPlan, StepJobs
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, InputError
from sti.model.workload import TOKEN_BUCKETS, Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import Target

if TYPE_CHECKING:
    from sti.engine.conditions import PlannedPlan
    from sti.engine.memory_plans import MemoryPlans
    from sti.engine.plan_maker import PlanMaker

_OPENING_TOKENS = 32


class PlanStore:
    """The plans for one target.

    Args:
        reader: the pack.
        target: what the caller asked for.
        machine: what it is to run on.
        options: whether plans may differ with the length of texts.
        jobs: makes those of plans' steps.
        maker: gives what makes plans that change.
        budget: counts the engine's memory.

    Raises:
        InfeasibleError: the preload buffer is larger than memory allows.
        InputError: a floor is asked for, and the pack does not state its quality.
        PlanError: a pinned plan cannot be read or does not fit the pack.
    """

    def __init__(
        self,
        reader: PackReader,
        target: TargetSpec,
        machine: Machine,
        options: EngineOptions,
        jobs: StepJobs,
        maker: Callable[[], PlanMaker],
        budget: MemoryBudget,
    ) -> None:
        self.target = target
        """What the caller asked for."""
        self._reader, self._machine, self._budget = reader, machine, budget
        self.limits = target.limits()
        """What it comes to."""
        _check_preload(self.limits.preload_bytes)
        if self.limits.floor_is_limit and reader.manifest.quality is None:
            raise InputError(
                f"{reader.path}: the pack does not state its quality, so no floor can be kept; "
                "leave the floor out, or measure it with `sti-shard rank`"
            )
        most = reader.manifest.dimensions.max_tokens
        lengths = {min(tokens, most) for tokens in TOKEN_BUCKETS}
        self._usual = [Workload(1, tokens) for tokens in sorted(lengths, key=_unusual)]
        """A text of every length, the likeliest first."""
        self._within: MemoryPlans | None = None
        """The plans within a budget of memory, where there is one."""
        self._one: ComparableMaker | None = None
        """What makes one plan for all lengths, where there is one."""
        self._source = self._source_of(target, machine, options, jobs, maker)

    @property
    def replans(self) -> int:
        """How often a workload went over to another plan."""
        return self._source.replans

    @property
    def changes(self) -> bool:
        """Whether plans are picked to keep a latency, and may change."""
        return self._source.changes and self.limits.latency_s is not None

    def ahead(self, last: Workload | None) -> Sequence[Callable[[], object]]:
        """Jobs that make ready for the next run, on any thread, where plans follow the machine.

        Args:
            last: what ran last; None before the first run.
        """
        if not self.changes:
            return []
        return self._source.ahead(last, self._usual)

    def forget(self) -> None:
        """Give back the memory of what can be made anew."""
        self._source.forget()

    def plan_for(self, *, batch: int, tokens: int, running: bool = False) -> PreparedPlan:
        """The plan for ``batch`` sentences of ``tokens`` tokens, and its jobs.

        Args:
            running: it is for a run now, which takes longer where it is the first one.

        Raises:
            InfeasibleError: the target cannot be met for them.
        """
        workload = bucket(batch, tokens, most=self._reader.manifest.dimensions.max_tokens)
        return self._source.prepare(workload, Workload(batch, tokens), running=running)

    def planned(self, *, batch: int, tokens: int) -> PlannedPlan:
        """The plan that ``plan_for`` gives, predicted, with the conditions that it comes from.

        Raises:
            InfeasibleError: as ``plan_for``.
            ProfileError: a pinned plan's threads were not measured on this machine.
        """
        from sti.engine.conditions import PlannedPlan, conditions_now  # runs need no conditions
        from sti.planning.conditions import as_measured

        plan, limits = self.plan_for(batch=batch, tokens=tokens).plan, self.limits
        asked = replace(plan, workload=Workload(batch, tokens))
        memory = self._budget.parts_of(asked, self.as_graph())
        manifest, speeds = self._reader.manifest, self._machine.speeds
        if self.target.plan is None:
            workload = bucket(batch, tokens, most=manifest.dimensions.max_tokens)
        else:
            workload = plan.workload
        shown = conditions_now(speeds, limits, workload)
        if plan.predicted is None:
            plan = replace(plan, predicted=shown.predict(manifest, plan))
        if self._one is None:
            return PlannedPlan(plan, shown, shown, memory)
        decided = as_measured(speeds.profile, self._one.workload, limits)
        return PlannedPlan(plan, shown, decided, memory)

    def opening(self) -> PreparedPlan:
        """The plan to prepare for before any text is known: one sentence of usual length.

        Raises:
            InfeasibleError: the target cannot be met even for the shortest text.
        """
        most = self._reader.manifest.dimensions.max_tokens
        try:
            return self.plan_for(batch=1, tokens=min(_OPENING_TOKENS, most))
        except InfeasibleError as error:
            with suppress(InfeasibleError):
                return self.plan_for(batch=1, tokens=min(TOKEN_BUCKETS[0], most))
            raise error from None  # it speaks of texts as they are

    def as_graph(self) -> PreparedPlan | None:
        """The plan to hold as a graph, where the budget of memory has room for one."""
        return None if self._within is None else self._within.as_graph()

    def _source_of(
        self,
        target: TargetSpec,
        machine: Machine,
        options: EngineOptions,
        jobs: StepJobs,
        maker: Callable[[], PlanMaker],
    ) -> Source:
        """What makes the plans of the target; sets ``limits`` to what they are made for."""
        reader, limits = self._reader, self.limits
        if target.plan is not None:
            from sti.engine.pinned_plan import read_plan  # few targets bring a plan

            pinned = read_plan(target.plan, reader.manifest, reader.pack_id)
            self.limits = pinned.target
            _check_preload(self.limits.preload_bytes)
            return PinnedPlan(pinned, machine, jobs)

        elastic = target.fidelity is None and options.may_differ(reader.manifest.task)

        def make(limits: Target) -> Source:
            if target.fidelity is not None:
                uniform = UniformMaker(reader, limits, machine, target.fidelity)
                return FixedPlans(reader.manifest, machine, jobs, uniform)
            if not elastic:
                self._one = ComparableMaker(reader, limits, machine, options.tokens)
                return FixedPlans(reader.manifest, machine, jobs, self._one)
            from sti.engine.elastic_plans import ElasticPlans  # embeddings need no prices

            return ElasticPlans(reader, limits, machine, maker())

        if limits.memory_bytes is None:
            return make(limits)

        def forget() -> None:
            jobs.forget()
            if elastic:
                maker().forget_prices()

        return self._within_memory(limits, make, forget, options.tokens)

    def _within_memory(
        self,
        limits: Target,
        make: Callable[[Target], Source],
        forget: Callable[[], None],
        tokens: int | None,
    ) -> Source:
        from sti.engine.memory_plans import BUDGET_TOKENS, MemoryPlans  # many targets have none

        self._budget.check_counted()
        self._machine.is_measured_apart = True
        manifest = self._reader.manifest
        most = manifest.dimensions.max_tokens
        longest = bucket(1, min(tokens or BUDGET_TOKENS, most), most=most)
        workloads = [item for item in self._usual if item.within(longest)]
        plans = MemoryPlans(
            manifest,
            self._reader.pack_id,
            limits,
            self.target.preload_bytes,
            self._budget,
            measured_choices(self._machine.speeds.profile),
            make,
            forget,
            sorted(workloads, key=lambda item: -item.tokens),
            self._usual[0],
        )
        self.limits, self._within = plans.target, plans
        self._usual = [item for item in self._usual if item.within(plans.workload)]
        return plans


def _unusual(tokens: int) -> float:
    """How far a length is from that of usual texts, as a factor."""
    return max(tokens / _OPENING_TOKENS, _OPENING_TOKENS / tokens)


def _check_preload(preload_bytes: int) -> None:
    if preload_bytes:
        what = "a preload buffer takes"
        check_memory(preload_bytes, what=what, remedy="ask for less", limit="preload")
