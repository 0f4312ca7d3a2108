"""From measured times to the coefficients of a device profile.

In: ``Observations``. Out: a ``DeviceProfile`` whose costs fit them best: non-negative least squares
of relative errors, so that short runs weigh as much as long ones. How much lanes slow one another
down, and what threads lose in waking one another, is fitted to whole runs under each kind of
threads. Pure.

Where the same thing was timed several times, the lower quartile is used: the time it takes when
nothing else runs on the machine. The profile's jitter says how much longer a run may take.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sti.calibration.observations import Observations, StepTime, TimedRun
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE
from sti.device.least_squares import K, fit_costs
from sti.device.profile import (
    ComputeProfile,
    DecodeProfile,
    DeviceProfile,
    RunProfile,
    StorageProfile,
)
from sti.model.manifest import Manifest
from sti.planning.cost_model import run_costs
from sti.planning.lane_threads import shares_of
from sti.planning.plan import Plan
from sti.planning.prediction import simulate_run
from sti.planning.variants import graph_name

MOST_JITTER = 1.5
"""Upper limit of the jitter: a machine that was busy while it was measured must not make every
target infeasible."""
_LEAST_S = 1e-6
"""What is left of a run's time, at least: fits are of relative errors."""
_ALONE = RunProfile(dict.fromkeys(LANES, 1.0), step_s=0.0, fixed_s=0.0, jitter=1.0)
"""Runs whose lanes do not know of one another."""


def fit_profile(
    seen: Observations, manifest: Manifest, *, device: str, threads: int, direct: bool
) -> DeviceProfile:
    """The profile that fits ``seen`` best.

    Args:
        seen: at least one observation of everything.
        manifest: of the pack that was timed.
        device, threads, direct: copied into the profile.
    """
    alone = DeviceProfile(
        device=device,
        threads=threads,
        lanes={
            STORAGE: _storage(seen, direct=direct),
            DECODE: _decode(seen.steps, manifest.ladder),
            COMPUTE: _compute(seen),
        },
        runs={run.plan.threads.name: _ALONE for run in seen.runs},
        tokenize_s=_typical(seconds / count for count, seconds in seen.tokens),
    )
    return replace(
        alone,
        runs={
            name: _together(
                alone, [run for run in seen.runs if run.plan.threads.name == name], manifest
            )
            for name in alone.runs
        },
    )


def _storage(seen: Observations, *, direct: bool) -> StorageProfile:
    times = _typical_by(seen.reads)
    request_s, byte_s = fit_costs([(1.0, size) for size in times], list(times.values()))
    return StorageProfile(
        direct=direct,
        request_s=float(request_s),
        bytes_per_s=1.0 / max(float(byte_s), 1e-12),
        row_s=_typical(seconds / count for count, seconds in seen.rows),
    )


def _decode(steps: Sequence[StepTime], ladder: Sequence[int]) -> DecodeProfile:
    """Seconds per shard and, for each fidelity, per weight."""
    times = _typical_by(((time.shards, time.weights, time.bits), time.decode_s) for time in steps)
    terms = [
        (shards, *(weights if bits == step else 0 for step in ladder))
        for shards, weights, bits in times
    ]
    shard_s, *weight_s = (float(cost) for cost in fit_costs(terms, list(times.values())))
    return DecodeProfile(shard_s=shard_s, weight_s=dict(zip(ladder, weight_s, strict=True)))


def _compute(seen: Observations) -> ComputeProfile:
    """Coefficients of every graph."""
    compute: dict[str, tuple[float, ...]] = {}
    for name in ("embed", "connect", "head"):
        times = _typical_by((work, seconds) for end, work, seconds in seen.ends if end == name)
        terms = [(1.0, work.batch * work.tokens) for work in times]
        once, token = (float(cost) for cost in fit_costs(terms, list(times.values())))
        compute[name] = (once, 0.0, token, 0.0, 0.0)
    steps: defaultdict[str, list[StepTime]] = defaultdict(list)
    for time in seen.steps:
        steps[graph_name(time.kind, time.variant)].append(time)
    for name, found in steps.items():
        seconds = _typical_by(((time.workload, time.width), time.compute_s) for time in found)
        step_terms = []
        for work, width in seconds:
            count = work.batch * work.tokens
            step_terms.append((1.0, width, count, width * count, width * count * work.tokens))
        costs = fit_costs(step_terms, list(seconds.values()))
        compute[name] = tuple(float(cost) for cost in costs)
    return ComputeProfile(compute)


def _together(alone: DeviceProfile, runs: Sequence[TimedRun], manifest: Manifest) -> RunProfile:
    """What runs under one kind of threads take beyond what their lanes take alone.

    Contention is what the longest of them show. What is then left of each is a fixed part and one
    that grows with the steps that follow one another.
    """
    plan = max((run.plan for run in runs), key=lambda plan: len(plan.steps))
    longest = [run for run in runs if run.plan == plan]
    work_s = _simulated(alone, plan, manifest).busy_s
    contention = {
        lane: _typical(run.busy_s[lane] for run in longest) / seconds if seconds else 1.0
        for lane, seconds in work_s.items()
    }
    run = replace(_ALONE, contention=contention)
    slowed = replace(alone, runs={plan.threads.name: run})
    totals = _typical_by((run.plan, run.total_s) for run in runs)
    terms, left_s = [], []
    for timed, total_s in totals.items():
        terms.append((1.0, _in_turn(timed)))
        left_s.append(max(_LEAST_S, total_s - _simulated(slowed, timed, manifest).total_s))
    fixed_s, step_s = (float(cost) for cost in fit_costs(terms, left_s))
    late = sorted(run.total_s for run in longest)[-(-95 * len(longest) // 100) - 1]
    return RunProfile(
        contention, step_s, fixed_s, jitter=min(MOST_JITTER, max(1.0, late / totals[plan]))
    )


def _in_turn(plan: Plan) -> float:
    """How many steps follow one another where threads take them side by side."""
    threads = plan.threads.compute
    in_use = Counter((step.layer, step.kind) for step in plan.steps)
    shares = sum(len(shares_of(in_use[step.layer, step.kind], threads)) for step in plan.steps)
    return shares / threads


def _simulated(profile: DeviceProfile, plan: Plan, manifest: Manifest) -> TimedRun:
    """A run of a plan as the profile predicts it."""
    # In the timed runs the texts were already tokenized.
    costs = replace(
        run_costs(manifest, profile, plan.workload, plan.width, threads=plan.threads),
        tokenize_s=0.0,
    )
    groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
    run = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
    names = plan.work_names
    work = [index for index, step in enumerate(run.steps) if step.name in names]
    return TimedRun(plan, run.total_s, run.busy_s(work))


def _typical_by(samples: Iterable[tuple[K, float]]) -> dict[K, float]:
    """The typical value of each key's samples."""
    grouped: defaultdict[K, list[float]] = defaultdict(list)
    for key, value in samples:
        grouped[key].append(value)
    return {key: _typical(values) for key, values in grouped.items()}


def _typical(values: Iterable[float]) -> float:
    """The lower quartile, by nearest rank."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 4]
