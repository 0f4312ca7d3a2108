"""A plan that is ready for a run. Pure values."""

from __future__ import annotations

from typing import NamedTuple

from sti.engine.speeds import Basis
from sti.planning.plan import Plan
from sti.planning.step_jobs import StepJob


class Chosen(NamedTuple):
    """A plan, and what its prediction is made of."""

    plan: Plan
    basis: Basis | None
    """None for a plan that was not predicted for this run: nothing can be learned from one."""
    notice: str | None = None
    """What the caller should know of it."""


class PreparedPlan(NamedTuple):
    """A chosen plan with the jobs of its steps."""

    plan: Plan
    jobs: tuple[StepJob, ...]
    basis: Basis | None
    """As of ``Chosen``."""
    notice: str | None = None
