"""How runs went: counts add up in any order, percentiles are true, documents are checked."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.lanes import LaneThreads
from sti.errors import ProfileError
from sti.model.workload import Workload
from sti.planning.history import (
    MOST_ROWS,
    MOST_SPANS,
    EndedRun,
    History,
    history_of,
    last_of,
    percentile_s,
    plan_name,
    time_class,
)
from sti.planning.history_json import history_json, read_history
from sti.planning.plan import Plan, PlanStep, Target
from sti.planning.span import Span

PLAN = Plan(
    pack="some pack",
    workload=Workload(1, 16),
    target=Target(0.05),
    depth=2,
    width=3,
    threads=LaneThreads(1, 1, 1),
    read_ahead=2,
    steps=(PlanStep(0, "ffn", 0, (3, 1), 0),),
    predicted=None,
)
LANES = {"compute": (Span(0.0, 0.001, "tokenize"), Span(0.002, 0.0035, "0 ffn 0"))}
LAST = last_of(PLAN, Workload(1, 16), LANES, ended_at=1e9, total_s=0.0035)

RUNS = st.lists(
    st.builds(
        EndedRun,
        st.sampled_from(["2026-01-30", "2026-01-31", "2026-02-01"]),
        st.sampled_from([Target(), Target(0.05), Target(0.05, 1000), Target(0.1, quantile=0.9)]),
        st.floats(1e-6, 1e5),
        st.sampled_from([True, False, None]),
    )
)


@given(RUNS, RUNS)
def test_what_two_processes_saw_adds_up_in_any_order(
    one: list[EndedRun], other: list[EndedRun]
) -> None:
    together = history_of([*one, *other])
    assert history_of(one).plus(history_of(other)) == together
    assert history_of(other).plus(history_of(one)) == together
    assert sum(day.runs for day in together.days) == len(one) + len(other)
    assert sum(day.late for day in together.days) == sum(run.met is False for run in one + other)


@given(RUNS)
def test_a_document_reads_back_to_an_equal_history(runs: list[EndedRun]) -> None:
    found = history_of(runs, LAST)
    text = json.dumps(history_json(found), allow_nan=False)
    assert read_history(json.loads(text), where="kept") == found


@given(st.lists(st.floats(1e-5, 1e3), min_size=1), st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_percentiles_are_those_of_the_runs_to_a_fortieth(times: list[float], share: float) -> None:
    (day,) = history_of(EndedRun("2026-01-31", Target(), time, None) for time in times).days
    true_s = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
    assert day.percentile_s(share) == pytest.approx(true_s, rel=0.026)


def test_there_is_no_percentile_of_no_run() -> None:
    assert math.isnan(percentile_s({}, 0.5))


def test_absurd_times_fall_into_the_outer_classes() -> None:
    assert time_class(0.0) == time_class(1e-9) == 0
    assert time_class(1e9) == time_class(1e5)


def test_old_days_go_and_so_do_those_ahead() -> None:
    days = ["2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03"]
    found = history_of((EndedRun(day, Target(), 0.1, None) for day in days), LAST)
    kept = found.bounded("2026-01-01", "2026-01-02")
    assert [item.day for item in kept.days] == days[1:3]
    assert kept.last == LAST


def test_of_too_many_targets_the_oldest_go() -> None:
    targets = [Target(0.001 * number) for number in range(1, MOST_ROWS)]
    old = [EndedRun("2026-01-30", target, 0.1, True) for target in targets[:50]]
    new = [EndedRun("2026-01-31", target, 0.1, True) for target in targets]
    kept = history_of([*old, *new]).bounded("2026-01-01", "2026-12-31")
    assert len(kept.days) == MOST_ROWS
    assert [item.day for item in kept.days].count("2026-01-31") == len(targets)


def test_the_last_run_is_the_later_one() -> None:
    later = LAST._replace(ended_at=LAST.ended_at + 1)
    for one, other in ((LAST, later), (later, LAST)):
        assert History(last=one).plus(History(last=other)).last == later
    assert History(last=LAST).plus(History()).last == LAST


def test_a_run_of_too_many_spans_is_kept_without_them() -> None:
    spans = (Span(0.0, 0.1, "0 ffn 0"),) * (MOST_SPANS + 1)
    last = last_of(PLAN, Workload(1, 16), {"compute": spans}, ended_at=1.0, total_s=0.1)
    assert last.lanes == {}


def test_plans_are_named_by_what_they_run() -> None:
    assert plan_name(replace(PLAN, target=Target(0.1))) == plan_name(PLAN)
    others = [replace(PLAN, steps=PLAN.steps * 2), replace(PLAN, read_ahead=3)]
    others.append(replace(PLAN, threads=LaneThreads(0, 0, 1)))
    assert len({plan_name(plan) for plan in (PLAN, *others)}) == 4


def damaged() -> list[Any]:
    good = history_json(history_of([EndedRun("2026-01-31", Target(0.05), 0.1, True)], LAST))

    def day(**changes: Any) -> dict[str, Any]:
        return {**good, "days": [{**good["days"][0], **changes}]}

    def last(**changes: Any) -> dict[str, Any]:
        return {**good, "last": {**good["last"], **changes}}

    return [
        None,
        [],
        {},
        {**good, "history": 2},
        {**good, "days": 1},
        day(day="yesterday!"),
        day(day="2026-01-31T"),
        day(day="2026-02-29"),
        day(day="2026-13-01"),
        day(classes=[]),
        day(classes=[[1]]),
        day(classes=[[1, 0]]),
        day(classes=[[-1, 1]]),
        day(classes=[[10**9, 1]]),
        day(classes=[[True, 1]]),
        day(classes=[[1, 10**400]]),
        last(lanes={str(number): [] for number in range(1000)}),
        last(lanes={"compute": [[0.0, 1e300, "x"]]}),
        last(lanes={"compute": [[0.0, 0.1, "x"]] * (MOST_SPANS + 1)}),
        day(late=7),
        day(target=None),
        last(lanes=[]),
        last(lanes={"compute": [[0.0, 0.1]]}),
        last(lanes={"compute": [[0.2, 0.1, "x"]]}),
        last(lanes={"compute": [[0.0, math.inf, "x"]]}),
        last(lanes={"compute": [[0.0, 0.1, 3]]}),
        last(workload={"batch": 0, "tokens": 1}),
    ]


@pytest.mark.parametrize("value", damaged(), ids=lambda value: f"{value!r:.40}")
def test_what_makes_no_sense_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ProfileError, match="kept"):
        read_history(value, where="kept")
