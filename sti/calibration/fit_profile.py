"""From measured times to the coefficients of a device profile.

In: ``Observations``. Out: a ``DeviceProfile`` whose costs fit them best: non-negative least squares
of relative errors, so that short runs weigh as much as long ones. How much the lanes slow one
another down is fitted to whole pipelined runs. Pure.

Where the same thing was timed several times, the lower quartile is used: the time it takes when
nothing else runs on the machine. The profile's jitter says how much longer a run may take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sti.calibration.observations import Observations, PipelinedRun, StepTime
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.least_squares import K, fit_costs
from sti.device.profile import (
    ComputeProfile,
    DecodeProfile,
    DeviceProfile,
    LaneProfile,
    StorageProfile,
)
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.cost_model import FIRST_STEPS, STEPS_PER_GROUP, run_costs
from sti.planning.prediction import simulate_run

MOST_JITTER = 1.5
"""Upper limit of the jitter: a machine that was busy while it was measured must not make every
target infeasible."""


def fit_profile(
    seen: Observations,
    manifest: Manifest,
    *,
    device: str,
    threads: int,
    decoders: int,
    direct: bool,
) -> DeviceProfile:
    """The profile that fits ``seen`` best.

    Args:
        seen: at least one observation of everything.
        manifest: of the pack that was timed.
        device, threads, decoders, direct: copied into the profile.
    """
    alone = DeviceProfile(
        device=device,
        threads=threads,
        decoders=decoders,
        lanes={
            STORAGE: _storage(seen, direct=direct),
            DECODE: _decode(seen.steps, manifest.ladder),
            COMPUTE: _compute(seen, [kind.name for kind in manifest.kinds]),
        },
        tokenize_s=_typical(seconds / count for count, seconds in seen.tokens),
        fixed_s=0.0,
        contention=1.0,
        jitter=1.0,
    )
    return _together(alone, seen, manifest)


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


def _compute(seen: Observations, kinds: Sequence[str]) -> ComputeProfile:
    """Coefficients of every graph. ``connect`` is subtracted where a step's time includes it."""
    compute: dict[str, tuple[float, ...]] = {}
    connect_s: Mapping[Workload, float] = {}
    for name in ("embed", "connect", "head"):
        times = _typical_by((work, seconds) for end, work, seconds in seen.ends if end == name)
        terms = [(1.0, work.batch * work.tokens) for work in times]
        once, token = (float(cost) for cost in fit_costs(terms, list(times.values())))
        compute[name] = (once, 0.0, token, 0.0, 0.0)
        if name == "connect":
            connect_s = times
    for kind in kinds:
        steps = _typical_by(
            ((time.workload, time.width, time.connects), time.compute_s)
            for time in seen.steps
            if time.kind == kind
        )
        step_terms, seconds = [], []
        for (work, width, connects), step_s in steps.items():
            count = work.batch * work.tokens
            step_terms.append((1.0, width, count, width * count, width * count * work.tokens))
            alone_s = step_s - connect_s[work] if connects else step_s
            seconds.append(max(alone_s, step_s * 0.1))
        compute[kind] = tuple(float(cost) for cost in fit_costs(step_terms, seconds))
    return ComputeProfile(compute)


def _together(alone: DeviceProfile, seen: Observations, manifest: Manifest) -> DeviceProfile:
    """The profile with what pipelined runs show: slower lanes, fixed costs, jitter."""
    runs = seen.pipelined
    work_s = _simulated(alone, seen, manifest).busy_s

    def slower(lane: str) -> float:
        return _typical(run.busy_s[lane] for run in runs) / work_s[lane]

    storage, decode, compute = slower(STORAGE), slower(DECODE), slower(COMPUTE)
    lanes: dict[str, LaneProfile] = {
        STORAGE: replace(
            alone.storage,
            request_s=alone.storage.request_s * storage,
            bytes_per_s=alone.storage.bytes_per_s / storage,
        ),
        DECODE: DecodeProfile(
            shard_s=alone.decode.shard_s * decode,
            weight_s={bits: cost * decode for bits, cost in alone.decode.weight_s.items()},
        ),
        # Below 1 it is not contention: long runs are faster than the short ones that were timed.
        COMPUTE: ComputeProfile(
            {
                graph: tuple(cost * min(1.0, compute) for cost in costs)
                for graph, costs in alone.compute.graphs.items()
            }
        ),
    }
    profile = replace(alone.with_lanes(lanes), contention=max(1.0, compute))
    totals = sorted(run.total_s for run in runs)
    typical_s = _typical(totals)
    late_s = totals[-(-95 * len(totals) // 100) - 1]
    return replace(
        profile,
        fixed_s=max(0.0, typical_s - _simulated(profile, seen, manifest).total_s),
        jitter=min(MOST_JITTER, max(1.0, late_s / typical_s)),
    )


def _simulated(profile: DeviceProfile, seen: Observations, manifest: Manifest) -> PipelinedRun:
    """The pipelined runs that were timed, as the profile predicts them."""
    plan = seen.pipelined_plan
    assert plan is not None
    # In the timed runs the texts were already tokenized.
    costs = replace(
        run_costs(manifest, profile, plan.workload, plan.width, threads=plan.decode_threads),
        tokenize_s=0.0,
    )
    groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
    run = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
    work = range(FIRST_STEPS, FIRST_STEPS + STEPS_PER_GROUP * len(groups))
    return PipelinedRun(run.total_s, run.busy_s(work))


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
