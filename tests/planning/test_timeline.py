"""Threads and steps: who does what, who waits for whom, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.planning.span import Span
from sti.planning.timeline import TimelineStep, simulate

THREADS = (0, 1, 2, 3)


@st.composite
def step_lists(draw: st.DrawFn) -> list[TimelineStep]:
    steps: list[TimelineStep] = []
    for index in range(draw(st.integers(1, 25))):
        before = st.lists(st.integers(0, index - 1), max_size=3) if index else st.just([])
        work_s, after = draw(st.floats(0.0, 10.0)), tuple(draw(before))
        joins = tuple(draw(before)) if draw(st.booleans()) else ()
        threads = tuple(draw(st.sets(st.sampled_from(THREADS), min_size=1)))
        steps.append(TimelineStep("lane", work_s, () if joins else threads, (), joins, after))
    return steps


def test_a_thread_does_its_steps_one_after_the_other() -> None:
    schedule = simulate([TimelineStep("a", 1.0, (0,)), TimelineStep("b", 2.0, (0,))])
    assert schedule.spans == (Span(0.0, 1.0), Span(1.0, 3.0))


def test_threads_work_side_by_side() -> None:
    schedule = simulate([TimelineStep("a", 1.0, (0,)), TimelineStep("a", 2.0, (1,))])
    assert schedule.spans == (Span(0.0, 1.0), Span(0.0, 2.0))


def test_a_step_waits_for_the_last_of_what_it_is_after() -> None:
    steps = [
        TimelineStep("a", 1.0, (0,)),
        TimelineStep("b", 2.0, (1,)),
        TimelineStep("c", 1.0, (2,), after=(0, 1)),
    ]
    schedule = simulate(steps)
    assert schedule.spans[2] == Span(2.0, 3.0)
    assert schedule.path(2) == (1, 2)


def test_the_thread_that_is_free_first_takes_a_step_even_if_it_then_waits() -> None:
    steps = [
        TimelineStep("a", 3.0, (0,)),
        TimelineStep("a", 1.0, (1,)),
        TimelineStep("a", 9.0, (2,)),
        TimelineStep("b", 1.0, (0, 1), after=(2,)),
        TimelineStep("b", 1.0, (0, 1)),
    ]
    schedule = simulate(steps)
    assert schedule.threads[3:] == (1, 0)
    assert schedule.spans[3:] == (Span(9.0, 10.0), Span(3.0, 4.0))


def test_of_threads_free_at_once_the_first_takes_a_step() -> None:
    assert simulate([TimelineStep("a", 1.0, (0, 1, 2))] * 4).threads == (0, 1, 2, 0)


def test_steps_apart_are_done_by_different_threads() -> None:
    busy = TimelineStep("a", 5.0, (1,))
    steps = [busy, TimelineStep("a", 1.0, (0, 1)), TimelineStep("a", 1.0, (0, 1), apart=(1,))]
    assert simulate(steps).threads == (1, 0, 1)


def test_a_step_that_joins_others_is_done_by_the_thread_that_ends_last() -> None:
    steps = [
        TimelineStep("a", 1.0, (0,)),
        TimelineStep("a", 2.0, (1,)),
        TimelineStep("a", 2.0, (2,)),
        TimelineStep("b", 1.0, joins=(0, 1, 2)),
    ]
    schedule = simulate(steps)
    assert (schedule.threads[3], schedule.spans[3]) == (1, Span(2.0, 3.0))


@given(step_lists())
def test_no_step_starts_before_its_thread_and_what_it_waits_for_are_done(
    steps: list[TimelineStep],
) -> None:
    schedule = simulate(steps)
    spans, threads = schedule.spans, schedule.threads
    for index, step in enumerate(steps):
        assert threads[index] in (step.threads or [threads[other] for other in step.joins])
        before = [i for i in range(index) if threads[i] == threads[index]]
        waits = (*before, *step.joins, *step.after)
        assert all(spans[i].end_s <= spans[index].start_s for i in waits)


@given(step_lists())
def test_every_step_starts_as_soon_as_it_can(steps: list[TimelineStep]) -> None:
    schedule = simulate(steps)
    for index, (step, held_by) in enumerate(zip(steps, schedule.held_by, strict=True)):
        start_s = schedule.spans[index].start_s
        assert start_s == (schedule.spans[held_by].end_s if held_by >= 0 else 0.0)
        assert (
            held_by < 0
            or held_by in (*step.after, *step.joins)
            or schedule.threads[held_by] == schedule.threads[index]
        )


@given(step_lists())
def test_the_chain_of_waits_has_no_gap(steps: list[TimelineStep]) -> None:
    schedule = simulate(steps)
    last = max(range(len(steps)), key=lambda index: schedule.spans[index].end_s)
    chain = schedule.path(last)
    assert chain[-1] == last
    assert schedule.spans[chain[0]].start_s == 0.0
    length_s = sum(schedule.spans[i].end_s - schedule.spans[i].start_s for i in chain)
    assert length_s == pytest.approx(schedule.spans[last].end_s)
