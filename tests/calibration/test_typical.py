"""Typical values and spreads: disturbed samples do not count, extremes count little."""

from __future__ import annotations

from random import Random

import pytest

from sti.calibration.typical import disturbed, least_disturbed, spread, typical, typical_by
from sti.device.profile import LEAST_JITTER, MOST_JITTER


def test_undisturbed_samples_are_preferred_wherever_there_are_some() -> None:
    samples = [(1.0, 0.0), (1.1, 0.04), (9.0, 0.5), (0.1, 0.9)]
    assert least_disturbed(samples) == samples[:2]
    assert typical(samples) == (1.0, pytest.approx(0.02))


def test_else_the_quarter_that_was_disturbed_least_counts() -> None:
    samples = [(float(count), share) for count, share in enumerate((0.9, 0.2, 0.5, 0.4, 0.8))]
    assert least_disturbed(samples) == [(1.0, 0.2), (3.0, 0.4)]
    assert typical(samples) == (1.0, pytest.approx(0.3))


def test_the_typical_value_lies_between_lower_quartile_and_median() -> None:
    found = typical([(float(number), 0.0) for number in range(101)])
    assert 25 < found.seconds < 50


def test_what_is_disturbed_is_the_mean_of_what_was_used() -> None:
    found = typical_by([("a", 1.0, 0.0), ("a", 5.0, 0.6), ("b", 1.0, 0.4)])
    assert found["a"] == (1.0, 0.0)
    assert disturbed(found.values()) == pytest.approx(0.2)
    assert disturbed([]) == 0.0


def test_a_spread_is_near_the_98th_percentile_of_many_samples() -> None:
    rng = Random(1)
    ways = {
        way: [(scale * (1.0 + abs(rng.gauss(0.0, 0.1))), 0.0) for _ in range(300)]
        for way, scale in (("short", 0.001), ("long", 7.0))
    }
    ratios = sorted(
        seconds / typical(found).seconds for found in ways.values() for seconds, _ in found
    )
    assert spread(ways) == pytest.approx(ratios[len(ratios) * 98 // 100], rel=0.1)


def test_one_late_sample_of_twenty_changes_a_spread_little() -> None:
    even = [(1.0, 0.0)] * 19
    assert spread({0: [*even, (9.0, 0.0)]}) == pytest.approx(spread({0: [*even, (1.0, 0.0)]}))


def test_disturbed_samples_widen_no_spread() -> None:
    even = [(1.0, 0.0)] * 10
    assert spread({0: [*even, *[(4.0, 0.7)] * 10]}) == spread({0: even})


def test_spreads_are_bounded_and_near_the_usual_one_for_few_samples() -> None:
    assert spread({}) == pytest.approx(1.15)
    assert spread({0: [(1.0, 0.0), (1.6, 0.0)]}) < 1.3
    assert spread({0: [(1.0, 0.0)] * 100_000}) == LEAST_JITTER
    assert spread({0: [(1.0, 0.0)] * 600 + [(50.0, 0.0)] * 400}) == MOST_JITTER
