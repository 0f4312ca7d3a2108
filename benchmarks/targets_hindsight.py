"""What would have been the best plan, knowing how long the runs took.

In: an engine and the runs it just answered. Out: for a length, whether the full model would have
fitted, and how far the plan in use is behind the one that the exact planner makes for the machine
as it was: every lane of the profile slowed by measured over predicted, and no room for spread. Runs
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from benchmarks.common import median
from benchmarks.targets_counting import Run, Session
from sti.device.lane_profiles import ComputeProfile, DecodeProfile, LaneProfile, StorageProfile
from sti.device.profile import DeviceProfile
from sti.engine.engine import Engine
from sti.errors import InfeasibleError
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.prediction import predict
from sti.planning.uniform import uniform_plan

FEWEST = 3
"""Runs of a cell that a median is taken of."""


class Hindsight(NamedTuple):
    """A target and a length, looked back on."""

    used: float
    """Median of measured over target."""
    full_fits: bool
    """Whether the full model at its highest fidelity would have met the target."""
    behind: float | None
    """Points of the metric behind the best plan; None where nothing is known of the metric."""
    none_fits: bool
    """Whether no plan would have met the target."""


def look_back(engine: Engine, session: Session) -> list[Hindsight]:
    """The cell of a session with the most quiet runs; none where there are fewer than three."""
    by_length: dict[int, list[Run]] = {}
    for run in session.runs:
        if not run.disturbed:
            by_length.setdefault(run.tokens, []).append(run)
    runs = max(by_length.values(), key=len, default=[])
    if len(runs) < FEWEST:
        return []
    return [hindsight(engine, engine.plan_for(tokens=runs[0].tokens), runs)]


def hindsight(engine: Engine, plan: Plan, runs: list[Run]) -> Hindsight:
    """Compare a plan with the best one, and with the full model.

    Args:
        engine: gives the pack and the profile.
        plan: what the runs were planned as.
        runs: of one length.
    """
    manifest, profile = engine.manifest, engine.profile
    measured_s = median([run.total_s for run in runs])
    as_it_was = slowed(profile, measured_s / predict(manifest, profile, plan).total_s)
    target = Target(plan.target.latency_s, plan.target.preload_bytes)
    assert target.latency_s is not None
    request = PlanRequest(manifest, plan.pack, plan.workload, target)
    whole = uniform_plan(
        request._replace(target=target._replace(latency_s=None)),
        bits=manifest.ladder[-1],
        profile=as_it_was,
    )
    assert whole.predicted is not None
    behind, none_fits = None, False
    try:
        best = make_plan(request, as_it_was).predicted
        known = [run.metric for run in runs if run.metric is not None]
        if best is not None and best.quality is not None and known:
            behind = 100.0 * (best.quality.value - sum(known) / len(known))
    except InfeasibleError:
        none_fits = True
    return Hindsight(
        used=measured_s / target.latency_s,
        full_fits=whole.predicted.total_s <= target.latency_s,
        behind=None if behind is None else max(0.0, behind),
        none_fits=none_fits,
    )


def slowed(profile: DeviceProfile, factor: float) -> DeviceProfile:
    """The machine, everything taking ``factor`` times as long, and each run as long as the next."""
    runs = {
        name: replace(run, step_s=run.step_s * factor, fixed_s=run.fixed_s * factor, jitter=1.0)
        for name, run in profile.runs.items()
    }
    lanes = {name: slowed_lane(lane, factor) for name, lane in profile.lanes.items()}
    tokenize_s = profile.tokenize_s * factor
    return replace(profile, lanes=lanes, runs=runs, tokenize_s=tokenize_s)


def slowed_lane(lane: LaneProfile, factor: float) -> LaneProfile:
    """One lane, everything taking ``factor`` times as long."""
    if isinstance(lane, StorageProfile):
        return replace(
            lane,
            request_s=lane.request_s * factor,
            bytes_per_s=lane.bytes_per_s / factor,
            row_s=lane.row_s * factor,
        )
    if isinstance(lane, DecodeProfile):
        weight_s = _times(lane.weight_s, factor)
        return replace(lane, shard_s=lane.shard_s * factor, weight_s=weight_s)
    graphs = {name: tuple(term * factor for term in terms) for name, terms in lane.graphs.items()}
    return ComputeProfile(graphs)


def _times(costs: Mapping[int, float], factor: float) -> dict[int, float]:
    return {bits: cost * factor for bits, cost in costs.items()}
