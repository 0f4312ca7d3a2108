"""The machine as it is now, as conditions of plans.

In: the speeds of a machine, a target, a workload. Out: what plans are chosen and predicted with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sti.engine.speeds import Speeds
from sti.model.workload import Workload
from sti.planning.choice import Terms
from sti.planning.conditions import Conditions
from sti.planning.lane_threads import measured_choices
from sti.planning.memory import MemoryPart
from sti.planning.plan import Plan, Target


class PlannedPlan(NamedTuple):
    """A plan, and what it was predicted and decided with."""

    plan: Plan
    shown: Conditions
    """What it was predicted with: the machine as it is now, for the workload asked for."""
    decided: Conditions
    """What it was found with: for one plan for all lengths of text the machine as it was measured,
    and the length that the plan is made for; else the same."""
    memory: tuple[MemoryPart, ...]
    """What an engine takes that runs it, by part."""


def terms_now(speeds: Speeds, target: Target, workload: Workload, names: Sequence[str]) -> Terms:
    """What a run must keep, whatever its loss.

    Args:
        names: the kinds of threads to speak of.
    """
    return Terms(
        target.latency_s,
        extras={name: speeds.extra(name, workload) for name in names},
        spreads={name: speeds.spread(name, target.quantile) for name in names},
        most_loss=math.inf,
    )


def conditions_now(speeds: Speeds, target: Target, workload: Workload) -> Conditions:
    """What runs of a workload are predicted with."""
    names = [threads.name for threads in measured_choices(speeds.now, target.threads)]
    return Conditions(speeds.now, workload, terms_now(speeds, target, workload, names))
