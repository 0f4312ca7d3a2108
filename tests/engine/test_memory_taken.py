"""What runs have taken and not given back: each part as the run took it that took the most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sti.engine.memory_taken import MemoryTaken
from sti.model.workload import Workload
from sti.planning.memory import BUFFERS, RING, STATES, VALUES, MemoryPart, total_size

SMALL, LARGE = [Workload(1, 8)], [Workload(2, 64)]
MB = 1_000_000


def parts(*, ring: int = 0, buffers: int = 0, values: int = 0) -> list[MemoryPart]:
    return [MemoryPart(RING, ring), MemoryPart(BUFFERS, buffers), MemoryPart(VALUES, values)]


def test_buffers_stay_and_the_ring_follows_the_plan() -> None:
    taken = MemoryTaken()
    assert taken.note(parts(ring=4 * MB, buffers=2 * MB), SMALL) == 6 * MB
    assert taken.note(parts(ring=1 * MB, buffers=1 * MB), SMALL) == 3 * MB
    assert taken.note(parts(ring=4 * MB, buffers=1 * MB), SMALL) == 6 * MB


def test_a_run_that_is_larger_in_any_way_takes_values_of_its_own() -> None:
    taken = MemoryTaken()
    taken.note(parts(values=3 * MB), [Workload(1, 100)])
    assert taken.note(parts(values=2 * MB), [Workload(1, 90)]) == 3 * MB
    wider = [Workload(2, 60)]  # more tokens of fewer pairs
    assert taken.note(parts(values=2 * MB), wider) == 5 * MB
    assert taken.note(parts(values=2 * MB), wider) == 5 * MB
    assert taken.note(parts(values=4 * MB), [Workload(1, 110), *wider]) == 9 * MB


def test_what_is_given_back_does_not_count_any_more() -> None:
    taken = MemoryTaken()
    taken.note(parts(ring=MB, buffers=2 * MB, values=4 * MB), LARGE)
    taken.arena_is_empty()
    assert taken.after(parts(ring=MB, values=MB), SMALL) == 4 * MB
    taken.all_is_given_back()
    assert taken.after(parts(ring=MB, values=MB), SMALL) == 2 * MB


def states(groups: list[Workload]) -> list[MemoryPart]:
    return [MemoryPart(STATES, sum(group.batch * group.tokens for group in groups))]


def test_hidden_states_stay_until_a_group_has_no_room() -> None:
    taken, mixed = MemoryTaken(), [Workload(1, 10), Workload(2, 30)]
    assert not taken.has_states(mixed)
    assert taken.note(states(mixed), mixed) == 70
    fewer = [Workload(1, 9)]
    assert taken.has_states(fewer)
    assert taken.note(states(fewer), fewer) == 70
    assert taken.has_states(mixed)
    assert not taken.has_states([Workload(1, 11)])  # the other group's memory would lie beside it
    assert not taken.has_states([*fewer, *fewer, *fewer])


def test_hidden_states_that_are_given_back_do_not_count_any_more() -> None:
    taken, mixed, one = MemoryTaken(), [Workload(1, 10), Workload(2, 30)], [Workload(1, 50)]
    taken.note(states(mixed), mixed)
    taken.states_are_given_back()
    assert taken.note(states(one), one) == 50
    taken.all_is_given_back()
    assert not taken.has_states(one)


runs = st.lists(
    st.tuples(
        st.builds(parts, ring=st.integers(0, 9), buffers=st.integers(0, 9)),
        st.lists(st.builds(Workload, st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=8,
)


@given(runs)
def test_no_run_is_thought_to_take_less_than_it_takes_alone(
    found: list[tuple[list[MemoryPart], list[Workload]]],
) -> None:
    taken = MemoryTaken()
    for given_parts, groups in found:
        values = sum(group.batch * group.tokens for group in groups)
        whole = [*given_parts[:2], MemoryPart(VALUES, values), MemoryPart(STATES, values)]
        foretold = taken.after(whole, groups)
        assert foretold >= total_size(whole)
        assert taken.note(whole, groups) == foretold == taken.after(whole, groups)
