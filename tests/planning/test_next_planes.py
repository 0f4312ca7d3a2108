"""What a plane more or less of a block means: compared with the plan that has it."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.device.profile import DeviceProfile
from sti.errors import PlanError, ProfileError
from sti.model.fidelity import fidelities, groups_of
from sti.model.manifest import Manifest, Plane
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.choice import Terms
from sti.planning.conditions import Conditions, as_measured
from sti.planning.extra_time import Extra
from sti.planning.next_planes import BlockBits, explain_blocks
from sti.planning.plan import EXACT, Plan, PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.prediction import predict
from sti.planning.preload_placement import place
from sti.planning.uniform import uniform_plan
from sti.planning.variants import variants_of
from tests.support.synthetic import make_manifest, make_profile

PACK = "0123456789abcdef"
KINDS = (SEQUENTIAL, PIPELINED, shared(2))
WORKLOAD = Workload(1, 32)
LADDER = (2, 3, 4, 6, 8)
QUALITY = Quality("accuracy", 1000, 0.01, (0.0, 20.0), (0.9, 0.5))


def make(seed: int, *, quality: int = 0) -> Manifest:
    found = make_manifest(
        Random(seed),
        layers=3,
        slices=6,
        ladder=LADDER,
        groups=(1, 2),
        submodels=((2, 4, 0.5), (1, 2, 2.0)),
    )
    return found._replace(quality=QUALITY) if quality else found


def profile_for(narrow: float | None = None) -> DeviceProfile:
    return make_profile(kinds=KINDS, bytes_per_s=4e8, narrow=narrow)


def between(manifest: Manifest, profile: DeviceProfile, share: float, preload: int = 0) -> Plan:
    """A plan with a latency between what the lowest and the highest fidelity take."""
    ends = [
        promised(uniform_plan(request(manifest, Target()), bits=bits, profile=profile), profile)
        for bits in (LADDER[0], LADDER[-1])
    ]
    target = Target(ends[0] + share * (ends[1] - ends[0]), preload)
    return make_plan(request(manifest, target), profile)


def request(manifest: Manifest, target: Target) -> PlanRequest:
    return PlanRequest(manifest, PACK, WORKLOAD, target)


def promised(plan: Plan, profile: DeviceProfile) -> float:
    assert plan.predicted is not None
    return plan.predicted.total_s * profile.runs[plan.threads.name].jitter


def explained(
    manifest: Manifest, plan: Plan, profile: DeviceProfile, *, asked: bool = False
) -> list[BlockBits]:
    conditions = as_measured(profile, WORKLOAD, plan.target)
    return explain_blocks(manifest, plan, conditions, conditions, asked=asked)


def with_plane(
    manifest: Manifest, plan: Plan, block: BlockBits, profile: DeviceProfile, *, more: bool
) -> Plan:
    """The plan with a plane more or less of a block, slice by slice."""
    submodel = manifest.submodel(plan.depth, plan.width)
    assert submodel is not None
    groups, counts = groups_of(manifest, submodel), []
    change = block.more if more else block.less
    assert change is not None
    for group, step in zip(groups, plan.steps, strict=True):
        found = list(step.counts)
        if (group.layer, group.kind) == (block.layer, block.kind):
            used = group.used(plan.width)
            for number, plane in enumerate(group.planes):
                if not more and plane.bits >= change.bits:
                    found[number] = 0
                while (
                    more and plane.bits <= change.bits and not _has_all(plane, found[number], used)
                ):
                    found[number] += 1
        counts.append(tuple(found))
    variants = variants_of(manifest, profile)
    steps = place(groups, counts, plan.target.preload_bytes, variants)
    return replace(plan, steps=steps)


def _has_all(plane: Plane, count: int, used: int) -> bool:
    """Whether so many shards of a plane reach all slices in use."""
    return set(range(used)) <= set(plane.order[:count])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("preload", [0, 300_000])
@pytest.mark.parametrize("narrow", [None, 0.6])
def test_changes_are_those_of_the_plan_that_has_the_plane(
    seed: int, share: float, preload: int, narrow: float | None
) -> None:
    manifest, profile = make(seed, quality=seed % 2), profile_for(narrow)
    plan = between(manifest, profile, share, preload)
    before = plan.predicted
    assert before is not None
    blocks = explained(manifest, plan, profile)
    assert [(block.layer, block.kind) for block in blocks] == list(
        dict.fromkeys((step.layer, step.kind) for step in plan.steps)
    )
    for block in blocks:
        for more, change in ((True, block.more), (False, block.less)):
            if change is None:
                assert (block.least_bits if more else block.most_bits) == LADDER[-1 if more else 0]
                continue
            other = with_plane(manifest, plan, block, profile, more=more)
            check_plan(replace(other, predicted=None), manifest, PACK, where="plan")
            after = predict(manifest, profile, other)
            assert change.loss == pytest.approx(after.loss - before.loss, abs=1e-9)
            assert change.bytes_read == after.bytes_read - before.bytes_read
            assert change.total_s == pytest.approx(after.total_s - before.total_s, abs=1e-9)
            if manifest.quality is None:
                assert change.metric is None
            else:
                expected = QUALITY.estimate(after.loss).value - QUALITY.estimate(before.loss).value
                assert change.metric == pytest.approx(expected, abs=1e-9)
            if narrow is None:  # which rounds, so that a plane more may lose
                assert (change.loss <= 1e-9) if more else (change.loss >= -1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_bits_are_those_of_the_slices_in_use(seed: int) -> None:
    manifest, profile = make(seed), profile_for()
    plan = between(manifest, profile, 0.3)
    for block in explained(manifest, plan, profile):
        used = [
            bits
            for step in plan.steps
            if (step.layer, step.kind) == (block.layer, block.kind)
            for group in [manifest.group(step.layer, step.kind, step.group)]
            for bits in fidelities(group, step.counts)[: group.used(plan.width)]
        ]
        assert (block.least_bits, block.most_bits) == (min(used), max(used))
        assert block.bits == pytest.approx(sum(used) / len(used))
        if block.more is not None:
            assert block.more.bits == LADDER[LADDER.index(min(used)) + 1]
        if block.less is not None:
            assert block.less.bits == max(used)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_late_is_what_no_threads_would_do_in_time(seed: int, share: float) -> None:
    manifest, profile = make(seed, quality=seed % 2), profile_for()
    plan = between(manifest, profile, share)
    latency_s = plan.target.latency_s
    assert latency_s is not None
    late = 0
    for block in explained(manifest, plan, profile):
        if block.more is None:
            assert block.reason == "highest"
            continue
        other = with_plane(manifest, plan, block, profile, more=True)
        soonest_s = math.inf
        for threads in KINDS:
            by = replace(other, threads=threads)
            by = replace(by, predicted=predict(manifest, profile, by))
            soonest_s = min(soonest_s, promised(by, profile))
        assert (soonest_s > latency_s) == (block.reason == "late")
        if block.reason == "late":
            late += 1
            assert block.late_s == pytest.approx(soonest_s - latency_s)
        else:
            assert block.late_s is None
    assert late or manifest.quality is not None


def test_what_is_in_time_is_not_noticed_or_was_not_considered() -> None:
    manifest, profile = make(1, quality=1), profile_for()
    plan = between(manifest, profile, 0.2)
    plan = replace(plan, target=Target(60.0))
    reasons = {}
    for residual in (0.0, 1e6):
        quality = QUALITY._replace(residual=residual)
        found = explained(manifest._replace(quality=quality), plan, profile)
        reasons[residual] = {block.reason for block in found if block.more is not None}
    assert reasons == {0.0: {"not considered"}, 1e6: {"unnoticed"}}
    plain = explained(manifest._replace(quality=None), plan, profile)
    assert {block.reason for block in plain if block.more is not None} == {"not considered"}


def test_uniform_plans_have_what_was_asked_for() -> None:
    manifest, profile = make(2), profile_for()
    for bits in LADDER:
        plan = uniform_plan(request(manifest, Target(1e-6)), bits=bits, profile=profile)
        for block in explained(manifest, plan, profile, asked=True):
            assert (block.bits, block.late_s) == (bits, None)
            assert block.reason == ("highest" if bits == LADDER[-1] else "asked")
            assert (block.more is None) == (bits == LADDER[-1])
            assert (block.less is None) == (bits == LADDER[0])


def test_shares_of_the_loss_are_those_of_the_lowest_fidelity() -> None:
    manifest, profile = make(3), profile_for()
    lowest, highest = (
        uniform_plan(request(manifest, Target()), bits=bits, profile=profile)
        for bits in (LADDER[0], LADDER[-1])
    )
    assert lowest.predicted is not None
    for block in explained(manifest, highest, profile):
        assert block.less is not None
        assert block.less.loss_share == pytest.approx(block.less.loss / lowest.predicted.loss)


def test_what_is_late_follows_from_what_the_plan_was_decided_with() -> None:
    """One plan for all lengths is shown for a text, and was made for a longer one."""
    manifest, profile = make(4), profile_for()
    plan = between(manifest, profile, 0.4)
    shown = as_measured(profile, WORKLOAD, plan.target)
    longer = as_measured(profile, Workload(1, 128), plan.target)
    ours, theirs = (
        explain_blocks(manifest, plan, shown, decided, asked=False) for decided in (shown, longer)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.more, mine.less) == (other.more, other.less)
        assert other.reason in ("late", "highest")
        if mine.late_s is not None and other.late_s is not None:
            assert other.late_s > mine.late_s


def test_what_is_late_follows_from_what_was_promised_then() -> None:
    manifest, profile = make(4), profile_for()
    plan = between(manifest, profile, 0.4)
    shown = as_measured(profile, WORKLOAD, plan.target)
    spreads = dict.fromkeys(profile.runs, 9.0)
    decided = shown._replace(terms=shown.terms._replace(spreads=spreads))
    for block in explain_blocks(manifest, plan, shown, decided, asked=False):
        if block.more is not None:
            assert plan.target.latency_s is not None
            assert block.late_s is not None
            assert block.late_s > 2.0 * plan.target.latency_s


def test_blocks_that_do_not_change_are_computed_as_the_plan_says() -> None:
    """A plan made where no products are narrow, on a machine that would prefer them."""
    manifest, profile = make(4), profile_for(0.2)
    plan = uniform_plan(
        request(manifest, Target()), bits=2, profile=profile, variants=(EXACT,), threads=SEQUENTIAL
    )
    before = predict(manifest, profile, plan)
    for block in explained(manifest, plan, profile, asked=True):
        assert block.more is not None
        other = with_plane(manifest, plan, block, profile, more=True)
        steps = tuple(
            new if (new.layer, new.kind) == (block.layer, block.kind) else old
            for new, old in zip(other.steps, plan.steps, strict=True)
        )
        after = predict(manifest, profile, replace(plan, steps=steps))
        assert block.more.total_s == pytest.approx(after.total_s - before.total_s, abs=1e-9)


def test_changes_count_what_runs_take_beyond_their_lanes() -> None:
    manifest, profile = make(5), profile_for()
    plan = between(manifest, profile, 0.4)
    assert plan.predicted is not None
    names = [threads.name for threads in KINDS]
    # A run of a lower price takes as much less of what is shared.
    extra = Extra(shared_s=1.0, reference_s=100.0 * plan.predicted.total_s)
    terms = Terms(plan.target.latency_s, dict.fromkeys(names, extra), {}, math.inf)
    shown = as_measured(profile, WORKLOAD, plan.target)
    slower = Conditions(profile, WORKLOAD, terms)
    plain, more = (
        explain_blocks(manifest, plan, conditions, shown, asked=False)
        for conditions in (shown, slower)
    )
    factor = 1.0 + 1.0 / extra.reference_s
    for one, other in zip(plain, more, strict=True):
        if one.more is not None and other.more is not None:
            assert other.more.total_s == pytest.approx(factor * one.more.total_s, abs=1e-9)


def test_plans_of_other_packs_and_machines_are_refused() -> None:
    manifest, profile = make(0), profile_for()
    plan = between(manifest, profile, 0.5)
    with pytest.raises(PlanError, match="depth 9 x width 3"):
        explained(manifest, replace(plan, depth=9, width=3), profile)
    alone = make_profile(kinds=(SEQUENTIAL,))
    with pytest.raises(ProfileError):
        explained(manifest, replace(plan, threads=PIPELINED), alone)
