"""How runs kept their target: counted, summed up, and warned of when it is missed too often."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import sti
from sti.engine.health import RUNS_JUDGED, Health, HealthLog, at_least, percentile
from sti.planning.plan import Target
from tests.support.packs import PROFILE, TEXTS, tiny_pack

LATENCY_S = 1.0


@pytest.fixture(scope="module")
def some() -> sti.Result:
    with sti.Engine.open(
        tiny_pack("classification"), latency="1000s", threads=1, profile=PROFILE
    ) as engine:
        return engine.run(TEXTS)


def taking(result: sti.Result, total_s: float) -> sti.Result:
    plan = replace(result.plan, target=result.plan.target._replace(latency_s=LATENCY_S))
    return replace(result, plan=plan, timing=result.timing._replace(total_s=total_s))


def test_shares_and_percentiles_are_those_of_the_runs(some: sti.Result) -> None:
    log = HealthLog(Target(LATENCY_S))
    for number in range(1, 101):
        log.note(taking(some, 0.0101 * number))
    found = log.health(replans=3)
    assert (found.runs, found.inside, found.replans) == (100, 0.99, 3)
    assert found.percentiles_s == pytest.approx({"p50": 0.505, "p95": 0.9595, "p99": 0.9999})
    assert sum(found.causes.values()) == 1
    assert json.loads(json.dumps(found.to_json()))["inside"] == 0.99
    assert str(found).startswith("99 % within 1.00 s; 100 runs: p50 505 ms")
    assert "plan changed 3 times" in str(found)


def test_before_any_run_there_is_nothing_to_tell() -> None:
    found = HealthLog(Target(LATENCY_S)).health(replans=0)
    assert (found.runs, found.inside, found.percentiles_s) == (0, None, {})
    assert str(found) == "no run yet"


def test_without_a_latency_nothing_is_inside_or_late(some: sti.Result) -> None:
    log = HealthLog(Target())
    result = replace(some, plan=replace(some.plan, target=Target()))
    assert log.note(result) is None
    found = log.health(replans=0)
    assert found.inside is None and found.causes == {}


def test_a_warning_says_what_would_have_been_kept(some: sti.Result) -> None:
    log = HealthLog(Target(LATENCY_S))
    told = [log.note(taking(some, 1.5 if number % 5 == 4 else 0.5)) for number in range(40)]
    warnings = [text for text in told if text is not None]
    assert len(warnings) == 1
    assert "missed by 3 of the last 15 runs, and 98% of them are to keep it" in warnings[0]
    assert "1.50 s would have been kept" in warnings[0]


def test_as_many_misses_as_the_quantile_allows_are_not_warned_of(some: sti.Result) -> None:
    log = HealthLog(Target(LATENCY_S, quantile=0.8))
    for number in range(200):
        assert log.note(taking(some, 1.5 if number % 5 == 4 else 0.5)) is None


def test_a_warning_is_given_again_only_after_as_many_runs_again(some: sti.Result) -> None:
    log = HealthLog(Target(LATENCY_S))
    told = [number for number in range(250) if log.note(taking(some, 1.5)) is not None]
    assert told == [9, 9 + RUNS_JUDGED, 9 + 2 * RUNS_JUDGED]


def test_an_engine_warns_and_knows_its_health() -> None:
    pack = tiny_pack("classification")
    with sti.Engine.open(pack, latency="1000s", threads=1, profile=PROFILE) as engine:
        for _ in range(3):
            engine.run(TEXTS)
        found = engine.health()
        assert isinstance(found, Health)
        assert (found.runs, found.inside, found.latency_s) == (3, 1.0, 1000.0)
        engine.run(TEXTS, mode="sequential")  # not how it is planned: counts for nothing
        assert engine.health().runs == 3
        engine.set_target(latency="2000s")
        assert engine.health().runs == 0


def test_the_chance_of_misses_is_that_of_the_binomial_distribution() -> None:
    assert at_least(0, 10, 0.02) == 1.0
    assert at_least(1, 10, 0.5) == pytest.approx(1 - 0.5**10)
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([1.0], 0.5) == 1.0
