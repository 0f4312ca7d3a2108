"""Fits: costs are recovered from times, and what no work can have cost is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest

from sti.calibration.fit_profile import Fit, fit_profile, fit_storage
from sti.calibration.observations import EndTime, Observations, Sized, StepTime, TimedRun
from sti.device.lane_profiles import (
    THREAD_NAMES,
    ComputeProfile,
    DecodeProfile,
    RunProfile,
    StorageProfile,
)
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE, shared
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError
from sti.model.workload import Workload
from sti.planning.cost_model import run_costs
from sti.planning.lane_threads import lane_choices
from sti.planning.plan import VARIANTS, Plan, PlanRequest
from sti.planning.prediction import simulate_run
from sti.planning.uniform import uniform_plan
from sti.planning.variants import graph_name
from tests.support.synthetic import MINILM, make_manifest

LADDER = (2, 4, 8)
TRUTH = DeviceProfile(
    device="made up",
    threads=2,
    lanes={
        STORAGE: StorageProfile(direct=True, request_s=2e-5, bytes_per_s=4e9, row_s=2e-6),
        DECODE: DecodeProfile(shard_s=2e-5, weight_s={2: 2e-10, 4: 5e-10, 8: 2e-9}),
        COMPUTE: ComputeProfile(
            {
                "embed": (5e-5, 0.0, 1e-6, 0.0, 0.0),
                "connect": (2e-5, 0.0, 3e-7, 0.0, 0.0),
                "head": (6e-5, 0.0, 1e-7, 0.0, 0.0),
                "attention": (4e-5, 1e-6, 2e-6, 1e-6, 2e-9),
                "ffn": (3e-5, 2e-6, 1e-6, 2e-6, 0.0),
                "attention.narrow": (4e-5, 1e-6, 1e-6, 7e-7, 2e-9),
                "ffn.narrow": (3e-5, 1e-6, 1e-6, 1e-6, 0.0),
            }
        ),
    },
    runs={
        name: RunProfile(dict.fromkeys(LANES, 1.0), step_s=0.0, fixed_s=0.0, jitter=1.0)
        for name in THREAD_NAMES
    },
    tokenize_s=3e-6,
)


def observations(noise: float, run: RunProfile | None = None) -> Observations:
    """What a machine like ``TRUTH`` would have shown, each time off by up to ``noise``.

    Args:
        run: what its whole runs add, under any threads.
    """
    rng = Random(3)

    def about(seconds: float) -> float:
        return seconds * rng.uniform(1 - noise, 1 + noise)

    seen = Observations()
    sizes = (65536, 262144, 1048576)
    seen.reads = [Sized(size, about(TRUTH.storage.read_s(1, size))) for size in sizes] * 5
    seen.rows = [Sized(count, about(count * TRUTH.storage.row_s)) for count in (16, 64)]
    seen.tokens = [Sized(count, about(count * TRUTH.tokenize_s)) for count in (16, 64)]
    works = [Workload(b, t) for b, t in ((1, 16), (1, 32), (1, 64), (1, 128), (4, 16), (4, 64))]
    for work in works:
        for end in ("embed", "connect", "head"):
            seen.ends.append(EndTime(end, work, about(TRUTH.compute_s(end, work, 12))))
        for group, bits, width in product(MANIFEST.groups[:2], LADDER, (6, 12)):
            weights = width * group.shard_weights
            decode_s = width * TRUTH.decode.shard_s + weights * TRUTH.decode.weight_s[bits]
            for variant in VARIANTS:
                compute_s = TRUTH.compute_s(graph_name(group.kind, variant), work, width)
                seen.steps.append(
                    StepTime(
                        group.kind, bits, width, weights, about(decode_s), work, width,
                        variant, about(compute_s),
                    )
                )  # fmt: skip
    truth = TRUTH
    if run is not None:
        truth = replace(truth, runs=dict.fromkeys(THREAD_NAMES, run))
    request = PlanRequest(MANIFEST, "x", Workload(1, 64))
    for threads, layers in product(lane_choices(2, cores=2), (1, 6)):
        plan = uniform_plan(request, bits=4, threads=threads, variants=VARIANTS)
        plan = replace(plan, steps=plan.steps[: 2 * layers])
        seen.runs += [timed(truth, plan)] * 20
    return seen


def timed(truth: DeviceProfile, plan: Plan) -> TimedRun:
    """A run of a plan on this machine; waking up is no work of any lane."""
    groups = [MANIFEST.group(step.layer, step.kind, step.group) for step in plan.steps]
    total_s, busy_s = 0.0, dict[str, float]()
    for waits in (False, True):
        run = truth.run(plan.threads)
        profile = truth
        if not waits:
            profile = replace(truth, runs={plan.threads.name: replace(run, step_s=0.0)})
        costs = run_costs(MANIFEST, profile, plan.workload, 12, threads=plan.threads)
        found = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
        if waits:
            total_s = found.total_s
        else:
            work = [i for i, step in enumerate(found.steps) if step.name in plan.work_names]
            busy_s = found.busy_s(work)
    return TimedRun(plan, total_s, busy_s)


SIZES = {key: MINILM[key] for key in ("attention_weights", "ffn_weights")}
MANIFEST = make_manifest(Random(1), layers=6, slices=12, ladder=LADDER, **SIZES)


def fitted(seen: Observations) -> DeviceProfile:
    found = fit_all(seen)
    assert found.problems == []
    return found.value


def fit_all(seen: Observations) -> Fit[DeviceProfile]:
    storage = fit_storage(seen, direct=True).value
    return fit_profile(seen, MANIFEST, device="made up", threads=2, storage=storage)


def worst_error(profile: DeviceProfile) -> float:
    """Largest relative error of any cost within the range that was observed."""
    errors = []
    for size in (65536, 500_000, 1048576):
        errors.append(profile.storage.read_s(1, size) / TRUTH.storage.read_s(1, size))
    for bits in LADDER:
        for weights in (SIZES["attention_weights"], SIZES["ffn_weights"]):
            one, other = (p.decode.shard_s + weights * p.decode.weight_s[bits]
                          for p in (profile, TRUTH))  # fmt: skip
            errors.append(one / other)
    for graph in TRUTH.compute.graphs:
        for work in (Workload(1, 16), Workload(1, 100), Workload(2, 64)):
            for width in (6, 12):
                one, other = (p.compute_s(graph, work, width) for p in (profile, TRUTH))
                errors.append(one / other)
    return float(np.abs(np.array(errors) - 1).max())


def test_costs_are_recovered_from_exact_times() -> None:
    assert worst_error(fitted(observations(0.0))) < 0.01


def test_costs_are_recovered_from_noisy_times() -> None:
    assert worst_error(fitted(observations(0.1))) < 0.12


def test_what_whole_runs_cost_beyond_their_lanes_is_found_for_each_kind_of_threads() -> None:
    run = RunProfile({STORAGE: 1.1, DECODE: 1.2, COMPUTE: 1.3}, 3e-5, 2e-3, 1.0)
    profile = fitted(observations(0.0, run))
    assert set(profile.runs) == set(THREAD_NAMES)
    for found in profile.runs.values():
        assert found.contention == pytest.approx(run.contention, rel=0.02)
        assert found.fixed_s == pytest.approx(run.fixed_s, rel=0.05)
        assert found.step_s == pytest.approx(run.step_s, rel=0.1)
        assert found.jitter == pytest.approx(1.06, abs=0.05)
        assert set(found.spread) == set(LANES)


def test_predictions_of_the_runs_that_were_timed_come_true() -> None:
    seen = observations(0.0, RunProfile({STORAGE: 1.1, DECODE: 1.2, COMPUTE: 1.3}, 3e-5, 2e-3, 1.0))
    profile = fitted(seen)
    for run in seen.runs[::20]:
        groups = [MANIFEST.group(step.layer, step.kind, step.group) for step in run.plan.steps]
        costs = run_costs(MANIFEST, profile, run.plan.workload, 12, threads=run.plan.threads)
        found = simulate_run(costs, groups, run.plan.steps, read_ahead=run.plan.read_ahead)
        assert found.total_s == pytest.approx(run.total_s, rel=0.01)


def test_runs_that_differ_raise_the_jitter_of_their_threads_and_lanes_theirs() -> None:
    seen = observations(0.0)
    even = fitted(seen)
    rng = Random(2)

    def uneven(run: TimedRun) -> TimedRun:
        if run.plan.threads != shared(2):
            return run
        busy_s = {**run.busy_s, DECODE: run.busy_s[DECODE] * rng.uniform(1.0, 1.4)}
        return replace(run, total_s=run.total_s * rng.uniform(1.0, 1.2), busy_s=busy_s)

    seen.runs = [uneven(run) for run in seen.runs]
    profile = fitted(seen)
    one, other = profile.runs["shared"], even.runs["shared"]
    assert other.jitter + 0.05 < one.jitter < 1.4
    assert one.spread[DECODE] > one.spread[STORAGE] == other.spread[STORAGE]
    assert profile.runs["pipelined"].jitter == even.runs["pipelined"].jitter


def test_what_was_disturbed_does_not_change_the_fit_where_something_was_not() -> None:
    seen = observations(0.0)
    seen.reads += [item._replace(seconds=9 * item.seconds, waited=0.9) for item in seen.reads]
    seen.steps += [
        replace(item, decode_s=9 * item.decode_s, compute_s=5 * item.compute_s, waited=0.8)
        for item in seen.steps
    ]
    seen.runs += [replace(run, total_s=7 * run.total_s, waited=0.6) for run in seen.runs]
    profile = fitted(seen)
    assert worst_error(profile) < 0.01
    assert profile.disturbed == 0.0 and not profile.provisional
    assert fit_storage(seen, direct=True).disturbed == 0.0


def test_a_profile_says_how_long_what_it_was_fitted_to_waited() -> None:
    seen = observations(0.0)
    seen.runs = [
        replace(
            run,
            total_s=2 * run.total_s,
            busy_s={lane: 2 * seconds for lane, seconds in run.busy_s.items()},
            waited=0.5,
        )
        for run in seen.runs
    ]
    profile = fitted(seen)
    assert profile.disturbed == pytest.approx(0.5) and profile.provisional
    # What they waited is taken off, so that targets are not refused for it.
    for found in profile.runs.values():
        assert found.contention == pytest.approx(dict.fromkeys(LANES, 1.0), rel=0.02)
    seen.reads = [item._replace(waited=0.3) for item in seen.reads]
    assert fit_storage(seen, direct=True).disturbed == pytest.approx(0.3)


def test_no_fidelity_is_free_although_all_of_its_shards_took_the_same_time() -> None:
    seen = observations(0.0)
    seen.steps = [
        replace(item, decode_s=item.shards * 4e-5) if item.bits == 2 else item
        for item in seen.steps
    ]
    profile = fitted(seen)
    assert all(cost > 1e-12 for cost in profile.decode.weight_s.values())
    seen.reads = [Sized(size, 1e-4) for size in (65536, 262144, 1048576)]
    assert fit_storage(seen, direct=True).value.bytes_per_s < 1e12


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda seen: seen.steps.clear(), "decoding at 2 bits"),
        (lambda seen: seen.ends.clear(), "graph embed"),
        (lambda seen: seen.runs.clear(), "whole runs"),
        (lambda seen: seen.tokens.clear(), "tokens"),
        (lambda seen: seen.rows.clear(), "token embeddings"),
        (lambda seen: seen.reads.clear(), "reads"),
    ],
)
def test_what_could_not_be_timed_is_named(spoil: Callable[[Observations], None], told: str) -> None:
    seen = observations(0.0)
    spoil(seen)
    with pytest.raises(ProfileError, match=f"no time of {told} makes sense; run `sti cal"):
        fitted(seen)


def test_times_that_contradict_one_another_are_named() -> None:
    seen = observations(0.0)
    works = [Workload(1, 16), Workload(1, 64), Workload(1, 256), Workload(4, 256)]
    heads = [EndTime("head", work, 100.0**-place) for place, work in enumerate(works)]
    seen.ends = [end for end in seen.ends if end.name != "head"] + heads
    assert fit_all(seen).problems == ["the times of graph head contradict one another"]


def test_a_fidelity_that_takes_many_times_as_long_as_a_higher_one_is_named() -> None:
    seen = observations(0.0)
    seen.steps = [
        replace(item, decode_s=40 * item.decode_s) if item.bits == 4 else item
        for item in seen.steps
    ]
    (problem,) = fit_all(seen).problems
    assert problem.startswith("decoding at 4 bits took ")
