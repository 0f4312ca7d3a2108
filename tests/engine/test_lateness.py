"""Whether runs met their target, and what made them late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

import sti
from sti.engine.lateness import describe_lateness
from sti.planning.span import Span
from tests.support.packs import PROFILE, TEXTS, tiny_pack


@pytest.fixture(scope="module")
def kept() -> sti.Result:
    """A planned run with a target that any machine meets."""
    with sti.Engine.open(
        tiny_pack("classification"), latency="1000s", threads=1, profile=PROFILE
    ) as engine:
        return engine.run(TEXTS)


def late(
    result: sti.Result,
    by_s: float,
    longer: Mapping[str, float],
    plan_s: float,
    waits_s: Mapping[str, float] | None = None,
) -> sti.Result:
    """The same run, as late as that: lanes as predicted, but for those that took longer."""
    predicted = result.plan.predicted
    assert predicted is not None
    lanes = {
        lane: (Span(0.0, busy_s + longer.get(lane, 0.0), "0 ffn 0"),)
        for lane, busy_s in predicted.busy_s.items()
    }
    timing = result.timing._replace(
        total_s=1.0 + by_s,
        plan_s=plan_s,
        stall_s=predicted.stall_s + longer.get("stall", 0.0),
        lanes=lanes,
        waits_s=waits_s,
    )
    plan = replace(result.plan, target=result.plan.target._replace(latency_s=1.0))
    return replace(result, timing=timing, plan=plan)


def test_a_target_that_was_met_says_nothing(kept: sti.Result) -> None:
    assert kept.met is True and kept.late_s == 0
    assert describe_lateness(kept) is None
    assert kept.to_json()["met"] is True and kept.to_json()["late_s"] == 0


def test_without_a_latency_nothing_is_met_or_late() -> None:
    with sti.Engine.open(tiny_pack("classification"), fidelity=4, threads=1) as engine:
        result = engine.run(TEXTS)
    assert result.met is None and result.late_s == 0
    assert result.to_json()["met"] is None
    assert describe_lateness(result) is None


def test_a_target_that_is_met_to_the_instant_is_met(kept: sti.Result) -> None:
    assert late(kept, 0.0, {}, 0.0).met is True


@pytest.mark.parametrize(
    ("longer", "plan_s", "told"),
    [
        ({"storage": 0.009, "compute": 0.002}, 0.001, "reading took 9.00 ms more than predicted"),
        ({"decode": 0.004}, 0.001, "decoding took 4.00 ms more than predicted"),
        ({"compute": 0.02}, 0.001, "computing took 20.0 ms more than predicted"),
        ({"storage": 0.009}, 0.03, "making the plan took 30.0 ms"),
        (
            {"stall": 0.05, "storage": 0.009},
            0.0,
            "waiting for one another or for memory took 50.0 ms more than predicted",
        ),
    ],
)
def test_what_took_longest_beyond_the_prediction_is_named(
    kept: sti.Result, longer: Mapping[str, float], plan_s: float, told: str
) -> None:
    result = late(kept, 0.012, longer, plan_s)
    assert result.met is False and result.late_s == pytest.approx(0.012)
    assert describe_lateness(result) == f"late by 12.0 ms: {told}"
    assert result.to_json()["late_s"] == 0.012


def test_waiting_for_a_core_is_a_cause_of_its_own(kept: sti.Result) -> None:
    longer, waits_s = {"compute": 0.011, "storage": 0.004}, {"compute": 0.009, "storage": 0.001}
    result = late(kept, 0.012, longer, 0.0, waits_s)
    told = "late by 12.0 ms: waited 9.00 ms for a core that others used"
    assert describe_lateness(result) == told
    plan = replace(result.plan, predicted=None)
    assert describe_lateness(replace(result, plan=plan)) == told
    result = late(kept, 0.012, {"compute": 0.02}, 0.0, waits_s)
    assert describe_lateness(result) == (
        "late by 12.0 ms: computing took 11.0 ms more than predicted"
    )


def test_threads_that_share_the_work_divide_what_they_took(kept: sti.Result) -> None:
    result = late(kept, 0.012, {"compute": 0.02, "storage": 0.011}, 0.0)
    threads = sti.Plan.from_json(
        {**result.plan.to_json(), "threads": {"storage": 1, "decode": 0, "compute": 2}}, where="x"
    ).threads
    shared = replace(result, plan=replace(result.plan, threads=threads))
    assert describe_lateness(shared) == (
        "late by 12.0 ms: reading took 11.0 ms more than predicted"
    )


def test_a_run_without_a_prediction_or_a_cause_says_only_how_late(kept: sti.Result) -> None:
    result = late(kept, 0.012, {}, 0.0)
    assert describe_lateness(result) == "late by 12.0 ms"
    plan = replace(result.plan, predicted=None)
    assert describe_lateness(replace(result, plan=plan)) == "late by 12.0 ms"
