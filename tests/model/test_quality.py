"""What calibration measured, read off: curves, their inverse, and the metric to expect."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sti.model.quality import (
    INDISTINCT,
    Quality,
    Rejection,
    follow,
    interpolate,
    loss_at,
    reach,
)

STEPS = st.lists(
    st.tuples(st.floats(0.01, 10.0), st.one_of(st.just(0.0), st.floats(0.001, 10.0))), max_size=6
)
Points = tuple[list[float], list[float]]


@st.composite
def curves(draw: st.DrawFn) -> Points:
    """Places rising from 0 and values that never fall; now and then a single point."""
    steps = draw(STEPS)
    places = list(accumulate((step for step, _ in steps), initial=0.0))
    values = list(accumulate((rise for _, rise in steps), initial=draw(st.floats(0.0, 5.0))))
    return places, values


@given(curves(), st.floats(-5.0, 100.0))
def test_between_points_a_curve_is_straight_and_beyond_them_flat(
    curve: Points, place: float
) -> None:
    places, values = curve
    assert interpolate(places, values, place) == pytest.approx(np.interp(place, places, values))


@given(curves())
def test_a_curve_goes_through_its_points(curve: Points) -> None:
    for place, value in zip(*curve, strict=True):
        assert interpolate(*curve, place) == value
        assert follow(*curve, place) == value


@given(curves(), st.floats(0.0, 50.0))
def test_beyond_its_last_point_a_curve_goes_on_as_it_came(curve: Points, beyond: float) -> None:
    places, values = curve
    slope = 1.0
    if len(places) > 1:
        slope = (values[-1] - values[-2]) / (places[-1] - places[-2])
    found = follow(places, values, places[-1] + beyond)
    assert found == pytest.approx(values[-1] + beyond * slope, rel=1e-6)


@given(curves(), st.floats(0.0, 60.0), st.floats(0.0, 60.0))
def test_more_missing_is_never_less_lost(curve: Points, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert follow(*curve, low) <= follow(*curve, high) * (1 + 1e-12)


@given(curves(), st.floats(0.0, 80.0))
def test_what_may_be_missing_loses_no_more_and_a_little_more_does(
    curve: Points, value: float
) -> None:
    places, values = curve
    place = reach(places, values, value)
    if math.isinf(place):
        flat = len(values) > 1 and values[-1] == values[-2]
        assert value < values[0] if place < 0 else flat and value >= values[-1]
        return
    assume(place < 1e6)
    assert place >= 0.0
    assert follow(places, values, place) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert follow(places, values, place + 0.01) > value


@given(curves(), st.floats(0.0, 60.0))
def test_a_loss_that_was_read_off_allows_what_was_missing(curve: Points, missing: float) -> None:
    found = reach(*curve, follow(*curve, missing))
    assert found >= missing - 1e-6 * max(1.0, missing)


@given(
    steps=st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 0.1)), max_size=6),
    first=st.floats(0.6, 1.0),
    metric=st.sampled_from(["accuracy", "spearman"]),
    residual=st.floats(0.0, 0.5),
    examples=st.integers(1, 10_000),
    loss=st.floats(0.0, 20.0),
)
def test_an_estimate_lies_within_its_interval_and_within_the_metric(
    steps: list[tuple[float, float]],
    first: float,
    metric: str,
    residual: float,
    examples: int,
    loss: float,
) -> None:
    losses = tuple(accumulate((step for step, _ in steps), initial=0.0))
    values = tuple(first - fall for fall in accumulate((fall for _, fall in steps), initial=0.0))
    quality = Quality(metric, examples, residual, losses, values)
    found = quality.estimate(loss)
    assert found.metric == metric
    assert values[-1] - 1e-12 <= found.value <= values[0] + 1e-12
    assert (0.0 if metric == "accuracy" else -1.0) <= found.low <= found.value
    assert found.value <= found.high <= 1.0
    assert quality.estimate(loss + 1.0).value <= found.value + 1e-12


def test_the_interval_of_an_accuracy_covers_the_fit_and_the_sample() -> None:
    found = Quality("accuracy", 900, 0.004, (0.0, 1.0), (0.98, 0.82)).estimate(0.5)
    reach_95 = 1.96 * math.sqrt(0.004**2 + 0.9 * 0.1 / 900)
    assert found.value == pytest.approx(0.9)
    assert (found.low, found.high) == pytest.approx((0.9 - reach_95, 0.9 + reach_95))


def test_the_interval_of_a_correlation_covers_the_fit() -> None:
    found = Quality("spearman", 900, 0.01, (0.0,), (0.5,)).estimate(3.0)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.4804, 0.5196))


def test_more_examples_make_an_accuracy_surer() -> None:
    few, many = (
        Quality("accuracy", count, 0.01, (0.0,), (0.9,)).estimate(0.0) for count in (100, 10_000)
    )
    assert few.value == many.value
    assert few.low < many.low < many.high < few.high


def test_a_threshold_is_that_of_the_plans_loss() -> None:
    rejection = Rejection("other", 1.5, 0.95, (0.1, 0.3), (0.6, 0.4))
    found = [rejection.threshold(loss) for loss in (0.0, 0.1, 0.2, 0.3, 9.0)]
    assert found == pytest.approx([0.6, 0.6, 0.5, 0.4, 0.4])


def test_a_metric_that_hardly_falls_cannot_be_told_from_its_best() -> None:
    def indistinct(residual: float, values: tuple[float, ...]) -> float:
        places = (0.0, 0.1, 0.3)[: len(values)]
        return Quality("accuracy", 500, residual, places, values).indistinct_from(0.0)

    assert indistinct(0.0, (0.9, 0.9, 0.8)) == pytest.approx(0.1)
    assert indistinct(0.2, (0.9, 0.9, 0.8)) == pytest.approx(0.1 + 0.2 * INDISTINCT * 0.2 / 0.1)
    assert indistinct(0.02, (0.9, 0.8, 0.7)) == pytest.approx(INDISTINCT * 0.02)
    assert indistinct(0.0, (0.9, 0.8, 0.7)) == 0.0
    assert indistinct(0.3 / INDISTINCT, (0.9, 0.8, 0.7)) == 0.3
    assert indistinct(0.0, (0.9,)) == 0.0
    curve = Quality("accuracy", 500, 0.02, (0.0, 0.1, 0.3), (0.9, 0.8, 0.7))
    assert curve.indistinct_from(0.1) == pytest.approx(0.1 + 0.2 * INDISTINCT * 0.02 / 0.1)
    assert curve.indistinct_from(0.4) == 0.4


def test_a_share_of_the_full_models_metric_is_kept_up_to_some_loss() -> None:
    curve = Quality("accuracy", 500, 0.02, (0.0, 0.1, 0.3), (0.9, 0.8, 0.7))
    assert loss_at(curve, 1.0) == pytest.approx(0.0)
    assert loss_at(curve, 0.85 / 0.9) == pytest.approx(0.05)
    assert loss_at(curve, 0.75 / 0.9) == pytest.approx(0.2)
    assert loss_at(curve, 0.7 / 0.9 - 1e-9) == math.inf
    assert loss_at(curve, 0.0) == math.inf
    flat = Quality("accuracy", 500, 0.02, (0.0, 0.1, 0.3), (0.9, 0.9, 0.5))
    assert loss_at(flat, 1.0) == pytest.approx(0.1)
    assert loss_at(Quality("spearman", 500, 0.02, (0.2,), (0.9,)), 1.0) == math.inf
