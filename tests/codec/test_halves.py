"""Halves of codebook values: against every choice of directions, and equal on all machines."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sti.codec.codebook import Codebook
from sti.codec.halves import WEIGHTS, bell_of, halves_of, nearest
from tests.support.codes import Int8, bell_codebook, wild_codebook

BOOKS = [
    bell_codebook(),
    bell_codebook((2, 3, 4)),
    *(wild_codebook((2, 3), seed=n) for n in range(4)),
]


def moved(book: Codebook, values: Int8, halves: Int8) -> tuple[int, int]:
    """How far the mean of all weights moves, times their number, and the spread that is gained."""
    bell = bell_of(book)
    often = np.bincount(nearest(values), bell, minlength=len(values))
    rounded = 2 * halves.astype(np.int64) - values
    return int(often @ rounded), int(often @ (rounded * values))


@pytest.mark.parametrize("book", BOOKS)
def test_no_other_choice_moves_the_mean_less_or_spreads_the_values_more(book: Codebook) -> None:
    for bits in [bits for bits in book.ladder if bits <= 4]:
        values = np.unique(book.values[bits])
        found = halves_of(values, bell_of(book))
        ways = [
            (value // 2, value // 2 + 1) if value % 2 and value < 127 else (value // 2,)
            for value in values.tolist()
        ]
        every = [np.array(choice, np.int8) for choice in product(*ways)]
        ranks = [(abs(shift), -spread) for shift, spread in (moved(book, values, h) for h in every)]
        shift, spread = moved(book, values, found)
        assert (abs(shift), -spread) == min(ranks)
        assert spread >= 0


def test_the_mean_stays_where_half_to_even_moved_it() -> None:
    book = bell_codebook()
    for bits, most in ((3, 0.1), (4, 0.01), (6, 0.05), (8, 0.001)):
        values = book.values[bits]
        shift, _ = moved(book, values, halves_of(values, bell_of(book)))
        assert abs(shift) <= most * bell_of(book).sum()


@pytest.mark.parametrize("book", [bell_codebook(), wild_codebook((2, 3, 5, 8), seed=1)])
def test_halves_are_the_nearest_within_7_bits(book: Codebook) -> None:
    for values in book.values.values():
        halves = halves_of(values, bell_of(book))
        assert halves.dtype == np.int8 and halves.shape == values.shape
        assert halves.min() >= -64 and halves.max() <= 63
        apart = np.abs(2 * halves.astype(np.int64) - values)
        assert (apart[values % 2 == 0] == 0).all() and apart.max() <= 1
        assert len(set(zip(values.tolist(), halves.tolist(), strict=True))) == len(
            set(values.tolist())
        )


def test_many_odd_values_are_rounded_to_even() -> None:
    values = np.arange(-128, 128).astype(np.int8)
    halves = halves_of(values, bell_of(bell_codebook()))
    assert np.array_equal(halves, np.rint(values / 2).clip(-64, 63))


def test_known_books_have_known_halves() -> None:
    """So on every machine: plans of one pack give the same bits everywhere."""
    values = {
        2: [-26, -8, 7, 25],
        3: [-38, -22, -12, -4, 3, 11, 22, 38],
        4: [-47, -35, -27, -20, -14, -10, -6, -2, 1, 5, 9, 13, 19, 26, 35, 47],
    }
    book = Codebook((2, 3, 4), {bits: np.array(each, np.int8) for bits, each in values.items()})
    bell = bell_of(book)
    assert [halves_of(table, bell).tolist() for table in book.values.values()] == [
        [-13, -4, 3, 13],
        [-19, -11, -6, -2, 1, 6, 11, 19],
        [-24, -18, -14, -10, -7, -5, -3, -1, 1, 3, 5, 6, 9, 13, 17, 24],
    ]


def test_the_deviation_is_that_of_the_weights() -> None:
    bell = bell_of(bell_codebook())
    deviation = np.sqrt(bell @ np.square(WEIGHTS) / bell.sum())
    assert 15.0 < deviation < 21.0
    assert np.array_equal(bell, bell[::-1])
