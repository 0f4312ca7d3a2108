"""Baselines against reasoning from first principles, on made-up packs and machines."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.evaluation.baselines import Baseline, Baselines, Contender, memory_bytes, planned
from sti.device.lanes import DECODE, PIPELINED, SEQUENTIAL, shared
from sti.device.profile import DeviceProfile
from sti.model.fidelity import fidelities
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.prediction import mean_bits
from sti.planning.preload_placement import READ_AHEAD
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import total_bytes
from tests.support.synthetic import make_manifest, make_profile

PACK = "pack"
WORKLOAD = Workload(1, 16)
KINDS = (SEQUENTIAL, PIPELINED, shared(2))
SMALLER = ((2, 2, 0.4), (1, 3, 0.9), (1, 1, 2.5))


def manifest_of(seed: int) -> Manifest:
    return make_manifest(Random(seed), groups=(1, 2), submodels=SMALLER, orders="ranked")


def profile_of(seed: int) -> DeviceProfile:
    return make_profile(Random(seed), ladder=(2, 4, 8), kinds=KINDS)


def uniform(manifest: Manifest, profile: DeviceProfile, bits: int, preload: int) -> list[Plan]:
    target = Target(None, preload)
    return [
        uniform_plan(
            PlanRequest(manifest, PACK, WORKLOAD, target),
            bits=bits,
            profile=profile,
            depth=submodel.depth,
            width=submodel.width,
        )
        for submodel in manifest.submodels
    ]


def layers_s(
    manifest: Manifest, profile: DeviceProfile, plan: Plan
) -> dict[int, tuple[float, float]]:
    """Seconds to read each layer, and to decode and compute it, added up by hand."""
    found: dict[int, tuple[float, float]] = {}
    for item in plan.steps:
        group = manifest.group(item.layer, item.kind, item.group)
        used = group.used(plan.width)
        work = profile.compute_s(item.kind, WORKLOAD, used)
        if group.first + used == plan.width:
            work += profile.compute_s("connect", WORKLOAD, plan.width)
        for bits in fidelities(group, item.counts):
            if bits:
                work += profile.decode.shard_s + group.shard_weights * profile.decode.weight_s[bits]
        ranges = group_ranges(group, item.counts)
        read = profile.storage.read_s(len(ranges), total_bytes(ranges))
        before = found.get(item.layer, (0.0, 0.0))
        found[item.layer] = before[0] + read, before[1] + work
    return found


def around_s(profile: DeviceProfile, plan: Plan) -> tuple[float, float, float]:
    """Seconds before the embedding, of it, and behind the last layer."""
    tokens = WORKLOAD.batch * WORKLOAD.tokens
    embed, head = (profile.compute_s(name, WORKLOAD, plan.width) for name in ("embed", "head"))
    return (
        (profile.tokenize_s + profile.storage.row_s) * tokens,
        embed,
        head + profile.run(SEQUENTIAL).fixed_s,
    )


def serial_s(manifest: Manifest, profile: DeviceProfile, plan: Plan) -> float:
    """Everything after the other."""
    layers = layers_s(manifest, profile, plan).values()
    return sum(around_s(profile, plan)) + sum(read + work for read, work in layers)


def layerwise_s(manifest: Manifest, profile: DeviceProfile, plan: Plan) -> float:
    """A layer is read while the one before it is worked on; two of them fit into memory."""
    start, embed, rest = around_s(profile, plan)
    read_end, ends = start, [start + embed]
    for read, work in layers_s(manifest, profile, plan).values():
        free = ends[-2] if len(ends) > 2 else 0.0
        read_end = max(read_end, free) + read
        ends.append(max(read_end, ends[-1]) + work)
    return ends[-1] + rest


def brute_force(
    manifest: Manifest, profile: DeviceProfile, target: Target
) -> dict[str, tuple[float, int] | None]:
    """Least loss and then fewest bytes of each baseline; None where nothing of it fits."""
    assert target.latency_s is not None
    limit = target.latency_s / profile.run(SEQUENTIAL).jitter  # that of all threads
    options: dict[str, list[tuple[float, Plan]]] = {"load then execute": []}
    for bits in manifest.ladder:
        streamed = uniform(manifest, profile, bits, 0)
        options[f"layer pipeline, {bits} bits"] = [
            (layerwise_s(manifest, profile, plan), plan) for plan in streamed
        ]
        options["load then execute"] += [(serial_s(manifest, profile, p), p) for p in streamed]
        given = uniform(manifest, profile, bits, target.preload_bytes)
        options[f"our pipeline, {bits} bits"] = [(total_of(plan), plan) for plan in given]
        if target.preload_bytes:
            held = [plan for plan in given if bytes_of(plan) == 0]
            options[f"in memory, {bits} bits"] = [(total_of(plan), plan) for plan in held]
    found: dict[str, tuple[float, int] | None] = {}
    for name, plans in options.items():
        fitting = [(loss_of(plan), bytes_of(plan)) for total, plan in plans if total <= limit]
        found[name] = min(fitting) if fitting else None
    return found


def total_of(plan: Plan) -> float:
    assert plan.predicted is not None
    return plan.predicted.total_s


def loss_of(plan: Plan) -> float:
    assert plan.predicted is not None
    return plan.predicted.loss


def bytes_of(plan: Plan) -> int:
    assert plan.predicted is not None
    return plan.predicted.bytes_read


TARGETS = [
    Target(latency, preload)
    for latency, preload in product((3e-4, 2e-3, 4e-3, 8e-3, 1.0), (0, 90_000, 10**9))
]


@pytest.mark.parametrize("seed", range(12))
def test_each_baseline_is_the_best_that_fits(seed: int) -> None:
    manifest, profile = manifest_of(seed), profile_of(seed)
    baselines = Baselines(manifest, PACK, profile, WORKLOAD)
    for target in TARGETS:
        expected = brute_force(manifest, profile, target)
        found = {item.name: item.best for item in baselines.under(target)}
        assert found.keys() == expected.keys()
        for name, best in found.items():
            choice = None if best is None else (best.loss, best.bytes_read)
            assert choice == expected[name], (target, name)


@pytest.mark.parametrize("seed", range(4))
def test_load_then_execute_takes_the_sum_of_its_steps(seed: int) -> None:
    manifest, profile = manifest_of(seed), profile_of(seed)
    for item in Baselines(manifest, PACK, profile, WORKLOAD).under(Target(1.0, 0)):
        if item.best is not None and item.best.mode == "sequential":
            plan = item.best.plan
            assert item.name == "load then execute"
            assert item.best.total_s == pytest.approx(serial_s(manifest, profile, plan), rel=1e-12)
            assert plan.threads == SEQUENTIAL
            assert item.best.total_s == total_of(plan)
            return
    pytest.fail("nothing was executed one step after the other")


def test_of_equally_good_ones_the_one_with_fewer_bytes_is_chosen_even_if_slower() -> None:
    manifest, profile = manifest_of(0), profile_of(0)
    groups = tuple(
        group._replace(
            planes=tuple(p._replace(gains=(0.0,) * group.slices) for p in group.planes),
        )
        for group in manifest.groups
    )
    manifest = manifest._replace(groups=groups)
    slow_at_two = replace(profile.decode, weight_s={2: 1e-7, 4: 1e-9, 8: 1e-9})
    found = Baselines(manifest, PACK, profile.with_lanes({DECODE: slow_at_two}), WORKLOAD)
    (serial,) = (i.best for i in found.under(Target(10.0, 0)) if i.name == "load then execute")
    assert serial is not None
    assert mean_bits(manifest, serial.plan) == 2.0


def all_of(target: Target, seed: int = 1) -> tuple[Manifest, tuple[Baseline, ...]]:
    manifest, profile = manifest_of(seed), profile_of(seed)
    return manifest, Baselines(manifest, PACK, profile, WORKLOAD).under(target)


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_is_chosen_can_be_run_and_keeps_the_limits(target: Target) -> None:
    manifest, found = all_of(target)
    for item in found:
        assert (item.best is None) == bool(item.why_not)
        if item.best is None:
            continue
        check_plan(item.best.plan, manifest, PACK, where=item.name)
        assert item.best.plan.target == target
        held = sum(step.preload_bytes for step in item.best.plan.steps)
        assert held <= target.preload_bytes
        if "our" not in item.name and "memory" not in item.name:
            assert held == 0
        if "memory" in item.name:
            assert item.best.bytes_read == 0


def test_what_does_not_fit_says_what_it_needs() -> None:
    _, found = all_of(Target(1e-5, 1000))
    reasons = {item.name: item.why_not for item in found}
    assert reasons["in memory, 8 bits"].startswith("needs a preload of ")
    assert reasons["layer pipeline, 8 bits"].startswith("needs ")
    assert reasons["layer pipeline, 8 bits"].endswith("s")


@pytest.mark.parametrize("preload", [0, 10**9])
def test_only_our_own_pipeline_is_not_in_the_paper(preload: int) -> None:
    _, found = all_of(Target(1.0, preload))
    assert {item.name for item in found if not item.in_paper} == {
        f"our pipeline, {bits} bits" for bits in (2, 4, 8)
    }


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(1e-3, 2e-2), st.sampled_from((0, 50_000, 400_000)))
def test_the_plan_expects_no_more_loss_than_any_baseline(
    seed: int, latency_s: float, preload: int
) -> None:
    manifest, profile = manifest_of(seed), profile_of(seed)
    target = Target(latency_s, preload)
    baselines = [
        item.best
        for item in Baselines(manifest, PACK, profile, WORKLOAD).under(target)
        if item.best is not None and item.best.mode == "planned"
    ]
    if baselines:
        plan = planned(make_plan(PlanRequest(manifest, PACK, WORKLOAD, target), profile))
        assert plan.loss <= min(baseline.loss for baseline in baselines) * (1 + 1e-9) + 1e-12


def test_memory_is_what_is_held_read_ahead_and_decoded() -> None:
    manifest, profile = manifest_of(0), profile_of(0)
    sizes = [group.length for group in manifest.groups]  # attention, ffn 0, ffn 1, and again
    buffer = max(3 * 65536, 2 * 131072)  # of the largest group
    whole, half = uniform(manifest, profile, 8, 0)[0], uniform(manifest, profile, 8, sizes[0])[0]
    assert READ_AHEAD == 3
    streamed = memory_bytes(manifest, planned(whole))
    most = max(sum(sizes[:4]), sum(sizes[1:5]), sum(sizes[2:]))  # what is read ahead
    assert streamed == most + whole.threads.buffers * buffer
    assert memory_bytes(manifest, planned(half)) == streamed + sizes[0]
    alone = replace(whole, threads=SEQUENTIAL)
    for mode in ("sequential", "layerwise"):  # of two layers, both are held
        assert memory_bytes(manifest, Contender(alone, mode, 1.0)) == sum(sizes) + buffer


def test_bits_are_averaged_over_weights_in_use() -> None:
    manifest, profile = manifest_of(0), profile_of(0)
    (plan, *_, narrow) = uniform(manifest, profile, 4, 0)
    assert mean_bits(manifest, plan) == mean_bits(manifest, narrow) == 4.0
    lowest = plan.steps[0]._replace(counts=(3, 0, 0))
    mixed = replace(plan, steps=(lowest, *plan.steps[1:]))
    assert mean_bits(manifest, mixed) == pytest.approx(4.0 - 2.0 * 65536 / (2 * 196608))
