"""Costs fitted to times: exact, never below zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.least_squares import fit_costs

POINTS = [
    (1.0, width, tokens, width * tokens, width * tokens * tokens)
    for width in (3, 6, 12)
    for tokens in (16, 64, 128)
]


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda c: sum(c) > 0.1))
def test_times_made_of_costs_are_explained_by_costs(shares: list[float]) -> None:
    terms = np.array(POINTS)
    costs = np.array(shares) * np.array([1e-4, 1e-5, 1e-6, 1e-6, 1e-9])
    seconds = terms @ costs
    if seconds.min() <= 0:
        return
    assert terms @ fit_costs(terms, seconds) == pytest.approx(seconds, rel=1e-3)


@given(st.lists(st.floats(1e-5, 1.0), min_size=9, max_size=9))
def test_costs_are_never_negative_whatever_was_measured(seconds: list[float]) -> None:
    assert (fit_costs(POINTS, seconds) >= 0).all()


@given(st.lists(st.floats(0.1, 1.0), min_size=6, max_size=6))
def test_no_other_costs_explain_better(seconds: list[float]) -> None:
    terms = np.array([(1.0, x, x * x) for x in (1, 2, 3, 4, 5, 6)])
    y = np.array(seconds)

    def error(costs: np.ndarray) -> float:
        return float((((terms @ costs) / y - 1) ** 2).sum())

    found = fit_costs(terms, y)
    rng = np.random.default_rng(0)
    for step in (0.001, 0.01, 0.1):
        others = np.maximum(0, found + rng.normal(0, step, (200, 3)))
        assert min(error(other) for other in others) >= error(found) - 1e-9


def test_an_error_counts_relative_to_its_time() -> None:
    # A constant cannot fit both; the relative optimum lies near the small one.
    found = fit_costs([[1.0], [1.0]], [1.0, 100.0])
    assert found[0] == pytest.approx(1.0098, rel=1e-3)


def test_one_measurement_is_explained_exactly() -> None:
    terms = np.array([[1.0, 12.0, 16.0]])
    assert terms @ fit_costs(terms, [0.5]) == pytest.approx([0.5])


def test_errors_may_be_relative_to_something_else_than_the_seconds() -> None:
    terms, left, totals = [[1.0], [1.0]], [0.0, 1.0], [1.0, 10.0]
    # A weight of a hundred for the first, which says 0.
    assert fit_costs(terms, left, scale=totals) == pytest.approx([0.01 / 1.01])
