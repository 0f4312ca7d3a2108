"""Planes that a run left out: the plan of what was really run, and what to expect of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.model.fidelity import fidelities, groups_of, loss_of
from sti.model.group_layout import group_ranges
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.downgrade import LATE, Downgrade, downgraded
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import total_bytes
from tests.support.synthetic import LADDER, make_manifest, make_profile

PACK = "0123456789abcdef"
QUALITY = Quality("accuracy", 500, 0.005, (0.0, 9.0), (0.97, 0.4))
MANIFEST = make_manifest(
    Random(3), slices=5, ladder=LADDER, groups=(3, 2), submodels=[(2, 3, 0.5), (1, 5, 0.7)]
)._replace(
    quality=QUALITY,
)
PROFILE = make_profile(bytes_per_s=3e8, jitter=1.0)


@cache
def plan_of(width: int, preload: int, *, share: float | None) -> Plan:
    """A plan for the submodel of that width: all at 8 bits, or what is best in a share of that."""
    submodels = tuple(s for s in MANIFEST.submodels if (s.depth, s.width) == (2, width))
    manifest = MANIFEST._replace(submodels=submodels)
    request = PlanRequest(manifest, PACK, Workload(1, 64), Target(None, preload))
    whole = uniform_plan(request, bits=8, width=width, profile=PROFILE)
    if share is None:
        return whole
    assert whole.predicted is not None
    target = Target(share * whole.predicted.total_s, preload)
    return make_plan(request._replace(target=target), PROFILE)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Plan, list[Downgrade]]:
    plan = plan_of(
        draw(st.sampled_from((5, 3))),
        draw(st.sampled_from((0, 100_000, 10**9))),
        share=draw(st.sampled_from((None, 0.9, 0.95))),
    )
    steps = draw(st.lists(st.sampled_from(plan.steps), min_size=1, unique=True))
    found = [
        Downgrade(step.layer, step.kind, step.group, draw(st.sampled_from(LADDER[1:])), 0)
        for step in steps
    ]
    return plan, found


@given(cases())
def test_the_planes_from_the_damaged_one_on_are_left_out_of_their_group_and_nothing_else(
    case: tuple[Plan, list[Downgrade]],
) -> None:
    plan, downgrades = case
    found = downgraded(plan, MANIFEST, downgrades)
    check_plan(found, MANIFEST, PACK, where="plan")
    assert replace(found, steps=plan.steps, predicted=plan.predicted) == plan
    below = {item.step: item.bits for item in downgrades}
    for before, after in zip(plan.steps, found.steps, strict=True):
        if before.name not in below:
            assert after == before
            continue
        group = MANIFEST.group(before.layer, before.kind, before.group)
        reached, highest = fidelities(group, before.counts), below[before.name]
        kept = max(bits for bits in LADDER if bits < highest)
        assert fidelities(group, after.counts) == tuple(min(bits, kept) for bits in reached)
        for plane, old, new in zip(group.planes, before.counts, after.counts, strict=True):
            assert new == (old if plane.bits < highest else 0)
        size = total_bytes(group_ranges(group, after.counts))
        assert after.preload_bytes == min(before.preload_bytes, size)
        assert after._replace(counts=before.counts, preload_bytes=before.preload_bytes) == before


@given(cases())
def test_the_prediction_expects_the_loss_and_quality_of_what_is_left(
    case: tuple[Plan, list[Downgrade]],
) -> None:
    plan, downgrades = case
    found = downgraded(plan, MANIFEST, downgrades)
    submodel = MANIFEST.submodel(plan.depth, plan.width)
    assert plan.predicted is not None and found.predicted is not None and submodel is not None
    counts = [step.counts for step in found.steps]
    assert found.predicted.loss == loss_of(submodel, groups_of(MANIFEST, submodel), counts)
    assert found.predicted.loss >= plan.predicted.loss
    assert found.predicted.quality == QUALITY.estimate(found.predicted.loss)
    same = replace(found.predicted, loss=plan.predicted.loss, quality=plan.predicted.quality)
    assert same == plan.predicted


@given(cases())
def test_the_plan_that_was_really_run_can_be_saved_and_run_again(
    case: tuple[Plan, list[Downgrade]],
) -> None:
    plan, downgrades = case
    found = downgraded(plan, MANIFEST, downgrades)
    again = Plan.from_text(found.to_text(), where="plan")
    assert again == found
    assert downgraded(again, MANIFEST, downgrades) == found


def test_a_plan_without_downgrades_is_itself() -> None:
    plan = plan_of(5, 0, share=None)
    assert downgraded(plan, MANIFEST, []) is plan


def test_a_plan_that_was_pinned_without_a_profile_stays_without_a_prediction() -> None:
    plan = uniform_plan(PlanRequest(MANIFEST, PACK, Workload(1, 64)), bits=8)
    found = downgraded(plan, MANIFEST, [Downgrade(0, "ffn", 1, 3, 4)])
    assert found.predicted is None
    assert [step.name for step in found.steps if set(step.counts) != {step.counts[0]}] == [
        "0 ffn 1"
    ]


def test_a_pack_without_quality_gets_no_quality() -> None:
    manifest = MANIFEST._replace(quality=None)
    request = PlanRequest(manifest, PACK, Workload(1, 64))
    plan = uniform_plan(request, bits=8, profile=PROFILE)
    found = downgraded(plan, manifest, [Downgrade(1, "attention", 2, 6, 4)]).predicted
    assert found is not None and found.quality is None and found.loss > 0.0


@pytest.mark.parametrize("bits", LADDER[1:])
def test_a_downgrade_is_told_as_json(bits: int) -> None:
    found = Downgrade(1, "ffn", 1, bits, 3)
    assert found.step == "1 ffn 1"
    where = {"layer": 1, "kind": "ffn", "group": 1, "bits": bits, "slice": 3}
    assert found.to_json() == {**where, "reason": "damaged"}


def test_of_two_downgrades_of_a_group_the_lower_one_counts_whatever_comes_first() -> None:
    plan = plan_of(5, 0, share=None)
    step = plan.steps[2]
    late = Downgrade(step.layer, step.kind, step.group, 6, None, LATE)
    damaged = Downgrade(step.layer, step.kind, step.group, 4, 1)
    found = downgraded(plan, MANIFEST, [damaged])
    assert downgraded(plan, MANIFEST, [late, damaged]) == found
    assert downgraded(plan, MANIFEST, [damaged, late]) == found
    assert late.to_json() == {
        **damaged.to_json(),
        "bits": 6,
        "slice": None,
        "reason": "late",
    }
