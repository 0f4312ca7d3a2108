"""The plans of one target, with the jobs of their steps.

In: what the caller asked for (``TargetSpec``), the pack, the machine. Out: plans and their step
jobs, from one of three sources: plans that change with the machine (``elastic_plans``), plans that
stay (``fixed_plans``), or the one that was given. Every target gets a ``PlanStore`` of its own, so
that an infeasible one leaves the engine unchanged. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from sti.device.memory_limit import check_memory
from sti.engine.fixed_plans import ComparableMaker, FixedPlans, PinnedPlan, UniformMaker
from sti.engine.machine import Machine
from sti.engine.options import EngineOptions
from sti.engine.prepared import Chosen, PreparedPlan
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, InputError
from sti.model.workload import TOKEN_BUCKETS, Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanStep
from sti.planning.step_jobs import StepJob, prepare_step

if TYPE_CHECKING:
    from sti.planning.pricing import PriceList

_OPENING_TOKENS = 32
_MOST_JOBS = 4096
"""Jobs of steps that are kept; more than any pack has in all of the plans it is likely to use."""


class _Source(Protocol):
    """Where the plans of a target come from."""

    @property
    def replans(self) -> int:
        """How often a workload went over to another plan."""

    @property
    def changes(self) -> bool:
        """Whether plans follow the machine."""

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> Chosen:
        """The plan for a run of this workload now."""

    def price_ahead(self, workload: Workload) -> None:
        """Make ready for a run of this workload, where plans follow the machine."""


class PlanStore:
    """The plans for one target.

    Args:
        reader: the pack.
        target: what the caller asked for.
        machine: what it is to run on.
        options: whether plans may differ with the length of texts.
        prices: gives a list of the pack's staircases up to an expected loss, to be priced.

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
        prices: Callable[[float], PriceList],
    ) -> None:
        self.target = target
        """What the caller asked for."""
        self._reader = reader
        self._jobs: dict[tuple[PlanStep, int], StepJob] = {}
        self.limits = target.limits()
        """What it comes to."""
        _check_preload(self.limits.preload_bytes)
        if self.limits.floor_is_limit and reader.manifest.quality is None:
            raise InputError(
                f"{reader.path}: the pack does not state its quality, so no floor can be kept; "
                "leave the floor out, or measure it with `sti-shard rank`"
            )
        self._source = self._source_of(target, machine, options, prices)

    @property
    def replans(self) -> int:
        """How often a workload went over to another plan."""
        return self._source.replans

    @property
    def changes(self) -> bool:
        """Whether plans are picked to keep a latency, and may change."""
        return self._source.changes and self.limits.latency_s is not None

    @property
    def lengths(self) -> list[Workload]:
        """A text of every length, the longest first."""
        most = self._reader.manifest.dimensions.max_tokens
        sizes = sorted({min(tokens, most) for tokens in TOKEN_BUCKETS}, reverse=True)
        return [Workload(1, tokens) for tokens in sizes]

    def price_ahead(self, workload: Workload) -> None:
        """Make ready for a run of this workload, where plans change; on any thread."""
        self._source.price_ahead(workload)

    def plan_for(self, *, batch: int, tokens: int, running: bool = False) -> PreparedPlan:
        """The plan for ``batch`` sentences of ``tokens`` tokens, and its jobs.

        Args:
            running: it is for a run now, which takes longer where it is the first one.

        Raises:
            InfeasibleError: the target cannot be met for them.
        """
        workload = bucket(batch, tokens, most=self._reader.manifest.dimensions.max_tokens)
        plan, basis, notice = self._source.prepare(
            workload, Workload(batch, tokens), running=running
        )
        if len(self._jobs) > _MOST_JOBS:
            self._jobs.clear()
        jobs = tuple(self._job(item, plan.width) for item in plan.steps)
        return PreparedPlan(plan, jobs, basis, notice)

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

    def _job(self, item: PlanStep, width: int) -> StepJob:
        """A step's job; plans for different workloads share those they have in common."""
        key = item, width
        if key not in self._jobs:
            group = self._reader.manifest.group(item.layer, item.kind, item.group)
            offset = self._reader.group_offset(group)
            self._jobs[key] = prepare_step(item, group, offset, width=width)
        return self._jobs[key]

    def _source_of(
        self,
        target: TargetSpec,
        machine: Machine,
        options: EngineOptions,
        prices: Callable[[float], PriceList],
    ) -> _Source:
        reader, limits = self._reader, self.limits
        if target.plan is not None:
            from sti.engine.pinned_plan import read_plan  # few targets bring a plan

            pinned = read_plan(target.plan, reader.manifest, reader.pack_id)
            self.limits = pinned.target
            _check_preload(self.limits.preload_bytes)
            return PinnedPlan(pinned, machine)
        if target.fidelity is not None:
            make = UniformMaker(reader, limits, machine, target.fidelity)
            return FixedPlans(reader.manifest, machine, make)
        if not options.may_differ(reader.manifest.task):
            one = ComparableMaker(reader, limits, machine, options.tokens)
            return FixedPlans(reader.manifest, machine, one)
        from sti.engine.elastic_plans import ElasticPlans  # embeddings need no prices

        return ElasticPlans(reader, limits, machine, prices)


def _check_preload(preload_bytes: int) -> None:
    if preload_bytes:
        what = "a preload buffer takes"
        check_memory(preload_bytes, what=what, remedy="ask for less", limit="preload")
