"""``sti calibrate`` and ``sti doctor`` tell what was measured while the machine was busy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Cli

BUSY = "sti.calibration.disturbance.Watch.share"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sti"


def test_doctor_shows_state_age_and_machine_of_each_part(
    cli: Cli, tiny_pack: Path, cache: Path
) -> None:
    assert "nothing yet" in cli("doctor").out
    cli("calibrate", tiny_pack, "--threads", 1)
    for path in cache.glob("profile-*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        document["measured_at"] -= 3 * 86_400
        path.write_text(json.dumps(document), encoding="utf-8")
    for path in cache.glob("storage-*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**document, "measured_at": None}), encoding="utf-8")
    found = cli("doctor", tiny_pack, "--json").json
    compute, storage = found["measured"]
    assert [compute[key] for key in ("part", "threads", "state")] == ["compute", 1, "measured"]
    assert [storage[key] for key in ("part", "threads", "age_s")] == ["storage", None, None]
    assert compute["age_s"] >= 3 * 86_400 and compute["device"].startswith(found["device"][:4])
    out = cli("doctor", tiny_pack).out
    rows = [line.split()[:8] for line in out.splitlines() if ".json" in line]
    assert rows[0] == [compute["file"], "compute", "1", "measured", "0", "%", "3", "d"]
    assert rows[1][:7] == [storage["file"], "storage", "-", "measured", "0", "%", "unknown"]
    assert not any("provisional" in item for item in found["advice"])


def test_doctor_says_how_to_measure_again_what_was_disturbed(
    cli: Cli, tiny_pack: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BUSY, lambda *_, **__: 0.43)
    answer = cli("calibrate", tiny_pack, "--threads", 1)
    assert "1 compute thread would be used" in answer.out and "43 %" in answer.out
    assert "measured while this machine was busy (waited 43 % of the time)" in answer.err
    assert list(cache.glob("threads-*.json")) == [], "which number is best is not known"
    assert "provisional" in cli("calibrate").out
    found = cli("doctor", "--json").json
    assert [part["state"] for part in found["measured"]] == ["provisional"] * 2
    assert any("2 measurements provisional" in item for item in found["advice"])
    assert any("run `sti calibrate PACK`" in item for item in found["advice"])
    out = cli("doctor", tiny_pack).out
    assert f"run `sti calibrate {tiny_pack}`" in out and "43 %" in out
    assert "nothing is missing" not in out


@pytest.mark.usefixtures("cache")
def test_calibrate_prints_spreads_by_lane_and_whether_it_was_disturbed(
    cli: Cli, tiny_pack: Path
) -> None:
    out = cli("calibrate", tiny_pack, "--threads", 1).out
    for row in ("waited for a core", "spread of decode, shared", "jitter, sequential"):
        assert row in out
    found = cli("calibrate", tiny_pack, "--threads", 1, "--json").json
    assert found["provisional"] == {"1": False}
    profile = found["profiles"]["1"]
    assert profile["disturbed"] == 0.0
    assert set(profile["runs"]["shared"]["spread"]) == {"storage", "decode", "compute"}
    listed = cli("calibrate", "--json").json["profiles"]
    assert [item["threads"] for item in listed] == [1] and listed[0]["measured_at"] > 0
