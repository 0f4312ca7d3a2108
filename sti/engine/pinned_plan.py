"""Plans and fidelities that the caller pinned: read, and checked against pack and target."""

from __future__ import annotations

from pathlib import Path

from sti.device.profile import DeviceProfile
from sti.errors import InfeasibleError, PlanError
from sti.model.manifest import Manifest
from sti.planning.check import check_plan
from sti.planning.plan import Plan
from sti.units import format_time


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
        f"{bits} bits throughout take {format_time(needed)} in the slowest of 20 runs, more "
        f"than the latency of {format_time(asked)}; ask for fewer bits, or let the "
        "planner choose",
        limit="latency",
        asked=asked,
        needed=needed,
    )


def read_plan(given: Plan | Path, manifest: Manifest, pack_id: str) -> Plan:
    """A pinned plan, from its file if need be, that fits the pack.

    Raises:
        PlanError: it cannot be read, or does not fit.
    """
    where = "plan"
    if isinstance(given, Path):
        where = str(given)
        try:
            given = Plan.from_text(given.read_text(encoding="utf-8"), where=where)
        except OSError as error:
            raise PlanError(f"{where}: cannot read the plan: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise PlanError(f"{where}: not a plan: it is not text in UTF-8") from error
    check_plan(given, manifest, pack_id, where=where)
    return given
