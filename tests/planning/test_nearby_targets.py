"""Targets a little off another one, and differences between their plans."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from sti.model.workload import Workload
from sti.planning.nearby_targets import (
    LESS_LATENCY,
    MORE_LATENCY,
    MORE_MEMORY,
    MORE_PRELOAD,
    nearby_targets,
    plan_change,
)
from sti.planning.plan import PlanRequest, Target
from sti.planning.uniform import uniform_plan
from sti.units import exact_time, parse_time
from tests.support.synthetic import make_manifest, make_profile


@pytest.mark.parametrize("latency_s", [1e-6, 0.0003, 0.015, 0.1, 1.2345678, 60.0])
def test_only_one_thing_differs_and_can_be_asked_for(latency_s: float) -> None:
    target = Target(latency_s, 500, 0.9, 0.8, floor_is_limit=True)
    found = nearby_targets(target, promised_s=9.0)
    assert list(found) == [MORE_LATENCY, MORE_PRELOAD, LESS_LATENCY]
    assert found[MORE_PRELOAD] == target._replace(preload_bytes=1_000_500)
    for name, expected_s in ((MORE_LATENCY, latency_s + 0.01), (LESS_LATENCY, 0.9 * latency_s)):
        other = found[name]
        assert other._replace(latency_s=latency_s) == target
        assert other.latency_s == pytest.approx(expected_s, abs=1e-9)
        assert other.latency_s is not None
        assert parse_time(exact_time(other.latency_s)) == other.latency_s


def test_without_a_latency_less_is_less_than_what_is_promised() -> None:
    found = nearby_targets(Target(), promised_s=2.0)
    assert list(found) == [MORE_PRELOAD, LESS_LATENCY]
    assert found[MORE_PRELOAD] == Target(preload_bytes=10**6)
    assert found[LESS_LATENCY] == Target(1.8)


def test_differences_are_new_minus_old() -> None:
    manifest, profile = make_manifest(Random(1)), make_profile(ladder=(2, 4, 8))
    request = PlanRequest(manifest, "pack", Workload(1, 16))
    low, high = (uniform_plan(request, bits=bits, profile=profile) for bits in (2, 8))
    change = plan_change(low, high)
    assert change.loss < 0.0 < change.bytes_read
    assert change.metric is None
    assert plan_change(high, low) == (-change.loss, None, -change.bytes_read, -change.total_s)
    assert plan_change(low, low) == (0.0, None, 0, 0.0)
    with pytest.raises(AssertionError):
        plan_change(low, replace(high, predicted=None))


def test_where_memory_is_limited_there_is_more_of_that() -> None:
    target = Target(0.02, 500, memory_bytes=16_000_000)
    found = nearby_targets(target, promised_s=9.0)
    assert list(found) == [MORE_LATENCY, MORE_MEMORY, LESS_LATENCY]
    assert found[MORE_MEMORY] == target._replace(memory_bytes=17_000_000)
