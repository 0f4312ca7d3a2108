"""Metrics and differences in words."""

from __future__ import annotations

import pytest

from sti.report.wording import show_metric, signed
from sti.units import format_size, format_time


@pytest.mark.parametrize(
    ("value", "difference", "digits", "expected"),
    [
        (0.5, False, None, "50.0 %"),
        (0.0123, True, None, "1.2 points"),
        (0.0123, True, 2, "1.23 points"),
        (0.5, False, 0, "50 %"),
    ],
)
def test_an_accuracy_is_in_percent(
    value: float, difference: bool, digits: int | None, expected: str
) -> None:
    assert show_metric("accuracy", value, difference=difference, digits=digits) == expected


def test_other_metrics_are_numbers() -> None:
    assert show_metric("spearman", 0.81234) == "0.812"
    assert show_metric("spearman", 0.81234, difference=True, digits=4) == "0.8123"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0012, "+1.20 ms"), (-2.0, "-2.00 s"), (0.0, "0"), (-1e-12, "0")]
)
def test_differences_have_a_sign(seconds: float, expected: str) -> None:
    assert signed(seconds, format_time) == expected


def test_differences_of_whole_numbers_have_a_sign() -> None:
    assert signed(-1500, lambda size: format_size(int(size))) == "-1.50 KB"
    assert signed(0, lambda size: format_size(int(size))) == "0"
