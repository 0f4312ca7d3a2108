"""Histories on storage: nothing of several writers is lost, and nothing that is wrong stops one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sti.calibration import history_file
from sti.calibration.cache import Cache, keeps_history
from sti.calibration.history_file import HistoryFile, day_at, history_files
from sti.errors import ProfileError
from sti.planning.history import EndedRun, History, history_of
from sti.planning.plan import Target
from sti.storage.json_input import JsonLimits

WRITER = """
import sys, time
from pathlib import Path
from sti.calibration.cache import Cache
from sti.calibration.history_file import HistoryFile, day_at
from sti.planning.history import EndedRun, history_of
from sti.planning.plan import Target
file = HistoryFile("a pack", Cache(Path(sys.argv[1])))
for _ in range(25):
    assert file.add(history_of([EndedRun(day_at(time.time()), Target(0.1), 0.05, True)])) is None
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def runs(number: int = 1, *, days_ago: float = 0.0) -> History:
    day = day_at(time.time() - days_ago * 86_400)
    return history_of([EndedRun(day, Target(0.1), 0.05, True)] * number)


def test_what_was_added_is_read(cache: Cache) -> None:
    file = HistoryFile("a pack", cache)
    assert file.read() == History()
    assert file.add(runs(2)) is None
    assert file.add(runs(3)) is None
    assert HistoryFile("a pack", cache).read() == runs(5)
    assert HistoryFile("another pack", cache).read() == History()


@pytest.mark.skipif(os.name == "nt", reason="no such rights")
def test_only_the_user_may_read_it(cache: Cache) -> None:
    file = HistoryFile("a pack", cache)
    file.add(runs())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_no_run_is_lost_where_processes_and_threads_write_at_once(cache: Cache) -> None:
    pytest.importorskip("fcntl")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(cache.directory)]
    others = [subprocess.Popen(command, env=environment) for _ in range(3)]
    file = HistoryFile("a pack", cache)
    threads = [threading.Thread(target=lambda: file.add(runs())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert sum(day.runs for day in file.read().days) == 3 * 25 + 10


def test_a_writer_that_hangs_stops_nobody(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(history_file, "LONGEST_WAIT_S", 0.02)
    cache.directory.mkdir()
    with (cache.directory / "history.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert HistoryFile("a pack", cache).add(runs()) is None
    assert HistoryFile("a pack", cache).read() == runs()


def test_old_days_are_forgotten(cache: Cache) -> None:
    file = HistoryFile("a pack", cache)
    file.add(runs(days_ago=history_file.MOST_DAYS + 1))
    file.add(runs(days_ago=1))
    file.add(runs(days_ago=-30))
    assert file.read() == runs(days_ago=1)


def test_packs_that_ran_longest_ago_are_forgotten(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "MOST_PACKS", 2)
    for number in range(4):
        file = HistoryFile(f"pack {number}", cache)
        file.add(runs())
        os.utime(file.path, (number, number))
    assert history_files(cache) == [HistoryFile(f"pack {place}", cache).path for place in (2, 3)]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b'{"value": {"history": 9}}', b"[" * 10_000, b"\xff\xfe"],
    ids=repr,
)
def test_a_damaged_file_is_told_and_begun_anew(cache: Cache, damage: bytes) -> None:
    file = HistoryFile("a pack", cache)
    file.add(runs(7))
    file.path.write_bytes(damage)
    with pytest.raises(ProfileError, match=file.path.name):
        file.read()
    told = file.add(runs(2))
    assert told is not None and file.path.name in told and "begins anew" in told
    assert file.read() == runs(2)
    assert file.add(runs(1)) is None


def test_a_file_that_is_far_too_large_is_not_read(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HistoryFile("a pack", cache)
    file.add(runs())
    monkeypatch.setattr(history_file, "LIMITS", JsonLimits(10, 10, 10))
    with pytest.raises(ProfileError, match="more than the 10 bytes"):
        file.read()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = HistoryFile("a pack", Cache(tmp_path / "file" / "sti")).add(runs())
    assert told is not None and "cannot be kept" in told and "STI_HISTORY=off" in told


def test_the_file_names_the_pack_and_the_machine_and_holds_no_more_than_it_says(
    cache: Cache,
) -> None:
    file = HistoryFile("a pack", cache)
    file.add(runs())
    document = json.loads(file.path.read_text())
    assert set(document) == {"key", "measured_at", "value"}
    assert document["key"]["pack"] == "a pack"
    assert set(document["value"]) == {"history", "days", "last"}


@pytest.mark.parametrize(("value", "kept"), [("off", False), (" OFF ", False), ("on", True)])
def test_the_environment_turns_it_off(
    monkeypatch: pytest.MonkeyPatch, value: str, kept: bool
) -> None:
    monkeypatch.setenv("STI_HISTORY", value)
    assert keeps_history() == kept
