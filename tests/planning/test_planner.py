"""The planner: as good as brute force, within its target, and clear where it cannot be."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import pytest

import sti
from benchmarks import picked_plans, planner_gap
from sti.device.lanes import (
    COMPUTE,
    DECODE,
    PIPELINED,
    SEQUENTIAL,
    STORAGE,
    LaneThreads,
    shared,
)
from sti.errors import InfeasibleError, InputError, PlanError, ProfileError
from sti.model.fidelity import fidelities
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.beam_search import Search
from sti.planning.check import check_plan
from sti.planning.cost_model import promised_s
from sti.planning.lane_threads import are_known, lane_choices, usual_threads
from sti.planning.plan import EXACT, PLANNING, Plan, PlanRequest, Prediction, Target, connect_name
from sti.planning.plan import NARROW as NARROW_VARIANT
from sti.planning.planner import make_plan
from sti.planning.prediction import predict
from sti.planning.preload_placement import place
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import skip, total_bytes
from sti.units import parse_size
from tests.support.brute_force import PACK, Instance, gap, random_instance, with_curves
from tests.support.synthetic import BERT_BASE, LADDER, MINILM, make_manifest, make_profile

WORKLOAD = Workload(1, 128)
ALL_KINDS = (SEQUENTIAL, PIPELINED, shared(2))
KINDS = (*ALL_KINDS, shared(1), shared(3))
BYTES_PER_S = 0.6e9
"""Bytes a second: slow enough that more bits take more time."""
SMALL = make_manifest(Random(5), layers=3, slices=4, ladder=LADDER)
GROUPED = make_manifest(
    Random(5), layers=2, slices=5, ladder=LADDER, groups=(2, 3), submodels=[(2, 3, 0.5)]
)
"""Attention in groups of 2 and 3 slices, ffn of 1, 2 and 2; the smaller submodel cuts one of them
and leaves one out."""
NARROW = make_manifest(Random(7), slices=4, submodels=[(1, 4, 1.0), (2, 2, 2.0), (1, 3, 3.0)])


def prediction(plan: Plan) -> Prediction:
    assert plan.predicted is not None
    return plan.predicted


def plan_for(
    latency_s: float | None, *, manifest: Manifest = SMALL, preload: int = 0, jitter: float = 1.0
) -> Plan:
    profile = make_profile(ladder=manifest.ladder, jitter=jitter, bytes_per_s=BYTES_PER_S)
    return make_plan(PlanRequest(manifest, PACK, WORKLOAD, Target(latency_s, preload)), profile)


def uniform(bits: int, *, manifest: Manifest = SMALL, preload: int = 0) -> Plan:
    profile = make_profile(ladder=manifest.ladder, jitter=1.0, bytes_per_s=BYTES_PER_S)
    target = Target(None, preload)
    return uniform_plan(PlanRequest(manifest, PACK, WORKLOAD, target), bits=bits, profile=profile)


def total_s(bits: int, *, manifest: Manifest = SMALL, preload: int = 0) -> float:
    return prediction(uniform(bits, manifest=manifest, preload=preload)).total_s


def between(low: int, high: int, *, manifest: Manifest = SMALL) -> float:
    """A latency halfway between two uniform fidelities."""
    return 0.5 * (total_s(low, manifest=manifest) + total_s(high, manifest=manifest))


@pytest.mark.parametrize("threads", KINDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_no_plan_has_less_loss_than_the_planners_on_small_models(
    seed: int, threads: LaneThreads
) -> None:
    rng = Random(1000 + seed)
    gaps = [gap(random_instance(rng, threads)) for _ in range(10)]
    known = [value for value in gaps if value is not None]
    assert len(known) >= 5
    assert max(known) <= 1e-9


def test_without_a_latency_everything_is_read() -> None:
    plan = plan_for(None)
    assert all(set(item.counts) == {4} for item in plan.steps)
    assert prediction(plan).loss == 0.0
    assert prediction(plan).limited_by == "quality"
    assert plan.steps == plan_for(10.0).steps


def test_a_plan_is_better_than_any_uniform_one_in_the_same_time() -> None:
    for manifest in (SMALL, make_manifest(Random(1), ladder=LADDER, orders="ranked", **MINILM)):
        for bits in LADDER[1:-1]:
            latency_s = total_s(bits, manifest=manifest) * 1.001
            plan = plan_for(latency_s, manifest=manifest)
            assert prediction(plan).total_s <= latency_s
            assert prediction(plan).loss < prediction(uniform(bits, manifest=manifest)).loss


@pytest.mark.parametrize("preload", [0, 150_000])
def test_plans_of_groups_of_different_sizes_fit_and_are_better_than_uniform_ones(
    preload: int,
) -> None:
    narrow = GROUPED._replace(submodels=GROUPED.submodels[1:])
    for manifest, steps in ((GROUPED, 10), (narrow, 8)):
        for bits in LADDER[1:-1]:
            latency_s = total_s(bits, manifest=manifest, preload=preload) * 1.001
            plan = plan_for(latency_s, manifest=manifest, preload=preload)
            check_plan(plan, manifest, PACK, where="plan")
            assert len(plan.steps) in {steps, 8}
            assert prediction(plan).total_s <= latency_s
            same = uniform(bits, manifest=manifest, preload=preload)
            assert prediction(plan).loss < prediction(same).loss


def test_time_left_by_storage_at_the_start_is_used() -> None:
    """Compute alone would meet the latency with ease; the rest of it goes into fidelity."""
    latency_s = between(6, 8)
    plan = plan_for(latency_s)
    assert prediction(plan).total_s > 0.97 * latency_s
    assert prediction(plan).loss > 0.0


def test_plans_of_bert_base_meet_their_latency_and_gain_from_time_and_preload() -> None:
    manifest = make_manifest(Random(2), ladder=LADDER, orders="ranked", **BERT_BASE)
    low, high = total_s(2, manifest=manifest), total_s(8, manifest=manifest)
    losses = []
    for share in (0.1, 0.4, 0.7):
        latency_s = low + share * (high - low)
        plan = plan_for(latency_s, manifest=manifest)
        check_plan(plan, manifest, PACK, where="plan")
        assert prediction(plan).total_s <= latency_s
        losses.append(prediction(plan).loss)
        preloaded = plan_for(latency_s, manifest=manifest, preload=4 << 20)
        assert prediction(preloaded).loss < losses[-1]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_more_time_or_more_preload_never_costs_quality_on_small_models(seed: int) -> None:
    rng = Random(seed)
    instance = random_instance(rng)
    ladder = instance.manifest.ladder
    low, high = instance.uniform_s(ladder[0]), instance.uniform_s(ladder[-1])
    losses: list[list[float]] = []
    for preload in (0, 50_000, 400_000):
        row = []
        for share in (0.0, 0.2, 0.5, 0.8, 1.2):
            latency_s = (low + share * (high - low)) * 1.0001
            row.append(_loss(replace(instance, target=Target(latency_s, preload))))
        losses.append(row)
    for row in losses:
        assert row == sorted(row, reverse=True)
    for column in zip(*losses, strict=True):
        assert list(column) == sorted(column, reverse=True)


def _loss(instance: Instance) -> float:
    try:
        return prediction(instance.plan()).loss
    except InfeasibleError:
        return float("inf")


def test_a_deadline_leaves_room_for_the_slowest_of_twenty_runs() -> None:
    latency_s = between(4, 8)
    steady, jittery = plan_for(latency_s), plan_for(latency_s, jitter=1.1)
    assert prediction(jittery).total_s * 1.1 <= latency_s
    assert prediction(steady).total_s > prediction(jittery).total_s


def test_the_same_question_gets_the_same_plan() -> None:
    latency_s = between(3, 6)
    assert plan_for(latency_s) == plan_for(latency_s)


def test_read_ahead_and_threads_stand_in_the_plan() -> None:
    profile = make_profile(kinds=(shared(3),))
    plan = make_plan(PlanRequest(SMALL, PACK, WORKLOAD, Target()), profile, read_ahead=2)
    assert (plan.read_ahead, plan.threads) == (2, shared(3))
    assert (plan.pack, plan.workload, plan.target) == (PACK, WORKLOAD, Target())


@pytest.mark.parametrize("latency", [None, 0.99, 2.0])
def test_a_plan_runs_under_the_threads_that_promise_to_end_it_first(latency: float | None) -> None:
    """Whichever they are: each is the fastest on some machine."""
    taken = set()
    for jitters in ((1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (1.0, 4.0, 4.0)):
        profile = make_profile(kinds=ALL_KINDS, jitter=1.0, bytes_per_s=BYTES_PER_S)
        runs = {
            threads.name: replace(profile.run(threads), jitter=jitter)
            for threads, jitter in zip(ALL_KINDS, jitters, strict=True)
        }
        profile = replace(profile, runs=runs)
        request = PlanRequest(SMALL, PACK, WORKLOAD, Target())
        whole = uniform_plan(request, bits=8, profile=profile)
        promised = promised_s(profile, prediction(whole).total_s, whole.threads)
        if latency is not None:
            request = request._replace(target=Target(latency * promised))
        plan = make_plan(request, profile)
        others = [predict(SMALL, profile, replace(plan, threads=each)) for each in ALL_KINDS]
        promises = [
            promised_s(profile, found.total_s, each)
            for each, found in zip(ALL_KINDS, others, strict=True)
        ]
        assert plan.threads == ALL_KINDS[promises.index(min(promises))]
        taken.add(plan.threads)
    assert taken == set(ALL_KINDS)


def test_a_latency_that_only_other_threads_than_those_searched_under_meet_is_met() -> None:
    """A small submodel may end first under other threads than the full one."""
    rng = Random(3)
    for _ in range(20):
        instance = random_instance(rng)
        profile = make_profile(rng, ladder=instance.manifest.ladder, kinds=ALL_KINDS)
        ends = [
            promised_s(profile, prediction(plan).total_s, plan.threads)
            for submodel in instance.manifest.submodels
            for bits in instance.manifest.ladder
            for threads in ALL_KINDS
            for plan in [
                uniform_plan(
                    instance.request,
                    bits=bits,
                    profile=profile,
                    threads=threads,
                    depth=submodel.depth,
                    width=submodel.width,
                )
            ]
        ]
        target = Target(min(ends) * (1 + 1e-9), instance.target.preload_bytes)
        plan = make_plan(instance.request._replace(target=target), profile)
        promise = promised_s(profile, prediction(plan).total_s, plan.threads)
        assert promise <= target.latency_s


def test_narrow_steps_are_planned_where_they_are_faster_and_worth_it() -> None:
    for narrow in (None, 0.5):
        profile = make_profile(jitter=1.0, narrow=narrow)
        request = PlanRequest(SMALL, PACK, WORKLOAD)
        low = uniform_plan(request, bits=4, profile=profile)
        assert {step.variant for step in low.steps} == {NARROW_VARIANT if narrow else EXACT}
        exact = uniform_plan(request, bits=4, profile=profile, variants=(EXACT,))
        assert (prediction(low).total_s < prediction(exact).total_s) == (narrow is not None)
        assert (prediction(low).loss > prediction(exact).loss) == (narrow is not None)
        between_s = 0.5 * (prediction(low).total_s + prediction(exact).total_s) * (1 + 1e-9)
        plan = make_plan(request._replace(target=Target(between_s)), profile)
        for step in plan.steps:
            group = SMALL.group(step.layer, step.kind, step.group)
            few = max(fidelities(group, step.counts)) <= 4
            assert (step.variant == NARROW_VARIANT) == (few and narrow is not None)
        check_plan(plan, SMALL, PACK, where="plan")


def test_equal_losses_are_settled_by_bytes() -> None:
    """Planes that gain nothing are not read when there is a deadline to gain from it."""
    groups = []
    for group in SMALL.groups:
        *below, top = group.planes
        zeros = (0.0,) * group.slices
        groups.append(group._replace(planes=(*below, top._replace(gains=zeros))))
    manifest = SMALL._replace(groups=tuple(groups))
    plan = plan_for(between(6, 8, manifest=manifest), manifest=manifest)
    assert prediction(plan).loss == 0.0
    assert all(item.counts == (4, 4, 4, 4, 0) for item in plan.steps)


def test_smaller_submodels_are_taken_when_they_lose_less() -> None:
    whole = plan_for(None, manifest=NARROW)
    assert (whole.depth, whole.width) == (2, 4)
    sizes = set()
    low, high = 0.3 * total_s(2, manifest=NARROW), total_s(8, manifest=NARROW)
    for step in range(20):
        latency_s = low + (high - low) * step / 20
        try:
            plan = plan_for(latency_s, manifest=NARROW)
        except InfeasibleError:
            continue
        check_plan(plan, NARROW, PACK, where="plan")
        assert prediction(plan).total_s <= latency_s
        sizes.add((plan.depth, plan.width))
    assert len(sizes) >= 2


def test_a_submodel_that_suffers_less_from_missing_planes_is_taken() -> None:
    """Without curves the full model would be: its gains are the same, its own loss is less."""
    manifest = make_manifest(Random(7), slices=4, submodels=[(2, 3, 0.01)])
    latency_s = between(2, 8, manifest=manifest)
    plain = plan_for(latency_s, manifest=manifest)
    assert (plain.depth, plain.width) == (2, 4)
    hardy = manifest.submodels[1]._replace(missing=(0.0, 100.0), losses=(0.01, 0.02))
    steep = manifest.submodels[0]._replace(missing=(0.0, 1.0), losses=(0.0, 50.0))
    curved = manifest._replace(submodels=(steep, hardy))
    plan = plan_for(latency_s, manifest=curved)
    assert (plan.depth, plan.width) == (2, 3)
    assert prediction(plan).loss == pytest.approx(0.01, rel=1.0)
    assert prediction(plan).total_s <= latency_s


def test_equal_losses_of_submodels_are_settled_by_bytes() -> None:
    manifest = make_manifest(Random(7), slices=4, submodels=[(2, 3, 0.0), (2, 2, 1e-9)])
    for latency_s in (None, 10.0):
        plan = plan_for(latency_s, manifest=manifest)
        assert (plan.depth, plan.width) == (2, 3)
    flat = manifest.submodels[1]._replace(missing=(0.0, 1e9), losses=(0.0, 0.0))
    manifest = manifest._replace(submodels=(manifest.submodels[0], flat))
    plan = plan_for(between(2, 8, manifest=manifest), manifest=manifest)
    assert (plan.depth, plan.width) == (2, 3)
    assert prediction(plan).loss == 0.0


def test_of_many_submodels_few_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = planner_gap.elastic_manifest(layers=3, slices=8, curves=True)
    assert len(manifest.submodels) == 24
    searched = []
    original = Search.run

    def counting(self: Search, ceiling: float) -> list[tuple[int, ...]] | None:
        searched.append(self)
        return original(self, ceiling)

    monkeypatch.setattr(Search, "run", counting)
    profile = make_profile(bytes_per_s=2e8, jitter=1.0)
    whole = uniform_plan(PlanRequest(manifest, PACK, WORKLOAD), bits=8, profile=profile)
    for share in (0.8, 0.6, 0.4, 0.2):
        searched.clear()
        target = Target(share * prediction(whole).total_s, 0)
        make_plan(PlanRequest(manifest, PACK, WORKLOAD, target), profile)
        assert 1 <= len(searched) <= 2


@pytest.mark.parametrize("seed", range(25))
def test_leaving_submodels_unsearched_costs_nothing(seed: int) -> None:
    """The plan is that of the best submodel when each is planned for on its own."""
    rng = Random(seed)
    sizes = [(n, m) for n in (1, 2) for m in (1, 2, 3)][:-1]
    losses = [(n, m, rng.uniform(0.0, 0.3) * (9 - n * m)) for n, m in sizes]
    manifest = with_curves(rng, make_manifest(rng, submodels=losses), share=0.8)
    profile = make_profile(bytes_per_s=3e8, jitter=1.0)
    instance = Instance(manifest, profile, WORKLOAD, Target(None, rng.choice((0, 90_000))), 1)
    low, high = 0.3 * instance.uniform_s(2), instance.uniform_s(8)
    for share in (0.1, 0.35, 0.6, 0.85):
        timed = replace(instance, target=Target(low + share * (high - low), 0))
        alone = []
        for submodel in manifest.submodels:
            with suppress(InfeasibleError):
                one = replace(timed, manifest=manifest._replace(submodels=(submodel,)))
                alone.append(prediction(one.plan()).loss)
        assert _loss(timed) == min(alone, default=float("inf"))


def test_a_higher_fidelity_is_found_where_only_that_is_fast_enough() -> None:
    """As on a machine whose decoder is slow at the lowest."""
    fast = make_profile(ladder=SMALL.ladder, jitter=1.0)
    weight_s = {bits: 1e-7 if bits == 2 else 1e-10 for bits in LADDER}
    profile = fast.with_lanes({DECODE: replace(fast.decode, weight_s=weight_s)})
    low, quick, high = (
        prediction(uniform_plan(PlanRequest(SMALL, PACK, WORKLOAD), bits=bits, profile=profile))
        for bits in (2, 3, 8)
    )
    latency_s = 0.5 * (quick.total_s + high.total_s)
    assert latency_s < 0.5 * low.total_s
    found = prediction(make_plan(PlanRequest(SMALL, PACK, WORKLOAD, Target(latency_s, 0)), profile))
    assert found.total_s <= latency_s
    assert found.loss < quick.loss


def test_a_plan_says_what_quality_to_expect() -> None:
    quality = Quality("accuracy", 500, 0.005, (0.0, 4.0), (0.97, 0.5))
    manifest = SMALL._replace(quality=quality)
    losses, values = [], []
    for bits in (2, 4, 8):
        found = prediction(plan_for(between(2, 8), manifest=manifest))
        assert found.quality == quality.estimate(found.loss)
        found = prediction(uniform(bits, manifest=manifest))
        assert found.quality is not None
        losses.append(found.loss)
        values.append(found.quality.value)
    assert losses == sorted(losses, reverse=True)
    assert values == sorted(values) and values[-1] == 0.97
    assert prediction(uniform(2)).quality is None


def test_remembered_plans_are_those_of_this_planner() -> None:
    """Where this fails on purpose, raise ``PLANNING`` and put the new digest here."""
    quality = Quality("accuracy", 500, 0.1, (0.0, 1.0, 4.0), (0.97, 0.97, 0.5))
    chosen = []
    for manifest in (SMALL, NARROW, NARROW._replace(quality=quality), GROUPED):
        for share, preload in product((0.85, 0.95, 1.1), (0, 60_000)):
            latency_s = share * total_s(8, manifest=manifest)
            plan = plan_for(latency_s, manifest=manifest, preload=preload)
            steps = [(item.counts, item.preload_bytes) for item in plan.steps]
            chosen.append((plan.depth, plan.width, steps))
    for manifest, share in product((SMALL, GROUPED), (0.85, 0.95)):
        profile = make_profile(kinds=ALL_KINDS, narrow=0.6, bytes_per_s=BYTES_PER_S)
        target = Target(share * total_s(8, manifest=manifest), 60_000)
        plan = make_plan(PlanRequest(manifest, PACK, WORKLOAD, target), profile)
        chosen.append((plan.threads, [(item.counts, item.variant) for item in plan.steps]))
    digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]
    assert (PLANNING, digest) == (5, "ee3f2faa26d57f2d")


def test_what_calibration_cannot_tell_from_nothing_is_not_read() -> None:
    quality = Quality("accuracy", 500, 0.1, (0.0, 1.0, 4.0), (0.97, 0.97, 0.5))
    manifest = SMALL._replace(quality=quality)
    enough = quality.indistinct_from(0.0)
    assert 1.0 < enough < 4.0
    whole, thrifty = prediction(plan_for(10.0)), prediction(plan_for(10.0, manifest=manifest))
    assert 0.5 * enough < thrifty.loss <= enough
    assert thrifty.bytes_read < 0.8 * whole.bytes_read
    assert (whole.limited_by, thrifty.limited_by) == ("quality", "quality")
    assert prediction(plan_for(None, manifest=manifest)).loss == 0.0


def test_bytes_that_make_no_difference_are_not_held_either_but_read_without_a_target() -> None:
    quality = Quality("accuracy", 500, 0.0, (0.0, 2.5, 9.0), (0.97, 0.97, 0.5))
    manifest = NARROW._replace(quality=quality)
    plans = [plan_for(10.0, manifest=item, preload=10**9) for item in (NARROW, manifest)]
    held = [sum(item.preload_bytes for item in plan.steps) for plan in plans]
    assert [prediction(plan).bytes_read for plan in plans] == [0, 0]
    assert held[1] < 0.8 * held[0]
    assert (plans[1].depth, plans[1].width) == (plans[0].depth, plans[0].width) == (2, 4)
    whole = plan_for(None, manifest=manifest)
    assert (whole.depth, whole.width) == (2, 4)
    assert all(set(item.counts) == {4} for item in whole.steps)


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("preload", [0, 60_000])
def test_fewer_bytes_never_cost_what_calibration_can_tell(share: float, preload: int) -> None:
    quality = Quality("accuracy", 500, 0.2, (0.0, 0.5, 9.0), (0.97, 0.96, 0.5))
    manifest = NARROW._replace(quality=quality)
    latency_s = share * total_s(8, manifest=NARROW)
    best = prediction(plan_for(latency_s, manifest=NARROW, preload=preload))
    found = prediction(plan_for(latency_s, manifest=manifest, preload=preload))
    assert found.loss <= quality.indistinct_from(best.loss) + 1e-9
    assert found.bytes_read <= best.bytes_read
    assert found.total_s <= latency_s


def test_groups_of_layers_that_are_not_run_are_left_out() -> None:
    plan = uniform_plan(PlanRequest(NARROW, PACK, WORKLOAD), bits=4, depth=1, width=3)
    assert [(item.layer, item.kind) for item in plan.steps] == [(0, "attention"), (0, "ffn")]


@pytest.mark.parametrize("preload", [0, 150_000])
def test_an_impossible_latency_says_which_would_do(preload: int) -> None:
    with pytest.raises(InfeasibleError, match="raise the latency to") as caught:
        plan_for(1e-3, preload=preload, jitter=1.2)
    error = caught.value
    assert error.limit == "latency"
    assert error.asked == pytest.approx(1e-3)
    assert error.needed > 1e-3
    plan = plan_for(error.needed * (1 + 1e-6), preload=preload, jitter=1.2)
    assert prediction(plan).total_s * 1.2 == pytest.approx(error.needed, rel=1e-3)
    with pytest.raises(InfeasibleError):
        plan_for(error.needed * 0.99, preload=preload, jitter=1.2)


def test_an_impossible_latency_names_the_lane_and_the_preload_that_would_do() -> None:
    profile = make_profile(ladder=SMALL.ladder, bytes_per_s=2e7, jitter=1.0)
    with pytest.raises(InfeasibleError, match="most of it storage") as caught:
        make_plan(PlanRequest(SMALL, PACK, WORKLOAD, Target(0.02, 0)), profile)
    named = re.search(r"or the preload to (\S+ \S+)", str(caught.value))
    assert named is not None
    enough = Target(0.02, parse_size(named[1]))
    assert (
        prediction(make_plan(PlanRequest(SMALL, PACK, WORKLOAD, enough), profile)).total_s <= 0.02
    )


def test_no_preload_is_proposed_where_none_would_do() -> None:
    with pytest.raises(InfeasibleError, match="cannot be met") as caught:
        plan_for(1e-4)
    assert "preload" not in str(caught.value)


@pytest.mark.parametrize("target", [Target(0.0, 0), Target(-1.0, 0), Target(float("nan"), 0)])
def test_a_latency_that_is_not_above_zero_is_refused(target: Target) -> None:
    with pytest.raises(InputError, match="latency"):
        make_plan(PlanRequest(SMALL, PACK, WORKLOAD, target), make_profile())


def test_a_preload_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match="preload"):
        uniform_plan(PlanRequest(SMALL, PACK, WORKLOAD, Target(None, -1)), bits=4)


def test_a_profile_of_another_pack_is_refused() -> None:
    with pytest.raises(ProfileError, match="calibrate"):
        make_plan(PlanRequest(SMALL, PACK, WORKLOAD, Target()), make_profile(ladder=(2, 4)))


@pytest.mark.parametrize("bits", LADDER)
@pytest.mark.parametrize("size", [(None, None), (1, 3), (None, 2)])
@pytest.mark.parametrize("groups", [(1, 1), (3, 2)])
def test_uniform_plans_bring_exactly_the_slices_in_use_to_a_fidelity(
    bits: int, size: tuple[int | None, int | None], groups: tuple[int, int]
) -> None:
    manifest = make_manifest(
        Random(7), slices=4, ladder=LADDER, groups=groups, submodels=[(2, 2, 2.0), (1, 3, 3.0)]
    )
    plan = uniform_plan(
        PlanRequest(manifest, PACK, WORKLOAD), bits=bits, depth=size[0], width=size[1]
    )
    check_plan(plan, manifest, PACK, where="plan")
    for item in plan.steps:
        group = manifest.group(item.layer, item.kind, item.group)
        used = group.used(plan.width)
        assert used > 0
        found = fidelities(group, item.counts)
        assert found == (bits,) * used + (0,) * (group.slices - used)
    assert plan.predicted is None
    assert plan.threads == PIPELINED
    assert {step.variant for step in plan.steps} == {EXACT}


def test_a_uniform_plan_names_the_ladder_when_asked_for_another_fidelity() -> None:
    with pytest.raises(InputError, match=r"5 bits.*2, 3, 4, 6, 8 bits"):
        uniform_plan(PlanRequest(SMALL, PACK, WORKLOAD), bits=5)


def test_a_uniform_plan_names_the_submodels_when_asked_for_another() -> None:
    with pytest.raises(InputError, match=r"1 x width 2.*2 x 4, 1 x 4, 2 x 2, 1 x 3"):
        uniform_plan(PlanRequest(NARROW, PACK, WORKLOAD), bits=4, depth=1, width=2)


def test_a_uniform_plan_never_refuses_a_latency() -> None:
    profile = make_profile()
    target = Target(1e-6, 0)
    plan = uniform_plan(PlanRequest(SMALL, PACK, WORKLOAD, target), bits=8, profile=profile)
    assert prediction(plan).total_s > 1e-6
    assert prediction(plan).limited_by == "quality"


def test_threads_of_a_uniform_plan_are_the_fastest_of_the_profile_unless_given() -> None:
    profile = make_profile(kinds=ALL_KINDS)
    request = PlanRequest(SMALL, PACK, WORKLOAD)
    plans = {
        threads: uniform_plan(request, bits=4, profile=profile, threads=threads)
        for threads in ALL_KINDS
    }
    assert all(plan.threads == threads for threads, plan in plans.items())
    fastest = min(ALL_KINDS, key=lambda threads: prediction(plans[threads]).total_s)
    assert uniform_plan(request, bits=4, profile=profile) == plans[fastest]
    assert uniform_plan(request, bits=4, threads=shared(2)).threads == shared(2)


@pytest.mark.parametrize(
    ("compute", "cores", "expected"),
    [(1, 1, shared(1)), (1, 2, PIPELINED), (2, 2, shared(2)), (4, 8, shared(4))],
)
def test_without_a_profile_all_threads_compute(
    compute: int, cores: int, expected: LaneThreads
) -> None:
    assert usual_threads(SMALL, 512, compute=compute, cores=cores) == expected
    assert expected in lane_choices(compute, cores)
    assert are_known(expected)


def test_without_a_profile_few_tokens_are_not_divided() -> None:
    groups = [len(kind.groups) for kind in SMALL.kinds]
    few = usual_threads(SMALL, 16, compute=max(groups) + 1, cores=2)
    assert few == PIPELINED
    assert usual_threads(SMALL, 16, compute=min(groups), cores=2) != shared(max(groups) + 1)


@pytest.mark.parametrize("budget", [0, 1, 50_000, 333_333, 10**9])
def test_the_preload_holds_leading_bytes_of_leading_groups(budget: int) -> None:
    bare = uniform(4)
    steps = place(SMALL.groups, [step.counts for step in bare.steps], budget)
    sizes = [
        total_bytes(group_ranges(group, item.counts))
        for group, item in zip(SMALL.groups, steps, strict=True)
    ]
    held = [item.preload_bytes for item in steps]
    assert sum(held) == min(budget, sum(sizes))
    partly = [index for index, (a, b) in enumerate(zip(held, sizes, strict=True)) if a < b]
    assert all(held[index] == 0 for index in partly[1:])
    assert [item.counts for item in steps] == [item.counts for item in bare.steps]
    assert place(SMALL.groups, [step.counts for step in steps], 0) == bare.steps


def test_a_prediction_adds_up() -> None:
    plan = plan_for(between(3, 6), preload=200_000)
    found = prediction(plan)
    assert found == predict(SMALL, make_profile(jitter=1.0, bytes_per_s=BYTES_PER_S), plan)
    read = sum(
        total_bytes(skip(group_ranges(group, item.counts), item.preload_bytes))
        for group, item in zip(SMALL.groups, plan.steps, strict=True)
    )
    assert found.bytes_read == read
    last = found.span(COMPUTE, connect_name(2, "ffn"))
    assert last is not None and last.end_s < found.total_s
    for lane in (STORAGE, DECODE, COMPUTE):
        spans = [found.span(lane, step.name) for step in plan.steps]
        busy_s = sum(span.duration_s for span in spans if span is not None)
        assert 0 < busy_s <= found.busy_s[lane] <= found.total_s
    assert found.span("link", plan.steps[-1].name) is None
    assert set(found.busy_s) == set(found.lanes)
    assert found.stall_s + found.busy_s[COMPUTE] < found.total_s


def test_a_preload_beyond_all_bounds_is_a_whole_model() -> None:
    latency_s = 0.999 * total_s(8, preload=10**9)
    plans = [plan_for(latency_s, preload=preload) for preload in (10**9, 10**30)]
    assert plans[0].steps == plans[1].steps
    assert prediction(plans[0]).bytes_read == 0


def test_whole_preloaded_models_read_nothing() -> None:
    found = prediction(uniform(8, preload=10**9))
    assert found.bytes_read == 0
    assert found.total_s < total_s(8)


def test_a_saved_plan_predicts_what_it_says() -> None:
    plan = plan_for(between(2, 8))
    loaded = Plan.from_text(plan.to_text(), where="plan.json")
    assert (
        predict(SMALL, make_profile(jitter=1.0, bytes_per_s=BYTES_PER_S), loaded) == plan.predicted
    )


def test_predicting_a_plan_of_another_submodel_is_refused() -> None:
    plan = replace(uniform(4), depth=1)
    with pytest.raises(PlanError, match="not in the pack"):
        predict(SMALL, make_profile(), plan)


def test_the_lane_that_limits_is_named() -> None:
    fast = make_profile(bytes_per_s=1e12, jitter=1.0)
    costs = dict.fromkeys(LADDER, 1e-12)
    storage = replace(fast.storage, request_s=1e-9)
    quick = fast.with_lanes({STORAGE: storage})
    compute = quick.with_lanes({DECODE: replace(fast.decode, weight_s=costs)})
    costs = dict.fromkeys(LADDER, 1e-7)
    slow_decode = quick.with_lanes({DECODE: replace(fast.decode, weight_s=costs)})
    for profile, lane in (
        (compute, "compute"),
        (slow_decode, "decode"),
        (make_profile(bytes_per_s=1e7), "storage"),
    ):
        plan = uniform_plan(PlanRequest(SMALL, PACK, WORKLOAD), bits=4, profile=profile)
        assert prediction(plan).limited_by == lane


def test_planning_loads_no_run_time_library() -> None:
    code = (
        "import sys, sti.planning.planner\n"
        "wanted = ('onnxruntime', 'sti.backend', 'sti.storage.file_reader', 'sti.pipeline')\n"
        "loaded = {name for name in sys.modules if name.startswith(wanted)}\n"
        "sys.exit(', '.join(sorted(loaded)) or 0)"
    )
    root = Path(sti.__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_benchmark_reports_gaps_times_and_limits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picked_plans, "ROOMS", (0.1, 0.9))
    monkeypatch.setattr(picked_plans, "PRELOADS", (0,))
    arguments = ["--instances", "3", "--seed", "1", "--repeats", "1", "--no-wide"]
    arguments += ["--machines", "1"]
    planner_gap.main([*arguments, "--output", "json"])
    report = json.loads(capsys.readouterr().out)
    small, shapes, elastic, lost, taken, limits = (table["rows"] for table in report["tables"])
    assert small[0]["problems"] == 3
    assert {row["shape"] for row in shapes} == {"BERT-base", "MiniLM-L6"}
    assert {row["depth"] for row in elastic} > {6}
    assert [row["plans"] for row in lost] == [4] * 6
    assert len({row["pack or shape"] for row in taken}) == 3
    assert len(limits) == 8
