"""From measured times to the coefficients of a device profile.

In: ``Observations``. Out: a ``DeviceProfile`` whose costs fit them best: non-negative least squares
of relative errors, so that short runs weigh as much as long ones. How much lanes slow one another
down, and what threads lose in waking one another, is fitted to whole runs under each kind of
threads. Pure.

Where the same thing was timed several times, ``sti.calibration.typical`` says what counts. No cost
of work that was done is zero; costs that explain none of the times, or that no code has, are named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from sti.calibration.observations import Observations, Sized, StepTime, TimedRun
from sti.calibration.typical import Typical, disturbed, spread, typical, typical_by
from sti.device.lane_profiles import ComputeProfile, DecodeProfile, RunProfile, StorageProfile
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE
from sti.device.least_squares import fit_costs
from sti.device.profile import MOST_DISTURBED, DeviceProfile
from sti.errors import ProfileError
from sti.model.manifest import Manifest
from sti.planning.cost_model import run_costs
from sti.planning.lane_threads import shares_of
from sti.planning.plan import Plan
from sti.planning.prediction import simulate_run
from sti.planning.variants import graph_name

T = TypeVar("T")

_ALONE = RunProfile(dict.fromkeys(LANES, 1.0), step_s=0.0, fixed_s=0.0, jitter=1.0)
"""Runs whose lanes do not know of one another."""
_MOST_ERROR = 0.8
"""Relative error, root of the mean square, of a fit that explains nothing: with all costs zero it
is 1."""
_MOST_FIXED = 0.9
"""Share of the shortest time, at most, that does not depend on how much is done."""
_MOST_INVERTED = 10.0
"""How many times as long as a higher fidelity a lower one may take to decode, at most."""


class Fit(NamedTuple, Generic[T]):
    """What fits best."""

    value: T
    disturbed: float
    """Share of the time that what it was fitted to waited for a core."""
    problems: Sequence[str]
    """What in it makes no sense, in words."""


def fit_storage(seen: Observations, *, direct: bool) -> Fit[StorageProfile]:
    """The storage lane that fits the reads best.

    Raises:
        ProfileError: nothing was timed.
    """
    problems: list[str] = []
    times = typical_by(seen.reads)
    _require(times, "reads")
    found = list(times.values())
    sizes = [[float(size)] for size in times]
    request_s, (byte_s,) = _fit_fixed([1.0] * len(times), sizes, found, "reads", problems)
    storage = StorageProfile(
        direct=direct,
        request_s=request_s,
        bytes_per_s=1.0 / max(byte_s, 1e-12),
        row_s=_per_unit(seen.rows, "token embeddings"),
    )
    return Fit(storage, disturbed(found), problems)


def fit_profile(
    seen: Observations, manifest: Manifest, *, device: str, threads: int, storage: StorageProfile
) -> Fit[DeviceProfile]:
    """The profile that fits ``seen`` best.

    Args:
        seen: at least one observation of everything but reads.
        manifest: of the pack that was timed.
        device, threads: copied into the profile.
        storage: its storage lane.

    Raises:
        ProfileError: something was not timed; says what.
    """
    problems: list[str] = []
    decode, waited = _decode(seen.steps, manifest.ladder, problems)
    kinds: defaultdict[str, list[TimedRun]] = defaultdict(list)
    for run in seen.runs:
        kinds[run.plan.threads.name].append(run)
    _require(kinds, "whole runs")
    alone = DeviceProfile(
        device=device,
        threads=threads,
        lanes={STORAGE: storage, DECODE: decode, COMPUTE: _compute(seen, problems)},
        runs=dict.fromkeys(kinds, _ALONE),
        tokenize_s=_per_unit(seen.tokens, "tokens"),
    )
    runs = {name: _together(alone, found, manifest) for name, found in kinds.items()}
    totals = typical_by((run.plan, run.total_s, run.waited) for run in seen.runs)
    waited = max(waited, disturbed(totals.values()))
    return Fit(replace(alone, runs=runs, disturbed=waited), waited, problems)


def _decode(
    steps: Sequence[StepTime], ladder: Sequence[int], problems: list[str]
) -> tuple[DecodeProfile, float]:
    """Seconds per shard and, for each fidelity, per weight; and the share waited."""
    times = typical_by(
        ((time.shards, time.weights, time.bits), time.decode_s, time.waited) for time in steps
    )
    for bits in ladder:
        _require([key for key in times if key[2] == bits], f"decoding at {bits} bits")
    shard_s, weight_s = _fit_fixed(
        [shards for shards, _, _ in times],
        [[weights if bits == step else 0.0 for step in ladder] for _, weights, bits in times],
        list(times.values()),
        "decoding",
        problems,
    )
    for bits, cost, higher in zip(ladder[:-1], weight_s[:-1], weight_s[1:], strict=True):
        if cost > _MOST_INVERTED * higher:
            problems.append(
                f"decoding at {bits} bits took {cost / higher:.0f} times as long as the next"
            )
    costs = dict(zip(ladder, weight_s, strict=True))
    return DecodeProfile(shard_s=shard_s, weight_s=costs), disturbed(times.values())


def _compute(seen: Observations, problems: list[str]) -> ComputeProfile:
    """Coefficients of every graph."""
    compute: dict[str, tuple[float, ...]] = {}
    for name in ("embed", "connect", "head"):
        times = typical_by(
            (end.workload, end.seconds, end.waited) for end in seen.ends if end.name == name
        )
        terms = [(1.0, work.batch * work.tokens) for work in times]
        once, token = _fit(terms, list(times.values()), f"graph {name}", problems)
        compute[name] = (once, 0.0, token, 0.0, 0.0)
    steps: defaultdict[str, list[StepTime]] = defaultdict(list)
    for time in seen.steps:
        steps[graph_name(time.kind, time.variant)].append(time)
    for name, found in steps.items():
        seconds = typical_by(((t.workload, t.width), t.compute_s, t.waited) for t in found)
        step_terms = []
        for work, width in seconds:
            count = work.batch * work.tokens
            step_terms.append((1.0, width, count, width * count, width * count * work.tokens))
        compute[name] = tuple(_fit(step_terms, list(seconds.values()), f"graph {name}", problems))
    return ComputeProfile(compute)


def _together(alone: DeviceProfile, runs: Sequence[TimedRun], manifest: Manifest) -> RunProfile:
    """What runs under one kind of threads take beyond what their lanes take alone.

    Contention is the mean of what they show, of each plan's. What is then left of each plan's time
    is a fixed part and one that grows with the steps that follow one another.
    """
    plans: defaultdict[Plan, list[TimedRun]] = defaultdict(list)
    for run in runs:
        plans[run.plan].append(_undisturbed(run))
    contention = {}
    for lane in LANES:
        ratios = []
        for plan, found in plans.items():
            busy_s = typical([(run.busy_s[lane], run.waited) for run in found]).seconds
            work_s = _simulated(alone, plan, manifest).busy_s[lane]
            ratios += [log(busy_s / work_s)] if busy_s > 0.0 and work_s > 0.0 else []
        contention[lane] = exp(sum(ratios) / len(ratios)) if ratios else 1.0
    name = runs[0].plan.threads.name
    slowed = replace(alone, runs={name: replace(_ALONE, contention=contention)})
    samples = {plan: [(run.total_s, run.waited) for run in found] for plan, found in plans.items()}
    totals_s = [typical(found).seconds for found in samples.values()]
    left_s = [
        max(0.0, total_s - _simulated(slowed, plan, manifest).total_s)
        for plan, total_s in zip(samples, totals_s, strict=True)
    ]
    terms = [(1.0, _in_turn(plan)) for plan in samples]
    fixed_s, step_s = map(float, fit_costs(terms, left_s, scale=totals_s))
    lanes = {
        lane: spread(
            {
                plan: [(run.busy_s[lane], run.waited) for run in found]
                for plan, found in plans.items()
            }
        )
        for lane in LANES
    }
    return RunProfile(contention, step_s, fixed_s, jitter=spread(samples), spread=lanes)


def _undisturbed(run: TimedRun) -> TimedRun:
    """About what a run that was disturbed would have taken if it had not waited."""
    if run.waited <= MOST_DISTURBED:
        return run
    own = max(1e-3, 1.0 - run.waited)
    busy_s = {lane: own * seconds for lane, seconds in run.busy_s.items()}
    return replace(run, total_s=own * run.total_s, busy_s=busy_s)


def _in_turn(plan: Plan) -> float:
    """How many steps follow one another where threads take them side by side."""
    threads = plan.threads.compute
    in_use = Counter((step.layer, step.kind) for step in plan.steps)
    shares = sum(len(shares_of(in_use[step.layer, step.kind], threads)) for step in plan.steps)
    return shares / threads


def _simulated(profile: DeviceProfile, plan: Plan, manifest: Manifest) -> TimedRun:
    """A run of a plan as the profile predicts it."""
    costs = run_costs(manifest, profile, plan.workload, plan.width, threads=plan.threads)
    groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
    run = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
    names = plan.work_names
    work = [index for index, step in enumerate(run.steps) if step.name in names]
    return TimedRun(plan, run.total_s, run.busy_s(work))


def _fit(
    terms: Sequence[Sequence[float]], times: Sequence[Typical], what: str, problems: list[str]
) -> list[float]:
    """Costs of several terms."""
    _require(times, what)
    seconds = [found.seconds for found in times]
    costs = fit_costs(terms, seconds)
    _check(np.asarray(terms) @ costs, seconds, what, problems)
    return [float(cost) for cost in costs]


def _fit_fixed(
    fixed: Sequence[float],
    units: Sequence[Sequence[float]],
    times: Sequence[Typical],
    what: str,
    problems: list[str],
) -> tuple[float, list[float]]:
    """Costs of a term that does not depend on how much is done, and of terms that do.

    The first is kept below the shortest time, so that of the others none is nothing.

    Args:
        fixed: amounts of the first, above zero.
        units: of the others; each time has one of them.
    """
    seconds = np.array([found.seconds for found in times])
    once = np.asarray(fixed, dtype=np.float64) / seconds
    amounts = np.asarray(units, dtype=np.float64) / seconds[:, None]
    most = _MOST_FIXED / float(once.max())

    def fit(cost: float) -> tuple[float, float, list[float]]:
        left = 1.0 - cost * once
        rest = (amounts * left[:, None]).sum(axis=0) / (amounts * amounts).sum(axis=0)
        return float(((amounts @ rest - left) ** 2).sum()), cost, [float(unit) for unit in rest]

    coarse = min(fit(most * part / 20) for part in range(21))[1]
    near = [coarse + most * part / 200 for part in range(-10, 11)]
    _, cost, rest = min(fit(cost) for cost in near if 0.0 <= cost <= most)
    _check((amounts @ np.asarray(rest) + cost * once) * seconds, seconds, what, problems)
    return cost, rest


def _per_unit(samples: Sequence[Sized], what: str) -> float:
    _require(samples, what)
    return typical([(item.seconds / item.size, item.waited) for item in samples]).seconds


def _check(
    predicted: np.ndarray, seconds: Sequence[float] | np.ndarray, what: str, problems: list[str]
) -> None:
    """Note costs that do not explain the times they were fitted to."""
    error = float(np.sqrt(np.mean((predicted / np.asarray(seconds) - 1.0) ** 2)))
    if not error <= _MOST_ERROR:
        problems.append(f"the times of {what} contradict one another")


def _require(found: object, what: str) -> None:
    if not found:
        raise ProfileError(
            f"measuring this device failed: no time of {what} makes sense; run `sti calibrate` "
            "with the pack"
        )
