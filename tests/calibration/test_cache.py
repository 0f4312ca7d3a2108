"""What is remembered between runs: found again, kept apart, and no trouble when it cannot be."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from sti.calibration.cache import Cache, cache_directory
from sti.calibration.kept import StoragePart
from sti.device.lane_profiles import ComputeProfile, DecodeProfile, RunProfile, StorageProfile
from sti.device.lanes import COMPUTE, DECODE, PIPELINED, STORAGE
from sti.device.profile import DeviceProfile
from sti.errors import StiWarning
from sti.model.workload import Workload
from sti.planning.plan import Plan, PlanStep, Target

KEY = {"machine": "test", "threads": 2}
PROFILE = DeviceProfile(
    device="a test",
    threads=2,
    lanes={
        STORAGE: StorageProfile(direct=True, request_s=1e-4, bytes_per_s=1e9, row_s=1e-6),
        DECODE: DecodeProfile(shard_s=1e-5, weight_s={2: 1e-10, 4: 4e-10}),
        COMPUTE: ComputeProfile({"ffn": (1e-4, 0.0, 1e-6, 1e-7, 0.0)}),
    },
    runs={"shared": RunProfile({STORAGE: 1.0, DECODE: 1.2, COMPUTE: 1.1}, 1e-5, 1e-4, 1.05)},
    tokenize_s=1e-6,
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "made" / "when needed")


def test_a_stored_profile_is_loaded_again(cache: Cache) -> None:
    assert cache.load_profile(KEY) is None
    path = cache.store_profile(KEY, PROFILE)
    kept = cache.load_profile(KEY)
    assert kept is not None and (kept.path, kept.value) == (path, PROFILE)
    assert 0.0 <= kept.age_s < 60.0
    assert list(cache.profiles()) == [kept]


def test_a_stored_storage_lane_is_loaded_again(cache: Cache) -> None:
    part = StoragePart(PROFILE.storage, device="a test", disturbed=0.2)
    assert cache.load_storage(KEY) is None
    cache.store_storage(KEY, part)
    kept = cache.load_storage(KEY)
    assert kept is not None and kept.value == part and kept.value.provisional
    assert list(cache.storages()) == [kept] and list(cache.profiles()) == []


@pytest.mark.parametrize("path", ["lane.request_s", "lane.bytes_per_s", "disturbed"])
def test_a_storage_lane_with_an_absurd_value_is_told_and_left_out(cache: Cache, path: str) -> None:
    part = StoragePart(PROFILE.storage, device="a test", disturbed=0.0)
    file = cache.store_storage(KEY, part)
    assert file is not None
    document = json.loads(file.read_text(encoding="utf-8"))
    *way, last = path.split(".")
    place = document["value"]
    for key in way:
        place = place[key]
    place[last] = 1e300
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.warns(StiWarning, match=f"ignored: .*'{last}'"):
        assert cache.load_storage(KEY) is None


@pytest.mark.parametrize(
    ("measured_at", "age_s"),
    [(1_000.0, 500.0), (1_501.0, inf), (None, inf), ("noon", inf), (0, inf), (True, inf)],
)
def test_the_age_of_what_is_kept_is_unknown_where_the_file_makes_no_sense(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, measured_at: object, age_s: float
) -> None:
    file = cache.store_profile(KEY, PROFILE)
    assert file is not None
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**document, "measured_at": measured_at}), encoding="utf-8")
    monkeypatch.setattr("time.time", lambda: 1_500.0)
    kept = cache.load_profile(KEY)
    assert kept is not None and kept.age_s == age_s


def test_profiles_are_kept_apart_by_key(cache: Cache) -> None:
    cache.store_profile(KEY, PROFILE)
    assert cache.load_profile({**KEY, "threads": 3}) is None


def test_a_thread_count_is_remembered_apart_from_profiles(cache: Cache) -> None:
    assert cache.load_threads(KEY) is None
    cache.store_threads(KEY, 3)
    assert cache.load_threads(KEY) == 3
    assert list(cache.profiles()) == []


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.5, {}])
def test_a_thread_count_that_makes_no_sense_is_ignored_with_a_warning(
    cache: Cache, value: object
) -> None:
    path = cache.store_threads(KEY, 1)
    assert path is not None
    path.write_text(json.dumps({"value": value}), encoding="utf-8")
    with pytest.warns(StiWarning, match="is not a number of threads"):
        assert cache.load_threads(KEY) is None


def test_profiles_of_older_versions_are_left_out_without_a_word(cache: Cache) -> None:
    path = cache.store_profile(KEY, PROFILE)
    assert path is not None
    path.write_text(json.dumps({"value": {"profile": 1}}), encoding="utf-8")
    assert list(cache.profiles()) == []


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff", b'{"value": 3}', b'{"value": {"profile": 99}}', b"[" * 100_000],
)
def test_a_damaged_profile_is_told_and_left_out(cache: Cache, damage: bytes) -> None:
    path = cache.store_profile(KEY, PROFILE)
    assert path is not None
    path.write_bytes(damage)
    with pytest.warns(StiWarning, match="cannot be used, and is ignored"):
        assert cache.load_profile(KEY) is None
    with pytest.warns(StiWarning, match="cannot be used"):
        assert list(cache.profiles()) == []


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache = Cache(tmp_path / "file" / "sti")
    with pytest.warns(StiWarning, match="cannot be kept in .*XDG_CACHE_HOME"):
        assert cache.store_profile(KEY, PROFILE) is None


def test_nothing_half_written_is_left_when_the_disk_is_full(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(StiWarning, match="No space left"):
        assert cache.store_profile(KEY, PROFILE) is None
    assert list(cache.directory.iterdir()) == []


def test_the_users_cache_directory_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "sti"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "sti"


def plan(pack: str = "p" * 16) -> Plan:
    step = PlanStep(0, "ffn", 0, (3, 1), 100)
    return Plan(pack, Workload(1, 16), Target(0.1, 100), 1, 3, PIPELINED, 1, (step,), None)


def test_a_stored_plan_is_loaded_again(cache: Cache) -> None:
    assert cache.load_plan(KEY) is None
    cache.store_plan(KEY, plan())
    assert cache.load_plan(KEY) == plan()
    assert cache.load_plan({**KEY, "threads": 3}) is None
    assert list(cache.profiles()) == []


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"value": {"plan": 99}}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_plan_is_made_again(cache: Cache, damage: bytes) -> None:
    cache.store_plan(KEY, plan())
    cache.path("plan", KEY).write_bytes(damage)
    assert cache.load_plan(KEY) is None
    cache.store_plan(KEY, plan())
    assert cache.load_plan(KEY) == plan()


def test_old_plans_go(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sti.calibration.cache.MOST_PLANS", 3)
    cache.store_profile(KEY, PROFILE)
    for number in range(5):
        cache.store_plan({"number": number}, plan())
        os.utime(cache.path("plan", {"number": number}), (number, number))
    kept = [number for number in range(5) if cache.load_plan({"number": number})]
    assert kept == [2, 3, 4]
    assert [found.value for found in cache.profiles()] == [PROFILE]


def test_a_plan_that_cannot_be_kept_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache = Cache(tmp_path / "file" / "sti")
    cache.store_plan(KEY, plan())
    assert cache.load_plan(KEY) is None


def test_staircases_are_bytes_that_are_kept_apart_by_key(cache: Cache) -> None:
    assert cache.load_staircases(KEY) is None
    cache.store_staircases(KEY, b"some")
    cache.store_staircases({**KEY, "threads": 3}, b"others")
    assert cache.load_staircases(KEY) == b"some"
    cache.store_staircases(KEY, b"newer")
    assert cache.load_staircases(KEY) == b"newer"
    assert list(cache.profiles()) == []


def test_old_staircases_go(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sti.calibration.cache.MOST_STAIRCASES", 2)
    for number in range(4):
        cache.store_staircases({"number": number}, b"some")
        path = cache.path("staircases", {"number": number}).with_suffix(".bin")
        os.utime(path, (number, number))
    found = [cache.load_staircases({"number": number}) for number in range(4)]
    assert found == [None, None, b"some", b"some"]


def test_staircases_that_cannot_be_kept_are_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "below")
    cache.store_staircases(KEY, b"some")
    assert cache.load_staircases(KEY) is None


def test_only_the_user_may_read_what_is_kept(cache: Cache) -> None:
    cache.directory.mkdir(parents=True)
    cache.directory.chmod(0o777)
    path = cache.store_profile(KEY, PROFILE)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700


def shared(path: Path) -> None:
    path.chmod(0o666)


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def huge(path: Path) -> None:
    with path.open("ab") as stream:
        stream.truncate(1 << 40)


def nested(path: Path) -> None:
    path.write_text('{"value":' + "[" * 100 + "]" * 100 + "}", encoding="utf-8")


@pytest.mark.parametrize("spoil", [shared, linked, pipe, huge, nested])
def test_a_file_that_may_not_be_the_users_is_ignored(
    cache: Cache, spoil: Callable[[Path], None]
) -> None:
    path = cache.store_profile(KEY, PROFILE)
    cache.store_plan(KEY, plan())
    cache.store_corrections(KEY, {"a": 1})
    cache.store_staircases(KEY, b"some")
    assert path is not None
    for kept in list(cache.directory.iterdir()):
        if spoil is not nested or kept.suffix == ".json":
            spoil(kept)
    with pytest.warns(StiWarning, match="cannot be used, and is ignored"):
        assert cache.load_profile(KEY) is None
    assert (cache.load_plan(KEY) is None and cache.load_corrections(KEY) is None) or spoil is nested
    assert spoil is nested or cache.load_staircases(KEY) is None


def test_a_directory_that_others_may_write_is_ignored_until_the_next_write(cache: Cache) -> None:
    cache.store_profile(KEY, PROFILE)
    cache.store_staircases(KEY, b"raw")
    cache.directory.chmod(0o770)
    with pytest.warns(StiWarning) as told:
        found = [cache.load_profile(KEY), cache.load_staircases(KEY), *cache.profiles()]
    assert found == [None, None]
    (one,) = told
    assert str(cache.directory) in str(one.message) and "others than the user" in str(one.message)
    cache.store_threads(KEY, 2)
    assert cache.load_profile(KEY) is not None


def test_a_directory_of_someone_else_is_ignored(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store_profile(KEY, PROFILE)
    owner = cache.directory.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.warns(StiWarning, match="belongs to someone else"):
        assert cache.load_profile(KEY) is None
