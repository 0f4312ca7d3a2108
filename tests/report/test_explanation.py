"""Explanations for people and as JSON: every reason, every metric, nothing to say."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from sti.errors import InfeasibleError
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.conditions import as_measured
from sti.planning.lane_limits import CallerWait, LaneLimits, LaneUse, lane_limits
from sti.planning.nearby_targets import LESS_LATENCY, MORE_LATENCY, MORE_PRELOAD
from sti.planning.next_planes import BlockBits, PlaneChange, Reason
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.uniform import uniform_plan
from sti.report.explanation import GIVEN, Explanation
from sti.report.outcomes import Outcome
from tests.support.synthetic import make_manifest, make_profile

PLAIN = make_manifest(Random(1))
ACCURACY = PLAIN._replace(quality=Quality("accuracy", 100, 0.01, (0.0, 9.0), (0.9, 0.8)))
SPEARMAN = PLAIN._replace(quality=Quality("spearman", 100, 0.01, (0.0, 9.0), (0.9, 0.8)))
WORKLOAD = Workload(1, 32)
TARGET = Target(0.02, 5000)
MORE = PlaneChange(6, -0.1, -0.0123, 0.00456, 12_345, 0.00067)
LESS = PlaneChange(4, 0.1, 0.0123, -0.00456, -12_345, -1e-9)
LIMITS = LaneLimits(
    "storage",
    0.01,
    0.001,
    -0.002,
    {
        "storage": LaneUse(0.008, 0.002, 0.007),
        "decode": LaneUse(0.003, 0.007, 0.002),
        "compute": LaneUse(0.004, 0.006, 0.002),
    },
    (
        CallerWait(0, "attention", 0.003, {"storage": 0.002, "decode": 0.001}),
        CallerWait(None, None, 0.001, {"compute": 0.001}),
    ),
)


def plan_of(manifest: Manifest, bits: int = 4, target: Target = TARGET) -> Plan:
    request = PlanRequest(manifest, "pack", WORKLOAD, target)
    return uniform_plan(request, bits=bits, profile=make_profile(ladder=(2, 4, 8)))


def block(reason: Reason = "late", **changes: object) -> BlockBits:
    late_s = 0.00012 if reason == "late" else None
    known = BlockBits(0, "attention", 4.25, 4, 6, reason, late_s, MORE, LESS)
    return known._replace(**changes)  # type: ignore[arg-type]


def explanation(manifest: Manifest = ACCURACY, *blocks: BlockBits) -> Explanation:
    return Explanation(manifest, plan_of(manifest), WORKLOAD, blocks or (block(),), LIMITS, None)


def row(text: str, first: str) -> list[str]:
    """The cells of the first row of a table below a line that begins so."""
    lines = text[text.index(first) :].splitlines()
    return next(line for line in lines if line.split()[:2] == ["0", "attention"]).split()


@pytest.mark.parametrize(
    ("manifest", "unit", "shown"),
    [(ACCURACY, "points", "0.46"), (SPEARMAN, "spearman", "0.0046"), (PLAIN, "loss %", "1.23")],
)
def test_changes_are_in_the_unit_of_the_pack(manifest: Manifest, unit: str, shown: str) -> None:
    loss = unit == "loss %"
    change = MORE if not loss else MORE._replace(metric=None)
    less = LESS if not loss else LESS._replace(metric=None)
    text = explanation(manifest, block(more=change, less=less)).to_text()
    assert text.count(f" {unit} ") == 2  # at the head of both tables
    sign, opposite = ("-", "+") if loss else ("+", "-")
    assert row(text, "One plane more") == [
        *("0", "attention", "4.25", "4-6", "6", f"{sign}{shown}", "+12.3", "+0.67"),
        *("late", "by", "120", "us"),
    ]
    expected = ["0", "attention", "4", f"{opposite}{shown}", "-12.3", "0"]
    assert row(text, "One plane less") == expected
    assert ("with the lowest bits throughout" in text) == loss


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("highest", "highest"),
        ("asked", "asked for"),
        ("late", "late by 120 us"),
        ("unnoticed", "not noticed"),
        ("not considered", "not considered"),
    ],
)
def test_every_reason_has_words_and_a_note_where_it_needs_one(reason: Reason, words: str) -> None:
    for manifest in (ACCURACY, PLAIN):
        text = explanation(manifest, block(reason)).to_text()
        assert " ".join(row(text, "One plane more")).endswith(words)
        note = f"{words.partition(' by')[0]}: "
        assert (note in text) == (reason in ("late", "unnoticed", "not considered"))
    assert "by 0.10 points at most" in explanation(ACCURACY, block("unnoticed")).to_text()


def test_blocks_with_nothing_above_or_below_are_dashes_or_left_out() -> None:
    top = block("highest", more=None, least_bits=8, most_bits=8, bits=8.0)
    bottom = block(less=None)
    text = explanation(ACCURACY, top, bottom).to_text()
    assert row(text, "One plane more")[2:] == ["8.00", "8", "-", "-", "-", "-", "highest"]
    assert "other blocks have the lowest alone" in text
    assert "there is none; every block has the lowest" in explanation(ACCURACY, bottom).to_text()


def test_lanes_and_waits_are_in_milliseconds() -> None:
    text = explanation().to_text()
    for line in (
        "storage       8.00        2.00              7.00",
        "tokenizer        -           -              1.00",
        "waiting          -           -             -2.00",
        "together         -           -             10.00",
        "The caller waits 4.00 ms for other threads",
        "    0  attention  3.00         2.00        1.00            -",
        "    -  head       1.00            -           -         1.00",
    ):
        assert line in text.splitlines()
    quiet = replace(explanation(), limits=LIMITS._replace(waits=()))
    assert "The caller never waits" in quiet.to_text()


def test_a_run_is_limited_by_a_lane_or_by_what_is_in_the_pack() -> None:
    worst, best = (
        replace(explanation(PLAIN), plan=plan_of(PLAIN, bits)).to_text() for bits in (2, 8)
    )
    assert "The run is limited by storage" in worst
    assert "Nothing better is in the pack; what it takes is limited by storage" in best


def test_a_given_plan_that_was_predicted_otherwise_says_so() -> None:
    plan = plan_of(ACCURACY)
    assert plan.predicted is not None
    for total_s, differs in ((0.01, False), (0.0123, True)):
        given = replace(plan, predicted=replace(plan.predicted, total_s=total_s))
        text = replace(explanation(), plan=given).to_text()
        assert (f"the plan says {1e3 * total_s:.1f} ms, of when" in text) == differs


def test_another_length_that_was_planned_for_is_named() -> None:
    longer = replace(explanation(), made_for=Workload(1, 128))
    assert "with 1 text of 128 tokens, for which the plan was made" in longer.to_text()
    assert "for which the plan was made" not in explanation().to_text()


def refusal(limit: str) -> InfeasibleError:
    return InfeasibleError("no", limit=limit, asked=0.018, needed=0.019)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("latency", "refused, the least latency is 19.0 ms"),
        ("quality", "refused, it leaves less than the floor"),
        ("memory", "refused, the least memory is 0 B"),
        ("preload", "refused, memory does not hold the preload"),
    ],
)
def test_a_refused_target_says_why(limit: str, words: str) -> None:
    outcome = Outcome(LESS_LATENCY, Target(0.018, 5000), refusal(limit))
    text = replace(explanation(), outcomes=[outcome]).to_text()
    assert f"18.0 ms and 5.00 KB of preload: {words}" in text.splitlines()
    found = outcome.to_json(plan_of(ACCURACY))
    assert found["plan"] is None
    assert found["error"]["limit"] == limit
    assert found["error"]["needed"] == 0.019


@pytest.mark.parametrize("manifest", [ACCURACY, SPEARMAN, PLAIN])
def test_other_targets_show_what_they_change(manifest: Manifest) -> None:
    better = plan_of(manifest, 8, Target(0.03, 5000))
    outcomes = [
        Outcome(MORE_LATENCY, better.target, better),
        Outcome(MORE_PRELOAD, Target(0.02, 5000), plan_of(manifest)),
    ]
    text = replace(explanation(manifest), outcomes=outcomes).to_text()
    own, more, same = text[text.index("Other targets") :].splitlines()[3:6]
    assert own.startswith("20.0 ms  5.00 KB            2 x 3  4.00")
    assert more.startswith("30.0 ms  5.00 KB            2 x 3  8.00")
    sign = "-" if manifest is PLAIN else "+"
    assert more.split()[8].startswith(sign)
    assert same.split()[8:] == ["0", "0", "0"]


def test_without_a_latency_there_is_none_to_add() -> None:
    plan = plan_of(ACCURACY, target=Target())
    outcome = Outcome(MORE_PRELOAD, Target(preload_bytes=5000), plan)
    text = replace(explanation(), plan=plan, outcomes=[outcome]).to_text()
    assert "no latency was asked for, so there is none to add" in text
    assert "10% less than what is promised" in text


def test_what_was_given_has_no_other_targets() -> None:
    found = explanation()
    assert f"Other targets: {GIVEN}" in found.to_text()
    assert (found.to_json()["targets"], found.to_json()["no_targets"]) == ([], GIVEN)


def test_json_holds_everything_by_name() -> None:
    manifest, plan = ACCURACY, plan_of(ACCURACY)
    conditions = as_measured(make_profile(ladder=(2, 4, 8)), WORKLOAD, plan.target)
    limits = lane_limits(manifest, plan, conditions)
    blocks = (block(), block("highest", more=None), block(less=None))
    outcomes = [Outcome(MORE_LATENCY, plan.target, plan)]
    made = Explanation(manifest, plan, WORKLOAD, blocks, limits, outcomes)
    found = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert found["blocks"][0]["more"] == MORE._asdict()
    assert found["blocks"][0]["less"] == LESS._asdict()
    assert found["blocks"][1]["more"] is None
    assert found["blocks"][2]["less"] is None
    assert found["blocks"][0]["late_s"] == 0.00012
    assert found["limits"]["lanes"]["decode"] == limits.lanes["decode"]._asdict()
    assert [wait["wait_s"] for wait in found["limits"]["waits"]] == [
        wait.wait_s for wait in limits.waits
    ]
    assert found["targets"][0]["plan"]["change"] == {
        "loss": 0.0,
        "metric": 0.0,
        "bytes_read": 0,
        "total_s": 0.0,
    }
    assert found["made_for"] == {"batch": 1, "tokens": 32}
