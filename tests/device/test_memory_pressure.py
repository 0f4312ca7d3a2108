"""When memory is short: the machine's, and that of cgroups of both versions, nested and broken."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sti.device import host, memory_pressure
from sti.device.host import Memory

CGROUP = Path("sys/fs/cgroup")
MB = 1_000_000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system without files, and without psutil."""
    monkeypatch.setattr(host, "ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, "psutil", None)
    return tmp_path


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def machine(root: Path, total: int, available: int) -> None:
    lines = f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n"
    put(root / "proc" / "meminfo", lines)


def own_group(root: Path, lines: str) -> None:
    put(root / "proc" / "self" / "cgroup", lines)


def group_v2(place: Path, limit: str, current: int, *, cached: int = 0, high: str = "max") -> None:
    put(place / "memory.max", f"{limit}\n")
    put(place / "memory.high", f"{high}\n")
    put(place / "memory.current", f"{current}\n")
    put(place / "memory.stat", f"anon 1\nfile 2\ninactive_file {cached}\n")


def group_v1(place: Path, limit: int, used: int, *, cached: int = 0) -> None:
    put(place / "memory.limit_in_bytes", f"{limit}\n")
    put(place / "memory.usage_in_bytes", f"{used}\n")
    put(place / "memory.stat", f"inactive_file 1\ntotal_inactive_file {cached}\n")


def test_the_machine_is_short_below_a_sixteenth_of_its_memory(root: Path) -> None:
    machine(root, 1024 * MB, 65 * MB)
    assert not memory_pressure.is_short(memory_pressure.look())
    machine(root, 1024 * MB, 63 * MB)
    assert memory_pressure.is_short(memory_pressure.look())


def test_a_large_machine_is_short_below_a_fixed_size() -> None:
    assert memory_pressure.short_below(64_000 * MB) == memory_pressure.MOST_SHORT_BYTES
    assert not memory_pressure.is_short([Memory(64_000 * MB, 257 * MB)])
    assert memory_pressure.is_short([Memory(64_000 * MB, 255 * MB)])


def test_a_small_group_is_not_short_at_all_times() -> None:
    assert not memory_pressure.is_short([Memory(64 * MB, 5 * MB)])
    assert memory_pressure.is_short([Memory(64 * MB, 3 * MB)])


def test_memory_is_enough_again_only_with_twice_as_much_beside_what_is_taken_again() -> None:
    found = [Memory(1600 * MB, 150 * MB)]
    assert not memory_pressure.is_short(found)
    assert not memory_pressure.has_recovered(found)
    found = [Memory(1600 * MB, 200 * MB)]
    assert memory_pressure.has_recovered(found)
    assert memory_pressure.has_recovered(found, wanted_bytes=0)
    assert not memory_pressure.has_recovered(found, wanted_bytes=1 * MB)
    assert memory_pressure.has_recovered([Memory(1600 * MB, 201 * MB)], wanted_bytes=1 * MB)


def test_where_the_system_does_not_say_memory_is_never_short(root: Path) -> None:
    assert memory_pressure.look() == ()
    assert not memory_pressure.is_short(())
    assert memory_pressure.has_recovered(())
    assert memory_pressure.nearest(()) is None
    assert not memory_pressure.is_short([Memory(None, None), Memory(0, 0)])


def test_a_group_of_version_2_is_the_processes_own(root: Path) -> None:
    machine(root, 8000 * MB, 6000 * MB)
    own_group(root, "0::/app.slice/one\n")
    group_v2(root / CGROUP / "app.slice" / "one", f"{100 * MB}", 97 * MB, cached=1 * MB)
    assert Memory(100 * MB, 4 * MB) in memory_pressure.look()
    assert host.memory() == Memory(100 * MB, 4 * MB)
    assert memory_pressure.is_short(memory_pressure.look())


def test_the_nearest_limit_of_nested_groups_decides(root: Path) -> None:
    machine(root, 8000 * MB, 6000 * MB)
    own_group(root, "0::/outer/inner\n")
    group_v2(root / CGROUP / "outer", f"{400 * MB}", 390 * MB)
    group_v2(root / CGROUP / "outer" / "inner", f"{100 * MB}", 50 * MB)
    found = memory_pressure.look()
    assert memory_pressure.is_short(found)
    assert memory_pressure.nearest(found) == Memory(400 * MB, 10 * MB)
    assert host.memory() == Memory(100 * MB, 10 * MB)


def test_groups_of_others_do_not_count(root: Path) -> None:
    machine(root, 8000 * MB, 6000 * MB)
    own_group(root, "0::/mine\n")
    group_v2(root / CGROUP / "mine", "max", 50 * MB)
    group_v2(root / CGROUP / "other", f"{100 * MB}", 100 * MB)
    assert len(memory_pressure.look()) == 1


def test_a_group_is_slowed_down_above_what_is_high(root: Path) -> None:
    own_group(root, "0::/\n")
    group_v2(root / CGROUP, "max", 99 * MB, high=f"{100 * MB}")
    assert memory_pressure.look() == (Memory(100 * MB, 1 * MB),)


def test_a_group_of_version_1_is_found_by_its_controller(root: Path) -> None:
    machine(root, 8000 * MB, 6000 * MB)
    own_group(root, "9:cpu,cpuacct:/a\n4:memory:/job/step\n0::/\n")
    group_v1(root / CGROUP / "memory" / "job" / "step", 64 * MB, 63 * MB, cached=0)
    group_v1(root / CGROUP / "memory", 9223372036854771712, 900 * MB)
    assert memory_pressure.look()[1:] == (Memory(64 * MB, 1 * MB),)
    group_v1(root / CGROUP / "memory" / "job" / "step", 64 * MB, 63 * MB, cached=30 * MB)
    assert memory_pressure.look()[1:] == (Memory(64 * MB, 31 * MB),)


@pytest.mark.parametrize("own", ["4:memory:/docker/abc\n", "4:memory:/../abc\n", "", "nothing\n"])
def test_a_container_that_sees_only_its_own_group_reads_that(root: Path, own: str) -> None:
    own_group(root, own)
    group_v1(root / CGROUP / "memory", 64 * MB, 63 * MB)
    assert memory_pressure.look() == (Memory(64 * MB, 1 * MB),)


def test_a_group_outside_the_mount_is_not_looked_for(root: Path) -> None:
    own_group(root, "0::/../../elsewhere\n")
    group_v2(root / "elsewhere", f"{100 * MB}", 100 * MB)
    group_v2(root / "sys" / "elsewhere", f"{100 * MB}", 100 * MB)
    assert memory_pressure.look() == ()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"-5\n", b"12 34\n", b"9" * 5000, b"max"])
def test_a_limit_that_is_no_number_is_none(root: Path, text: bytes) -> None:
    own_group(root, "0::/\n")
    group_v2(root / CGROUP, "max", 1)
    put(root / CGROUP / "memory.max", text)
    assert memory_pressure.look() == ()


@pytest.mark.parametrize("text", [b"", b"garbage", b"\xff", b"max"])
def test_a_group_whose_usage_cannot_be_read_is_not_short(root: Path, text: bytes) -> None:
    own_group(root, "0::/\n")
    group_v2(root / CGROUP, f"{100 * MB}", 1)
    put(root / CGROUP / "memory.current", text)
    assert not memory_pressure.is_short(memory_pressure.look())


def test_more_cache_than_use_is_no_more_than_the_limit(root: Path) -> None:
    own_group(root, "0::/\n")
    group_v2(root / CGROUP, f"{100 * MB}", 10 * MB, cached=50 * MB)
    assert memory_pressure.look() == (Memory(100 * MB, 100 * MB),)


@pytest.mark.parametrize("text", [b"", b"MemTotal: x kB\n", b"\x00\xff", b"MemTotal: 5 kB\n"])
def test_a_machine_whose_memory_is_not_told_is_not_short(root: Path, text: bytes) -> None:
    put(root / "proc" / "meminfo", text)
    assert memory_pressure.look() == ()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_files_that_are_denied_are_as_if_missing(root: Path) -> None:
    machine(root, 1000 * MB, 1 * MB)
    own_group(root, "0::/\n")
    group_v2(root / CGROUP, f"{100 * MB}", 99 * MB)
    for path in (root / "proc" / "meminfo", root / CGROUP / "memory.max"):
        path.chmod(0)
    assert memory_pressure.look() == ()


def test_directories_in_place_of_files_are_as_if_missing(root: Path) -> None:
    (root / "proc" / "meminfo").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").mkdir(parents=True)
    (root / CGROUP / "memory.max").mkdir(parents=True)
    assert memory_pressure.look() == ()
