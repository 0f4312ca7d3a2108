"""Corrections: outliers change nothing, steps and drift are followed, promises are calibrated."""

from __future__ import annotations

import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE
from sti.errors import ProfileError
from sti.model.workload import Workload
from sti.planning.corrections import (
    FIRSTS,
    LEAST_SPREAD,
    MOST_SPREAD,
    Corrections,
    RunTimes,
)
from sti.planning.follower import MOST_FACTOR, Factor

KIND = "pipelined"
SHORT, LONG = Workload(1, 16), Workload(1, 128)
ALONE_S = {STORAGE: 0.004, DECODE: 0.003, COMPUTE: 0.010}


def predicted_s(known: Corrections, workload: Workload) -> float:
    """Of a run whose lanes work one after the other."""
    lanes = known.lanes
    alone_s = sum(ALONE_S[lane] * lanes[lane] for lane in LANES)
    return known.extra(KIND, workload).total_s(alone_s)


def extra_s(known: Corrections, workload: Workload = SHORT, kind: str = KIND) -> float:
    """Beyond a price such as all runs here have."""
    return known.extra(kind, workload).beyond_s(sum(ALONE_S.values()))


def run(
    known: Corrections,
    slower: dict[str, float] | None = None,
    *,
    more: float = 1.0,
    workload: Workload = SHORT,
    quantile: float = 0.98,
    whole: bool = True,
    held: bool = True,
    size: float = 1.0,
) -> bool:
    """One run on a machine whose lanes are slower; whether it took no longer than promised."""
    lanes, alone_s = known.lanes, {lane: seconds * size for lane, seconds in ALONE_S.items()}
    measured = {lane: alone_s[lane] * (slower or {}).get(lane, 1.0) for lane in LANES}
    price_s = sum(alone_s[lane] * lanes[lane] for lane in LANES)
    expected_s = known.extra(KIND, workload).total_s(price_s)
    took_s = sum(measured.values()) * more
    kept = took_s <= expected_s * known.spread(KIND, quantile)
    known.learn(
        RunTimes(
            threads=KIND,
            workload=workload,
            predicted_lanes_s={lane: alone_s[lane] * lanes[lane] for lane in LANES},
            measured_lanes_s=measured,
            predicted_s=expected_s,
            measured_s=took_s,
            lanes=lanes,
            price_s=price_s,
            whole=whole,
            held=held,
        ),
        quantile,
    )
    return kept


def fresh(jitter: float = 1.1) -> Corrections:
    return Corrections({KIND: jitter})


def test_a_machine_as_measured_needs_no_correction() -> None:
    known = fresh()
    for _ in range(50):
        run(known)
    assert known.lanes == pytest.approx(dict.fromkeys(LANES, 1.0))
    assert extra_s(known) == pytest.approx(0.0, abs=1e-9)


def test_slower_storage_is_known_after_two_runs_and_so_is_its_end() -> None:
    known = fresh()
    for _ in range(10):
        run(known)
    for _ in range(2):
        run(known, {STORAGE: 10.0})
    assert known.lanes[STORAGE] == pytest.approx(10.0, rel=0.05)
    assert known.lanes[COMPUTE] == pytest.approx(1.0)
    for _ in range(3):
        run(known, {STORAGE: 10.0})
    assert predicted_s(known, SHORT) == pytest.approx(0.053, rel=0.1)
    for _ in range(20):
        run(known)
    assert known.lanes[STORAGE] == pytest.approx(1.0, rel=0.05)
    assert predicted_s(known, SHORT) == pytest.approx(0.017, rel=0.05)
    assert known.spread(KIND, 0.98) < 1.6


@given(st.sampled_from(LANES), st.floats(2.0, 1000.0))
def test_a_single_outlier_changes_no_factor(lane: str, slower: float) -> None:
    known = fresh()
    for _ in range(5):
        run(known)
    run(known, {lane: slower})
    assert known.lanes == pytest.approx(dict.fromkeys(LANES, 1.0))
    for _ in range(3):
        run(known)
    assert known.lanes == pytest.approx(dict.fromkeys(LANES, 1.0))
    assert extra_s(known) == pytest.approx(0.0, abs=0.001)


def test_two_outliers_in_opposite_directions_change_nothing() -> None:
    factor = Factor()
    assert not factor.follow(3.0, 0.2)
    assert not factor.follow(0.3, 0.2)
    assert factor.value == 1.0


def test_runs_that_left_something_out_widen_the_promise_as_late_ones_do() -> None:
    rng, known = Random(5), fresh()
    kept = 0
    for number in range(2000):
        slow = rng.random() < 0.1
        more = 1.6 if slow else math.exp(rng.gauss(0.0, 0.03))
        kept += run(known, more=more, whole=not slow) and number >= 300
    assert kept / 1700 >= 0.96


def test_promises_of_one_quantile_do_not_change_those_of_another() -> None:
    known = fresh()
    for _ in range(300):
        run(known, quantile=0.5)
    assert known.to_json()["calibration"] == {}
    before = known.spread(KIND, 0.9)
    rng = Random(2)
    for _ in range(50):
        run(known, more=math.exp(rng.gauss(0.0, 0.01)), quantile=0.98)
    assert known.spread(KIND, 0.9) == pytest.approx(before, rel=0.05)


def test_a_lane_that_nothing_is_seen_of_is_forgotten() -> None:
    known = fresh()
    for _ in range(4):
        run(known, {STORAGE: 10.0})
    assert known.lanes[STORAGE] > 9.0
    idle = {**ALONE_S, STORAGE: 0.0}
    for _ in range(20):
        lanes = known.lanes
        known.learn(RunTimes(KIND, SHORT, idle, idle, 0.013, 0.013, lanes, 0.0), 0.98)
    assert known.lanes[STORAGE] == pytest.approx(1.0, abs=0.15)


def test_of_two_that_confirm_each_other_the_nearer_is_believed() -> None:
    factor = Factor()
    factor.follow(9.0, 0.2)
    assert factor.follow(3.0, 0.2)
    assert factor.value == pytest.approx(3.0)


def test_drift_is_followed() -> None:
    known, slower = fresh(), 1.0
    for _ in range(120):
        slower *= 1.01
        run(known, dict.fromkeys(LANES, slower))
    assert predicted_s(known, SHORT) == pytest.approx(0.017 * slower, rel=0.1)


def test_what_the_cost_model_gets_wrong_for_a_length_is_learned_for_that_length() -> None:
    known = fresh()
    for _ in range(60):
        run(known, workload=SHORT)
        run(known, workload=LONG, more=1.25)
    assert extra_s(known, LONG) - extra_s(known, SHORT) == pytest.approx(0.25 * 0.017, rel=0.05)
    assert predicted_s(known, SHORT) == pytest.approx(0.017, rel=0.03)


def test_what_passes_for_one_kind_of_threads_passes_for_those_that_did_not_run() -> None:
    known = fresh()
    other = "sequential"
    for _ in range(10):
        run(known, more=3.0)
    assert extra_s(known, SHORT, other) > 0.02
    for _ in range(20):
        run(known)
    assert extra_s(known, SHORT, other) == pytest.approx(0.0, abs=0.002)


def test_a_run_that_did_less_than_predicted_tells_of_its_lanes_alone() -> None:
    known = fresh()
    for _ in range(3):
        run(known, {STORAGE: 10.0}, more=0.2, whole=False)
    assert known.lanes[STORAGE] == pytest.approx(10.0, rel=0.05)
    assert extra_s(known) == 0.0


def test_a_run_whose_preload_was_not_held_tells_of_its_lanes_alone() -> None:
    known = fresh()
    for _ in range(10):
        run(known)
    before = known.spread(KIND, 0.98)
    for _ in range(3):
        run(known, {STORAGE: 10.0}, more=3.0, held=False)
    assert known.lanes[STORAGE] == pytest.approx(10.0, rel=0.05)
    assert extra_s(known) == pytest.approx(0.0, abs=1e-9)
    assert known.spread(KIND, 0.98) == before


def test_what_long_runs_lose_shorter_ones_of_other_lengths_lose_in_proportion() -> None:
    known = fresh()
    for _ in range(20):
        run(known, more=1.3, workload=LONG, size=5.0)
    price_s = sum(ALONE_S.values())
    assert known.extra(KIND, SHORT).total_s(price_s) == pytest.approx(1.3 * price_s, rel=0.1)
    for _ in range(20):  # what short ones lose, longer ones lose at least
        run(known, more=1.6)
    lost_s = known.extra(KIND, LONG).beyond_s(5.0 * price_s)
    assert lost_s >= 0.55 * price_s


@pytest.mark.parametrize("kind", FIRSTS)
def test_first_runs_are_learned_apart_as_what_most_of_them_take(kind: str) -> None:
    known = fresh()

    def first(took_s: float) -> None:
        more_s, lanes = known.first_s(kind), known.lanes
        expected_s = 0.017 + more_s
        run = RunTimes(
            KIND, SHORT, ALONE_S, ALONE_S, expected_s, took_s, lanes, 0.017, kind, more_s
        )
        known.learn(run, 0.98)

    first(0.020)
    assert known.first_s(kind) == pytest.approx(0.003)
    first(0.017)
    assert 0.0027 < known.first_s(kind) < 0.003
    first(0.023)
    assert known.first_s(kind) > 0.004
    assert extra_s(known) == 0.0
    first(1000.0)
    assert known.first_s(kind) < 0.03
    (other,) = set(FIRSTS) - {kind}
    assert known.first_s(other) == 0.0


def test_lengths_that_are_predicted_badly_do_not_look_like_a_machine_that_changes() -> None:
    known = fresh()
    for _ in range(20):
        for workload, slower in ((SHORT, 1.3), (SHORT, 1.3), (LONG, 0.9), (LONG, 0.9)):
            run(known, {COMPUTE: slower}, workload=workload)
    seen = []
    for workload, slower in ((SHORT, 1.3), (SHORT, 1.3), (LONG, 0.9), (LONG, 0.9)) * 3:
        run(known, {COMPUTE: slower}, workload=workload)
        seen.append(known.lanes[COMPUTE])
    assert max(seen) / min(seen) < 1.05


@pytest.mark.parametrize("quantile", [0.9, 0.98])
@pytest.mark.parametrize("noise", ["normal", "heavy"])
def test_as_many_runs_keep_the_promise_as_are_asked_for(quantile: float, noise: str) -> None:
    rng, known = Random(3), fresh(jitter=1.02)
    kept = 0
    for number in range(4000):
        more = math.exp(rng.gauss(0.0, 0.06))
        if noise == "heavy" and rng.random() < 0.06:
            more *= 1.0 + rng.random()
        good = run(known, more=more, quantile=quantile)
        kept += good and number >= 200
    assert kept / 3800 == pytest.approx(quantile, abs=0.012)


@pytest.mark.parametrize("took_s", [0.0, -1.0, math.inf, math.nan])
def test_a_clock_that_jumped_is_ignored(took_s: float) -> None:
    known = fresh()
    lanes = known.lanes
    known.learn(RunTimes(KIND, SHORT, ALONE_S, ALONE_S, 0.017, took_s, lanes, 0.0), 0.98)
    assert (known.runs, extra_s(known)) == (0, 0.0)


def test_spreads_stay_within_bounds() -> None:
    known = fresh(jitter=1.0)
    for _ in range(50):
        run(known)
    assert known.spread(KIND, 0.98) >= LEAST_SPREAD
    rng = Random(1)
    for _ in range(500):
        run(known, more=math.exp(rng.gauss(0.0, 3.0)))
    assert known.spread(KIND, 0.999) <= MOST_SPREAD
    assert all(1 / MOST_FACTOR <= value <= MOST_FACTOR for value in known.lanes.values())


def test_what_was_learned_is_kept() -> None:
    known = fresh()
    for number in range(40):
        run(known, {COMPUTE: 1.3}, workload=LONG if number % 2 else SHORT, more=1.05)
    other = fresh()
    other.restore(json.loads(json.dumps(known.to_json())), where="here")
    assert other.to_json() == known.to_json()
    assert extra_s(other, LONG) == extra_s(known, LONG)
    assert other.spread(KIND, 0.98) == known.spread(KIND, 0.98)


@pytest.mark.parametrize(
    "change",
    [
        {"corrections": 99},
        {"lanes": {STORAGE: 1e9, DECODE: 1.0, COMPUTE: 1.0}},
        {"lanes": {STORAGE: 1.0}},
        {"lanes": {STORAGE: 0.0, DECODE: 1.0, COMPUTE: 1.0}},
        {"kinds": {KIND: -1e6}},
        {"common": 1e6},
        {"workloads": [{"threads": KIND, "batch": 1, "tokens": 8, "extra_s": 1e6, "lanes": {}}]},
        {"deviation": {KIND: -1.0}},
        {"calibration": {"0.98": 0.0}},
        {"calibration": 1.0},
        {"first_s": {"engine": -1.0, "workload": 0.0}},
        {"first_s": {}},
    ],
    ids=str,
)
def test_what_no_machine_has_is_refused_and_changes_nothing(change: dict[str, object]) -> None:
    known = fresh()
    run(known, {COMPUTE: 1.2})
    before = known.to_json()
    with pytest.raises(ProfileError, match="somewhere"):
        known.restore({**before, **change}, where="somewhere")
    assert known.to_json() == before
