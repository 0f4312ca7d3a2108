"""Lanes and steps: who waits for whom, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.planning.span import Span
from sti.planning.timeline import Lane, TimelineStep, rounds_s, simulate

LANES = (Lane("storage"), Lane("decode", 2), Lane("compute"), Lane("link"))


@st.composite
def step_lists(draw: st.DrawFn) -> list[TimelineStep]:
    steps: list[TimelineStep] = []
    for index in range(draw(st.integers(1, 25))):
        after = draw(st.lists(st.integers(0, index - 1), max_size=3)) if index else []
        lane = draw(st.sampled_from(LANES)).name
        work_s = draw(st.floats(0.0, 10.0))
        steps.append(TimelineStep(lane, work_s, parts=draw(st.integers(1, 5)), after=tuple(after)))
    return steps


def test_a_lane_does_its_steps_one_after_the_other() -> None:
    schedule = simulate([Lane("a")], [TimelineStep("a", 1.0), TimelineStep("a", 2.0)])
    assert schedule.spans == (Span(0.0, 1.0), Span(1.0, 3.0))


def test_lanes_work_side_by_side() -> None:
    schedule = simulate([Lane("a"), Lane("b")], [TimelineStep("a", 1.0), TimelineStep("b", 2.0)])
    assert schedule.spans == (Span(0.0, 1.0), Span(0.0, 2.0))


def test_a_step_waits_for_the_last_of_what_it_is_after() -> None:
    steps = [TimelineStep("a", 1.0), TimelineStep("b", 2.0), TimelineStep("c", 1.0, after=(0, 1))]
    schedule = simulate([Lane("a"), Lane("b"), Lane("c")], steps)
    assert schedule.spans[2] == Span(2.0, 3.0)
    assert schedule.path(2) == (1, 2)


@pytest.mark.parametrize(
    ("parts", "capacity", "expected"), [(1, 4, 6.0), (2, 1, 6.0), (3, 2, 4.0), (6, 2, 3.0)]
)
def test_equal_parts_run_in_rounds_of_the_capacity(
    parts: int, capacity: int, expected: float
) -> None:
    assert rounds_s(6.0, parts, capacity) == pytest.approx(expected)
    schedule = simulate([Lane("a", capacity)], [TimelineStep("a", 6.0, parts=parts)])
    assert schedule.spans[0].end_s == pytest.approx(expected)


def test_a_step_on_an_unknown_lane_is_refused() -> None:
    with pytest.raises(KeyError):
        simulate([Lane("a")], [TimelineStep("b", 1.0)])


@given(step_lists())
def test_no_step_starts_before_its_lane_and_what_it_waits_for_are_done(
    steps: list[TimelineStep],
) -> None:
    spans = simulate(LANES, steps).spans
    for index, step in enumerate(steps):
        before = [i for i in range(index) if steps[i].lane == step.lane]
        assert all(spans[i].end_s <= spans[index].start_s for i in (*before, *step.after))


@given(step_lists())
def test_every_step_starts_as_soon_as_it_can(steps: list[TimelineStep]) -> None:
    schedule = simulate(LANES, steps)
    for index, held_by in enumerate(schedule.held_by):
        start_s = schedule.spans[index].start_s
        assert start_s == (schedule.spans[held_by].end_s if held_by >= 0 else 0.0)
        assert (
            held_by < 0
            or held_by in steps[index].after
            or (steps[held_by].lane == steps[index].lane)
        )


@given(step_lists())
def test_the_chain_of_waits_has_no_gap(steps: list[TimelineStep]) -> None:
    schedule = simulate(LANES, steps)
    last = max(range(len(steps)), key=lambda index: schedule.spans[index].end_s)
    chain = schedule.path(last)
    assert chain[-1] == last
    assert schedule.spans[chain[0]].start_s == 0.0
    length_s = sum(schedule.spans[i].end_s - schedule.spans[i].start_s for i in chain)
    assert length_s == pytest.approx(schedule.spans[last].end_s)
