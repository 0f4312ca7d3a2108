"""Measuring in a process of its own, which takes none of a budget of memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sti
from sti.calibration.measuring_apart import measure_apart
from sti.pack.pack_reader import PackReader
from tests.support.processes import interpreter


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was measured yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sti"


def test_an_engine_with_a_budget_measures_in_another_process_once(
    cache: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sti.calibration.calibrate.measure_parts", None)  # not in this process
    told: list[str] = []
    with sti.Engine.open(tiny_pack, threads=1, memory="60MB", notify=told.append) as engine:
        first = engine.profile
        assert engine.run(["the dog"]).parts
    assert told[0] == "measuring this device (once, about 2 s)"
    if any("provisional" in line for line in told):
        pytest.skip("other processes kept this one waiting: it is measured again then")
    assert {path.name.partition("-")[0] for path in cache.glob("*.json")} >= {"profile", "storage"}
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with sti.Engine.open(tiny_pack, threads=1, memory="60MB") as engine:
        assert engine.profile == first


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (None, "no process to do it can be started: No such file"),
        ("echo the machine is on fire >&2; exit 3", "failed: the machine is on fire"),
    ],
)
def test_where_no_process_can_measure_it_says_how_to(
    cache: Path,
    tiny_pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str | None,
    said: str,
) -> None:
    python = "/nowhere/python" if words is None else interpreter(tmp_path, words)
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(sti.RunError) as caught:
        sti.Engine.open(tiny_pack, threads=1, memory="60MB", notify=lambda _: None)
    assert said in str(caught.value)
    assert f"measure first, with `sti calibrate {tiny_pack}`" in str(caught.value)
    assert not list(cache.glob("profile-*.json"))


@pytest.mark.parametrize("words", ["exec cat >/dev/null", "read job; echo '{}'", "echo []"])
def test_a_process_that_gives_no_profile_is_told(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, words))
    with pytest.raises(sti.RunError, match=r"gave no (profile|answer): .*sti calibrate"):
        measure_apart(tiny_pack, 1, str)


def test_what_the_other_process_finds_of_a_pack_is_raised_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "no pack"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(sti.StiError) as here:
        PackReader.open(path)
    with pytest.raises(sti.StiError) as there:
        measure_apart(path, 1, str)
    assert type(there.value) is type(here.value)
    assert str(there.value) == str(here.value)


@pytest.mark.usefixtures("machine")
def test_notices_of_the_other_process_are_told_even_if_it_fails(
    cache: Path, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = """echo '{"notice": "it is loud here"}'; exit 3"""
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, words))
    told: list[str] = []
    with pytest.raises(sti.RunError):
        sti.Engine.open(tiny_pack, threads=1, memory="60MB", notify=told.append)
    assert "it is loud here" in told


def test_without_an_interpreter_it_says_how_to_measure(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(sti.RunError, match="sti calibrate"):
        measure_apart(tiny_pack, 1, str)
