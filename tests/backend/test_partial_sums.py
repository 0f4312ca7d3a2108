"""Partial sums: the tree they are added in, whoever adds them, and that memory is used again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.arrays import Float32Array
from sti.backend.partial_sums import PartialSums


def tree(parts: list[Float32Array]) -> Float32Array:
    """The specification: the largest power of two below the number of parts goes left."""
    if len(parts) == 1:
        return parts[0]
    left = 1 << (len(parts) - 1).bit_length() - 1
    return np.asarray(tree(parts[:left]) + tree(parts[left:]))


class Memory:
    """Lends arrays, and remembers them."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.lent: list[Float32Array] = []

    def __call__(self, number: int) -> Float32Array:
        assert number == len(self.lent)
        self.lent.append(np.full(self.shape, np.nan, np.float32))
        return self.lent[-1]


def parts_of(count: int, *shape: int) -> list[Float32Array]:
    rng = np.random.default_rng(count)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]


def add(sums: PartialSums, number: int, part: Float32Array) -> None:
    sums.room(number)[:] = part
    sums.add(number)


@pytest.mark.parametrize("count", range(1, 20))
def test_parts_are_added_in_the_fixed_tree(count: int) -> None:
    parts, memory = parts_of(count, 3, 5, 8), Memory(3, 5, 8)
    sums = PartialSums(memory)
    for _ in range(3):
        for number, part in enumerate(parts):
            add(sums, number, part)
        np.testing.assert_array_equal(sums.total(), tree(parts))
    assert len(memory.lent) <= count.bit_length() + 1


@settings(max_examples=60)
@given(order=st.integers(1, 19).flatmap(lambda count: st.permutations(range(count))))
def test_the_order_in_which_parts_come_does_not_matter(order: Sequence[int]) -> None:
    parts = parts_of(len(order), 7)
    sums = PartialSums(Memory(7))
    for number in order:
        add(sums, number, parts[number])
    np.testing.assert_array_equal(sums.total(), tree(parts))


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switched")
@pytest.mark.parametrize("threads", [2, 4])
def test_threads_that_take_parts_in_turn_make_the_same_sum(threads: int) -> None:
    count, memory = 13, Memory(64)
    parts, sums = parts_of(count, 64), PartialSums(memory)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(50):
            list(pool.map(lambda number: add(sums, number, parts[number]), range(count)))
            np.testing.assert_array_equal(sums.total(), tree(parts))
    # Every thread may hold one, and keep the neighbours of one waiting on each level.
    assert len(memory.lent) <= threads * 2 + count.bit_length() + 1


def test_neighbours_are_joined_as_soon_as_both_are_there() -> None:
    sums, memory = PartialSums(Memory(2)), np.ones(2, np.float32)
    waiting = []
    for number in (0, 1, 3, 2, 6, 7, 5, 4):
        add(sums, number, memory)
        waiting.append(len(sums))
    assert waiting == [1, 1, 2, 1, 2, 2, 3, 1]


def test_a_total_stays_until_the_next_part() -> None:
    sums = PartialSums(Memory(2))
    add(sums, 0, np.ones(2, np.float32))
    found = sums.total()
    assert len(sums) == 0
    np.testing.assert_array_equal(found, [1.0, 1.0])
    add(sums, 0, np.zeros(2, np.float32))
    np.testing.assert_array_equal(sums.total(), [0.0, 0.0])


def test_a_sum_that_was_given_up_is_forgotten() -> None:
    memory = Memory(2)
    sums = PartialSums(memory)
    for _ in range(3):
        for number in range(3):
            add(sums, number, np.ones(2, np.float32))
        sums.clear()
    add(sums, 0, np.zeros(2, np.float32))
    np.testing.assert_array_equal(sums.total(), [0.0, 0.0])
    assert len(memory.lent) <= 3
