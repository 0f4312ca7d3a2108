"""Collectives between devices are timed, and their answers checked. Nothing here is timed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import devices_exchange
from benchmarks import devices_exchange_processes as processes
from benchmarks.devices_exchange import Figure, Setting, ideal_s, table
from benchmarks.devices_exchange_child import expected, whole
from benchmarks.devices_exchange_engines import CURVE, ENGINES, NEEDS, OPERATIONS
from benchmarks.devices_exchange_processes import missing
from benchmarks.network.namespaces import Network, NoNetwork

SETTING = Setting(mbit=80.0, delay_s=0.001, engines=(), rounds=1)


def test_ideal_times_are_bytes_over_rate_and_delay() -> None:
    assert ideal_s("all-gather", 2, 20_000, SETTING) == pytest.approx(0.002)
    assert ideal_s("reduce-scatter", 4, 20_000, SETTING) == pytest.approx(0.0025)
    assert ideal_s("all-reduce", 4, 20_000, SETTING) == pytest.approx(0.005)
    assert ideal_s("all-reduce", 2, 20_000, SETTING) == pytest.approx(0.003)  # in one round


def test_expected_answers_fit_together() -> None:
    given = [whole(rank, 4096) for rank in range(4)]
    total = expected("all-reduce", 0, 4, 4096)
    np.testing.assert_array_equal(total, sum(given[1:], given[0]))
    parts = [expected("reduce-scatter", rank, 4, 4096) for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), total)
    gathered = expected("all-gather", 3, 4, 4096)
    np.testing.assert_array_equal(gathered[256:512], given[1][:256])


def test_tables_compare_engines_operation_by_operation() -> None:
    figures = [
        Figure(2, engine, operation, 4096, (0.001, 0.003, 0.002), 0.001)
        for engine in ("one", "other")
        for operation in OPERATIONS
    ]
    rows = table(2, figures).rows
    assert [row[0] for row in rows] == [name for name in OPERATIONS for _ in range(2)]
    assert [row[2] for row in rows] == ["one", "other"] * 3
    assert rows[0][3:] == pytest.approx((2.0, 2.9, 1.0, 2.0))


def test_engines_without_their_library_are_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "NEEDS", dict.fromkeys(NEEDS, "no_such_library"))
    report = devices_exchange.measure((), SETTING._replace(engines=tuple(ENGINES)))
    assert len(report.notes) == len(ENGINES)
    assert "no_such_library is missing" in report.notes[0]


def test_engines_take_turns_on_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with Network(devices=1):
            pass
    except NoNetwork as error:
        pytest.skip(str(error))
    if why := missing(CURVE):
        pytest.skip(why)
    argv = ["--devices", "2", "--rounds", "1", "--rows", f"{CURVE},zeromq-plain", "--json"]
    assert devices_exchange.main(argv) == 0
    report = json.loads(capsys.readouterr().out)
    limits, measured = report["tables"]
    assert [row["limit on"] for row in limits["rows"]] == [
        f"reduce-scatter / ideal, {CURVE}, 2 devices"
    ]
    assert len(measured["rows"]) == 2 * 2 * len(OPERATIONS)
    assert all(row["median / ideal"] >= 1 for row in measured["rows"])
