"""Scales and their ticks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sti.errors import InputError
from sti.report.svg.scale import Scale, linear_ticks, log_ticks, spread_out, tick_label
from sti.report.svg.text import text_width

VALUES = st.floats(-1e9, 1e9)
POSITIVE = st.floats(1e-9, 1e12)


@given(VALUES, VALUES, st.integers(5, 20))
def test_linear_ticks_are_round_rise_and_lie_within(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    assume(high - low > 1e-6 * max(abs(low), abs(high), 1e-6))
    ticks = linear_ticks(low, high, most)
    assert 2 <= len(ticks) <= most
    assert all(before < after for before, after in pairwise(ticks))
    apart = (high - low) * 1e-6
    assert low - apart <= ticks[0] and ticks[-1] <= high + apart
    step = (ticks[-1] - ticks[0]) / (len(ticks) - 1)
    digit = step / 10.0 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(digit - round_) for round_ in (1, 2, 5)) < 1e-3


@given(POSITIVE, POSITIVE, st.integers(5, 20))
def test_logarithmic_ticks_rise_and_lie_within(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    assume(high > low * 1.001)
    ticks = log_ticks(low, high, most)
    assert 2 <= len(ticks) <= most
    assert all(before < after for before, after in pairwise(ticks))
    assert low * (1 - 1e-6) <= ticks[0] and ticks[-1] <= high * (1 + 1e-6)


def test_ticks_of_known_ranges() -> None:
    assert linear_ticks(0.0, 1.0, 6) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert linear_ticks(0.0, 0.3, 4) == (0.0, 0.1, 0.2, 0.3)
    assert log_ticks(1.0, 1000.0, 5) == (1.0, 10.0, 100.0, 1000.0)
    assert log_ticks(10.0, 100.0, 5) == (10.0, 20.0, 50.0, 100.0)
    assert log_ticks(41.0, 44.0, 6) == linear_ticks(41.0, 44.0, 6)


@given(st.lists(POSITIVE, min_size=1, max_size=8), st.booleans(), st.floats(0.0, 0.2))
def test_a_scale_holds_its_values(values: list[float], log: bool, margin: float) -> None:
    scale = Scale.around(values, log=log, margin=margin)
    assert scale.low < scale.high
    assert all(-1e-6 <= scale.share(value) <= 1 + 1e-6 for value in values)


@pytest.mark.parametrize(
    ("values", "log", "message"),
    [
        ([], False, "a scale needs values"),
        ([1.0, math.inf], False, "all of them finite"),
        ([math.nan], True, "all of them finite"),
        ([0.0, 1.0], True, "above zero, not 0"),
    ],
)
def test_values_without_a_scale_are_refused(values: list[float], log: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scale.around(values, log=log)


@given(POSITIVE, st.floats(1.01, 1e6), st.booleans(), st.floats(100.0, 1000.0))
def test_labels_of_ticks_do_not_touch(low: float, ratio: float, log: bool, width: float) -> None:
    scale = Scale(low, low * ratio, log)
    shown = spread_out(scale.ticks, lambda value: width * scale.share(value), 12)
    for before, after in pairwise(shown):
        between = width * (scale.share(after) - scale.share(before))
        labels = text_width(tick_label(before)) + text_width(tick_label(after))
        assert between > labels / 2
