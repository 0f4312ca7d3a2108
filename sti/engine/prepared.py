"""A plan that is ready for a run, and the jobs of its steps."""

from __future__ import annotations

from typing import NamedTuple

from sti.backend.interface import BlocksGraph
from sti.engine.speeds import Basis
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan, PlanStep
from sti.planning.step_jobs import StepJob, prepare_step

_MOST_JOBS = 4096
"""Jobs of steps that are kept; more than any pack has in all of the plans it is likely to use."""


class PreparedPlan(NamedTuple):
    """A plan with the jobs of its steps, and what its prediction is made of."""

    plan: Plan
    jobs: tuple[StepJob, ...]
    basis: Basis | None
    """None for a plan that was not predicted for this run: nothing can be learned from one."""
    notice: str | None = None
    """What the caller should know of it."""
    graph: BlocksGraph | None = None
    """That it is run through; None: it is streamed."""


class StepJobs:
    """The jobs of plans' steps; plans share those they have in common. Thread-safe."""

    def __init__(self, reader: PackReader) -> None:
        self._reader = reader
        self._jobs: dict[tuple[PlanStep, int], StepJob] = {}

    def of(self, plan: Plan) -> tuple[StepJob, ...]:
        """The jobs of all steps of a plan."""
        if len(self._jobs) > _MOST_JOBS:
            self._jobs.clear()
        return tuple(self._job(item, plan.width) for item in plan.steps)

    def forget(self) -> None:
        """Give back their memory; they are made anew."""
        self._jobs.clear()

    def _job(self, item: PlanStep, width: int) -> StepJob:
        found = self._jobs.get((item, width))
        if found is None:
            group = self._reader.manifest.group(item.layer, item.kind, item.group)
            found = prepare_step(item, group, self._reader.group_offset(group), width=width)
            self._jobs[item, width] = found
        return found
