"""What engines keep of their runs: users' runs, in a file of the pack, without their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sti
from sti.calibration.cache import Cache
from sti.calibration.history_file import HistoryFile, history_files
from sti.engine import history_log
from sti.planning.history import History, plan_name
from tests.support.packs import PROFILE, TEXTS, tiny_pack

PACK = tiny_pack("classification")


@pytest.fixture(autouse=True)
def clean_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test measures the device, in a tenth of a second."""
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "clean"))


def opened(**options: Any) -> sti.Engine:
    return sti.Engine.open(PACK, threads=1, **{"fidelity": 4, **options})


def kept() -> History:
    with opened(history=False) as engine:
        return HistoryFile(engine.pack_id).read()


def test_runs_are_kept_when_the_engine_closes() -> None:
    with opened(latency="10s") as engine:
        results = [engine.run([text]) for text in TEXTS]
        assert kept() == History()
    found = kept()
    (day,) = found.days
    assert (day.runs, day.inside, day.late) == (len(TEXTS), len(TEXTS), 0)
    assert (day.target.latency_s, day.target.preload_bytes) == (10.0, 0)
    last = results[-1]
    assert found.last is not None
    assert found.last.total_s == last.timing.total_s
    assert found.last.plan == plan_name(last.plan)
    assert {lane: len(spans) for lane, spans in found.last.lanes.items()} == {
        lane: len(spans) for lane, spans in last.trace.lanes.items()
    }


def test_targets_are_kept_apart_and_runs_add_up() -> None:
    with opened() as engine:
        engine.run(TEXTS)
        engine.set_target(latency="10s", fidelity=4)
        engine.run(TEXTS[:1])
    with opened(latency="10s") as engine:
        engine.run(TEXTS[:1])
    found = {day.target.latency_s: day for day in kept().days}
    assert {latency_s: day.runs for latency_s, day in found.items()} == {None: 1, 10.0: 2}
    assert (found[None].inside, found[None].late) == (0, 0)


def test_no_text_is_kept() -> None:
    secret = "zanzibar"
    with opened() as engine:
        engine.run([f"the {secret} runs"])
    (path,) = history_files(Cache())
    assert secret not in path.read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    "options",
    [{"history": False}, {"adapt": False}, {"profile": PROFILE, "fidelity": None}],
    ids=str,
)
def test_some_runs_are_not_kept(options: dict[str, Any]) -> None:
    with opened(**options) as engine:
        engine.run(TEXTS)
    assert history_files(Cache()) == []


def test_the_user_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STI_HISTORY", "off")
    with opened() as engine:
        engine.run(TEXTS)
    assert history_files(Cache()) == []


def test_sequential_runs_say_nothing_of_targets() -> None:
    with opened() as engine:
        engine.run(TEXTS, mode="sequential")
    assert kept() == History()


def test_an_engine_that_stays_open_writes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_log, "EVERY_S", 0.0)
    with opened() as engine:
        for _ in range(5):
            engine.run(TEXTS)
    assert sum(day.runs for day in kept().days) == 5


def test_what_cannot_be_kept_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(history_log, "EVERY_S", 0.0)
    told = list[str]()
    with opened(notify=told.append) as engine:
        for _ in range(4):
            engine.run(TEXTS)
    assert len([line for line in told if "how runs went" in line]) == 1


def test_closing_twice_keeps_runs_once() -> None:
    engine = opened()
    engine.run(TEXTS)
    engine.close()
    engine.close()
    assert sum(day.runs for day in kept().days) == 1
