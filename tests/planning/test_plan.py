"""Plans: round trip, malformed input, fidelities, and plans that do not fit a pack."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.errors import PlanError
from sti.model.fidelity import fidelities
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.check import check_plan, check_times
from sti.planning.plan import NARROW, VARIANTS, Plan, PlanRequest, PlanStep, Target
from sti.planning.uniform import uniform_plan
from sti.planning.variants import NARROW_MOST_BITS
from tests.support.synthetic import make_manifest, make_profile

PACK = "0123456789abcdef"
MANIFEST = make_manifest(Random(3), groups=(2, 1), submodels=[(1, 2, 0.5), (2, 1, 0.7)])._replace(
    quality=Quality("accuracy", 500, 0.005, (0.0, 5.0), (0.97, 0.4)),
)
WORKLOAD = Workload(2, 16)


def good_plan(bits: int = 4, *, depth: int | None = None, width: int | None = None) -> Plan:
    profile = make_profile(ladder=MANIFEST.ladder)
    target = Target(0.25, 100_000)
    return uniform_plan(
        PlanRequest(MANIFEST, PACK, WORKLOAD, target),
        bits=bits,
        profile=profile,
        depth=depth,
        width=width,
    )


def changed(path: str, value: object) -> dict[str, Any]:
    """The JSON of a good plan with one field changed; ``...`` removes it."""
    body: Any = json.loads(good_plan().to_text())
    place, (*way, last) = body, path.split(".")
    for key in way:
        place = place[int(key) if key.isdigit() else key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return dict(body)


@given(
    bits=st.sampled_from(MANIFEST.ladder),
    small=st.booleans(),
    latency=st.none() | st.floats(1e-3, 10.0),
    preload=st.integers(0, 10**9),
    predicted=st.booleans(),
)
def test_a_plan_survives_saving(
    bits: int, small: bool, latency: float | None, preload: int, predicted: bool
) -> None:
    plan = uniform_plan(
        PlanRequest(MANIFEST, PACK, WORKLOAD, Target(latency, preload)),
        bits=bits,
        profile=make_profile(ladder=MANIFEST.ladder) if predicted else None,
        depth=1 if small else None,
        width=2 if small else None,
    )
    assert (plan.predicted is not None) == predicted
    assert Plan.from_text(plan.to_text(), where="plan.json") == plan


def test_a_plan_without_a_quality_is_read_as_one_of_an_earlier_release() -> None:
    plan = good_plan()
    assert plan.predicted is not None and plan.predicted.quality is not None
    for value in (..., None):
        found = Plan.from_json(changed("predicted.quality", value), where="plan.json")
        assert found == replace(plan, predicted=replace(plan.predicted, quality=None))
        assert Plan.from_text(found.to_text(), where="plan.json") == found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plan", 1),
        ("plan", "1"),
        ("plan", ...),
        ("pack", 12),
        ("workload", None),
        ("workload.batch", 0),
        ("workload.tokens", 1.5),
        ("target.latency_s", -1.0),
        ("target.latency_s", "200ms"),
        ("target.preload_bytes", -1),
        ("depth", 0),
        ("width", True),
        ("threads", 2),
        ("threads.compute", ...),
        ("threads.compute", -1),
        ("read_ahead", 0),
        ("steps", {}),
        ("steps", [3]),
        ("steps.0.counts", [3, -1, 0]),
        ("steps.0.counts", "333"),
        ("steps.0.preload_bytes", None),
        ("predicted", []),
        ("predicted.total_s", ...),
        ("steps.0.group", -1),
        ("steps.0.variant", None),
        ("steps.0.device", 3),
        ("predicted.lanes", []),
        ("predicted.lanes.storage", {}),
        ("predicted.lanes.storage", [{"start_s": 0.0}]),
        ("predicted.lanes.storage.0.name", 3),
        ("predicted.lanes.fourth", []),
        ("predicted.lanes.compute 0", []),
        ("predicted.lanes.compute 99999", []),
        ("predicted.limited_by", "x" * 99),
        ("predicted.limited_by", 1),
        ("predicted.quality", 0.9),
        ("predicted.quality", {"metric": "accuracy", "value": 0.9, "low": 0.8}),
        ("predicted.quality.metric", 1),
        ("predicted.quality.value", "high"),
        ("predicted.quality.low", float("nan")),
    ],
)
def test_a_malformed_plan_is_refused_with_its_source(path: str, value: object) -> None:
    with pytest.raises(PlanError, match=r"^my/plan\.json"):
        Plan.from_json(changed(path, value), where="my/plan.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00", "[" * 100_000])
def test_what_is_no_json_object_is_no_plan(text: str) -> None:
    with pytest.raises(PlanError, match=r"plan\.json"):
        Plan.from_text(text, where="plan.json")


def test_slices_have_the_highest_fidelity_whose_planes_are_all_there() -> None:
    group = MANIFEST.group(0, "ffn", 0)
    second, third = (list(plane.order) for plane in group.planes[1:])
    for counts in [(3, 3, 3), (3, 2, 2), (3, 1, 3), (2, 3, 3), (1, 0, 0), (0, 3, 3)]:
        for index, bits in enumerate(fidelities(group, counts)):
            has = (
                index < counts[0],
                index in second[: counts[1]],
                index in third[: counts[2]],
            )
            depth = [*has, False].index(False)
            assert bits == (0, *MANIFEST.ladder)[depth]


def test_plans_of_the_planner_fit_their_pack() -> None:
    for bits in MANIFEST.ladder:
        check_plan(good_plan(bits), MANIFEST, PACK, where="plan")
        check_plan(good_plan(bits, depth=1, width=2), MANIFEST, PACK, where="plan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pack": "f" * 16}, "another pack"),
        ({"depth": 1, "width": 1}, "not a submodel"),
        ({"depth": 1, "width": 2}, "not the slice groups of the submodel"),
        ({"depth": 2, "width": 1}, "not the slice groups of the submodel"),
        ({"steps": ()}, "not the slice groups of the submodel"),
    ],
)
def test_a_plan_for_another_pack_or_submodel_is_refused(
    change: dict[str, Any], message: str
) -> None:
    plan = replace(good_plan(), **change)
    with pytest.raises(PlanError, match=message) as error:
        check_plan(plan, MANIFEST, PACK, where="my plan")
    assert str(error.value).startswith("my plan: ")


@pytest.mark.parametrize("threads", [(1, 2, 1), (0, 0, 2), (1, 1, 2), (0, 1, 1), (1, 0, 0)])
def test_threads_that_nobody_knows_how_to_use_together_are_refused(
    threads: tuple[int, int, int],
) -> None:
    plan = replace(good_plan(), threads=LaneThreads(*threads))
    message = f"storage {threads[0]}, decode {threads[1]}, compute {threads[2]}; make the plan"
    with pytest.raises(PlanError, match=message):
        check_plan(plan, MANIFEST, PACK, where="my plan")


@pytest.mark.parametrize("threads", [SEQUENTIAL, PIPELINED, shared(1), shared(64)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_known_kind_of_threads_and_variant_is_accepted(
    threads: LaneThreads, variant: str
) -> None:
    plan = good_plan(2)
    steps = tuple(step._replace(variant=variant) for step in plan.steps)
    plan = replace(plan, threads=threads, steps=steps)
    check_plan(plan, MANIFEST, PACK, where="plan")
    assert Plan.from_text(plan.to_text(), where="plan.json") == plan


def test_the_names_of_a_plans_work_are_its_steps_and_what_connects_their_blocks() -> None:
    plan = good_plan(depth=1, width=2)
    steps = {"0 attention 0", "0 attention 1", "0 ffn 0"}
    assert plan.work_names == steps | {"0 attention connect", "0 ffn connect"}


@pytest.mark.parametrize("change", [{"variant": "rounded"}, {"device": "kitchen"}], ids=str)
def test_steps_of_a_later_release_are_refused_by_name(change: dict[str, Any]) -> None:
    plan = good_plan()
    plan = replace(plan, steps=(plan.steps[0]._replace(**change), *plan.steps[1:]))
    (named,) = change.values()
    with pytest.raises(PlanError, match=f"0 attention 0.*{named}.*make the plan again"):
        check_plan(plan, MANIFEST, PACK, where="my plan")


def test_a_narrow_step_of_more_bits_than_narrow_ones_may_have_is_refused() -> None:
    for bits in MANIFEST.ladder:
        plan = good_plan(bits)
        step = plan.steps[1]._replace(variant=NARROW)
        steps = (plan.steps[0], step, *plan.steps[2:])
        plan = replace(plan, steps=steps, predicted=None)
        if bits <= NARROW_MOST_BITS:
            check_plan(plan, MANIFEST, PACK, where="my plan")
            continue
        message = f"my plan: step '0 attention 1': variant 'narrow' .* has {bits}; make the plan"
        with pytest.raises(PlanError, match=message):
            check_plan(plan, MANIFEST, PACK, where="my plan")
    assert MANIFEST.ladder[0] <= NARROW_MOST_BITS < MANIFEST.ladder[-1]


@pytest.mark.parametrize(("place", "group"), [(0, 1), (1, 0), (1, 2), (2, 1), (3, -1)], ids=str)
def test_steps_of_groups_that_are_not_next_are_refused(place: int, group: int) -> None:
    plan = good_plan()
    changed = plan.steps[place]._replace(group=group)
    plan = replace(plan, steps=(*plan.steps[:place], changed, *plan.steps[place + 1 :]))
    with pytest.raises(PlanError, match="not the slice groups of the submodel, in order"):
        check_plan(plan, MANIFEST, PACK, where="plan")


def test_a_group_of_which_no_slice_is_in_use_has_no_step() -> None:
    whole, narrow = good_plan(), good_plan(depth=2, width=1)
    assert [step.name for step in whole.steps[:3]] == ["0 attention 0", "0 attention 1", "0 ffn 0"]
    assert [step.name for step in narrow.steps[:2]] == ["0 attention 0", "0 ffn 0"]
    check_plan(narrow, MANIFEST, PACK, where="plan")
    idle = PlanStep(0, "attention", 1, (0, 0, 0), 0)
    plan = replace(narrow, steps=(narrow.steps[0], idle, *narrow.steps[1:]))
    with pytest.raises(PlanError, match="not the slice groups of the submodel"):
        check_plan(plan, MANIFEST, PACK, where="plan")


GROUP_COUNTS: list[tuple[int, tuple[int, ...]]] = [
    *((0, counts) for counts in [(1, 1), (0, 0, 0), (2, 1, 1), (1, 2, 0), (1, 1, 1, 1)]),
    *((1, counts) for counts in [(1, 1, 1), (3, 2, 2), (2, 3, 0), (2, 2, 3)]),
    *((2, counts) for counts in [(3, 3), (2, 2, 2), (3, 4, 0), (0, 0, 0), (3, 3, 3, 3)]),
]
"""Steps by their place: groups of 1, 2 and 3 slices."""


@pytest.mark.parametrize(("place", "counts"), GROUP_COUNTS)
def test_counts_that_the_group_does_not_have_are_refused(
    place: int, counts: tuple[int, ...]
) -> None:
    plan = good_plan()
    wrong = plan.steps[place]._replace(counts=counts)
    plan = replace(plan, steps=(*plan.steps[:place], wrong, *plan.steps[place + 1 :]))
    with pytest.raises(PlanError, match=f"step '{wrong.name}': counts"):
        check_plan(plan, MANIFEST, PACK, where="plan")


def test_a_width_that_cuts_a_group_asks_for_its_slices_in_use_only() -> None:
    plan = good_plan(depth=1, width=2)
    assert [step.counts[0] for step in plan.steps] == [1, 1, 2]
    for counts in ((2, 2, 2), (0, 1, 0)):
        cut = plan.steps[1]._replace(counts=counts)
        with pytest.raises(PlanError, match="the first of them the slices in use, 1"):
            check_plan(
                replace(plan, steps=(plan.steps[0], cut, plan.steps[2])),
                MANIFEST,
                PACK,
                where="plan",
            )


@pytest.mark.parametrize("change", [{"loss": 9.0}, {"loss": -1.0}, {"loss": 1e300}])
def test_a_plan_whose_expected_loss_does_not_follow_from_its_steps_is_refused(
    change: dict[str, Any],
) -> None:
    plan = good_plan()
    assert plan.predicted is not None
    plan = replace(plan, predicted=replace(plan.predicted, **change))
    with pytest.raises(PlanError, match=r"my plan: predicts a loss of .*; make the plan again"):
        check_plan(plan, MANIFEST, PACK, where="my plan")


def test_a_plan_that_expects_another_quality_than_the_pack_states_is_refused() -> None:
    plan = good_plan()
    assert plan.predicted is not None and plan.predicted.quality is not None
    for quality in (
        plan.predicted.quality._replace(value=1.0),
        plan.predicted.quality._replace(metric="F1"),
    ):
        wrong = replace(plan, predicted=replace(plan.predicted, quality=quality))
        with pytest.raises(PlanError, match="my plan: predicts another"):
            check_plan(wrong, MANIFEST, PACK, where="my plan")


def test_a_plan_of_other_times_than_its_steps_take_was_not_made_for_the_machine() -> None:
    plan, profile = good_plan(), make_profile(ladder=MANIFEST.ladder)
    check_times(plan, profile, where="my plan")
    assert plan.predicted is not None
    for total_s in (1e-6, 2.0 * plan.predicted.total_s):
        wrong = replace(plan, predicted=replace(plan.predicted, total_s=total_s))
        with pytest.raises(PlanError, match="my plan: predicts"):
            check_times(wrong, profile, where="my plan")
    with pytest.raises(PlanError, match="predicts nothing"):
        check_times(replace(plan, predicted=None), profile, where="my plan")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("workload.batch", 10**9),
        ("workload.tokens", 10**30),
        ("threads.compute", 10**6),
        ("read_ahead", 10**9),
        ("predicted.total_s", 1e300),
        ("predicted.lanes.storage.0.end_s", 1e300),
        ("predicted.lanes.storage.0.start_s", -1.0),
        ("steps.0.counts", [10**30]),
        ("steps.0.more", 1),
        ("target.latncy_s", 0.2),
        ("predicted.more", 1),
    ],
)
def test_what_no_plan_says_is_refused_by_name(path: str, value: object) -> None:
    name = path.rsplit(".", maxsplit=1)[-1]
    with pytest.raises(PlanError, match=f"my plan.*'{name}'"):
        Plan.from_json(changed(path, value), where="my plan")
