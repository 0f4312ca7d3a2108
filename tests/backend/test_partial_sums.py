"""Partial sums: the tree they are added in, and that their memory is used again."""

from __future__ import annotations

import numpy as np
import pytest

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


@pytest.mark.parametrize("count", range(1, 20))
def test_parts_are_added_in_the_fixed_tree(count: int) -> None:
    rng = np.random.default_rng(count)
    parts = [rng.standard_normal((3, 5, 8), dtype=np.float32) for _ in range(count)]
    kept = [part.copy() for part in parts]
    memory = Memory(3, 5, 8)
    sums = PartialSums(memory)
    for _ in range(3):
        for part in parts:
            sums.add(part)
        np.testing.assert_array_equal(sums.total(), tree(kept))
    np.testing.assert_array_equal(parts, kept)
    assert len(memory.lent) <= count.bit_length() + 1


def test_parts_may_be_written_in_place() -> None:
    sums = PartialSums(Memory(4))
    for value in range(5):
        room = sums.room()
        assert room is sums.room()
        room[:] = value
        sums.push()
    np.testing.assert_array_equal(sums.total(), np.full(4, 10.0, np.float32))


def test_a_total_stays_until_the_next_part() -> None:
    sums = PartialSums(Memory(2))
    sums.add(np.ones(2, np.float32))
    found = sums.total()
    np.testing.assert_array_equal(found, [1.0, 1.0])
    sums.add(np.zeros(2, np.float32))
    np.testing.assert_array_equal(sums.total(), [0.0, 0.0])


def test_a_sum_that_was_given_up_is_forgotten() -> None:
    memory = Memory(2)
    sums = PartialSums(memory)
    for _ in range(3):
        for _ in range(3):
            sums.add(np.ones(2, np.float32))
        sums.clear()
    sums.add(np.zeros(2, np.float32))
    np.testing.assert_array_equal(sums.total(), [0.0, 0.0])
    assert len(memory.lent) <= 3
