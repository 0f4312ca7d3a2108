"""Plans and fidelities that the caller pinned: read, and checked against pack and target."""

from __future__ import annotations

from pathlib import Path

from sti.device.profile import DeviceProfile
from sti.engine.inputs import Batch
from sti.engine.refusals import floor_value
from sti.errors import InfeasibleError, PlanError
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.planning.check import check_plan
from sti.planning.expected_loss import expected_loss
from sti.planning.plan import PLAN_LIMITS, Plan
from sti.report.wording import show_metric
from sti.storage.plain_files import read_plain
from sti.units import exact_share, format_time


def check_in_time(plan: Plan, profile: DeviceProfile, bits: int) -> None:
    """Refuse a pinned fidelity that would miss the plan's target.

    Raises:
        InfeasibleError: it would; says what it needs.
    """
    from sti.planning.cost_model import deadline_s  # only where a latency was asked for

    asked, deadline = plan.target.latency_s, deadline_s(profile, plan.target, plan.threads)
    if asked is None or deadline is None or plan.predicted is None:
        return
    if plan.predicted.total_s <= deadline:
        return
    needed = asked * plan.predicted.total_s / deadline
    raise InfeasibleError(
        f"{bits} bits throughout take {format_time(needed)} at most in "
        f"{exact_share(plan.target.quantile)} of the runs, more than the latency of "
        f"{format_time(asked)}; ask for fewer bits, or let the planner choose",
        limit="latency",
        asked=asked,
        needed=needed,
    )


def check_floor(plan: Plan, manifest: Manifest, bits: int) -> None:
    """Refuse a pinned fidelity that is below the floor of the plan's target.

    Raises:
        InfeasibleError: it is; says what it reaches.
    """
    quality = manifest.quality
    if quality is None:
        return  # refused before
    value = quality.estimate(expected_loss(manifest, plan)).value
    least = floor_value(plan.target, quality)
    if value < least:
        name = quality.metric
        raise InfeasibleError(
            f"{bits} bits throughout reach an expected {name} of {show_metric(name, value)}, below "
            f"the floor of {show_metric(name, least)}; ask for more bits, or lower the floor",
            limit="quality",
            asked=least,
            needed=value,
        )


def longer_than_planned(plan: Plan, batch: Batch, *, most: int) -> tuple[Workload, str] | None:
    """Whether a pinned plan with a latency was made for a shorter text than it is to run.

    It was never made for fewer texts: with a latency no batch is larger than its plan was made for.

    Args:
        most: the most tokens that the model takes.

    Returns:
        The size of the batch, rounded up as for a plan, and a line that says so; None where the
        plan was made for as much, or has nothing to keep.
    """
    made, found = plan.workload, bucket(len(batch.texts), batch.mean_tokens, most=most)
    if found.within(made) or plan.predicted is None or plan.target.latency_s is None:
        return None
    size = f"{made.tokens} tokens" if made.batch == 1 else made.words
    told = f"the plan was made for {size}, this text has {batch.tokens}"
    return found, f"{told}: it may take longer than predicted"


def read_plan(given: Plan | Path, manifest: Manifest, pack_id: str) -> Plan:
    """A pinned plan, from its file if need be, that fits the pack.

    Raises:
        PlanError: it cannot be read, or does not fit.
    """
    where = "plan"
    if isinstance(given, Path):
        where = str(given)
        try:
            given = Plan.from_text(read_plain(given, PLAN_LIMITS.most_bytes), where=where)
        except OSError as error:
            raise PlanError(f"{where}: cannot read the plan: {error.strerror}") from error
    check_plan(given, manifest, pack_id, where=where)
    return given
