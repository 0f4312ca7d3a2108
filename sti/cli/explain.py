"""``sti plan --explain``: why the plan is as it is, and what other targets would bring.

In: the plan that is shown, and what makes plans. Out: an ``Explanation``. The plans for other
targets are made as ``sti plan`` makes them, so their numbers are those that it shows.
"""

from __future__ import annotations

from sti.cli.planned import Made, Planning
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError
from sti.planning.lane_limits import lane_limits
from sti.planning.nearby_targets import nearby_targets
from sti.planning.next_planes import explain_blocks
from sti.planning.plan import Target
from sti.report.explanation import Explanation
from sti.report.outcomes import Outcome
from sti.units import exact_size, exact_time


def explain(made: Made, planning: Planning) -> Explanation:
    """Why a plan is as it is.

    Args:
        made: the plan, which ``planning`` made.

    Raises:
        ProfileError: the plan is a given one whose threads were not measured on its machine.
    """
    manifest, plan, shown, decided = made.manifest, made.plan, made.shown, made.decided
    blocks = explain_blocks(manifest, plan, shown, decided, asked=not made.free)
    limits = lane_limits(manifest, plan, shown)
    outcomes = _outcomes(made, planning) if made.free else None
    return Explanation(manifest, plan, decided.workload, blocks, limits, outcomes)


def _outcomes(made: Made, planning: Planning) -> list[Outcome]:
    """What the planner gives for targets a little off the one that was asked for."""
    decided = made.decided
    promised_s = decided.promised_s(decided.run(made.manifest, made.plan))
    return [
        _outcome(name, target, made, planning)
        for name, target in nearby_targets(made.plan.target, promised_s).items()
    ]


def _outcome(name: str, target: Target, made: Made, planning: Planning) -> Outcome:
    limited = target.memory_bytes is not None  # then the preload follows from it
    given = TargetSpec(
        latency=None if target.latency_s is None else exact_time(target.latency_s),
        memory=None if target.memory_bytes is None else exact_size(target.memory_bytes),
        preload=None if limited or not target.preload_bytes else exact_size(target.preload_bytes),
    )
    try:
        return Outcome(name, target, planning.made(made.target.overridden(given)).plan)
    except InfeasibleError as error:
        return Outcome(name, target, error)
