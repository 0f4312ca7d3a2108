"""Limits of cgroups: of both versions, of all groups above, wherever they are mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.device import host
from sti.device.control_groups import groups
from sti.device.cpu_groups import cpu_quota
from sti.device.identity import machine_key
from sti.device.memory_groups import group_limits

DOCKER_V1 = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
40 31 0:35 /docker/ab12 /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory
41 31 0:29 /docker/ab12 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
42 31 0:30 / /sys/fs/cgroup/systemd ro - cgroup cgroup rw,name=systemd
"""
HYBRID = """\
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
ELSEWHERE = "35 31 0:32 / /mnt/my\\040groups rw - cgroup2 none rw,nsdelegate\n"
MB = 1_000_000


def put(path: Path, text: str | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def tell(root: Path, own: str, mounts: str | None = None) -> None:
    put(root / "proc/self/cgroup", own)
    if mounts is not None:
        put(root / "proc/self/mountinfo", mounts)


def test_a_container_of_version_1_is_limited_by_the_group_that_is_mounted(tmp_path: Path) -> None:
    tell(tmp_path, "4:memory:/docker/ab12/job\n3:cpu,cpuacct:/docker/ab12/job\n", DOCKER_V1)
    at = tmp_path / "sys/fs/cgroup"
    put(at / "memory/memory.limit_in_bytes", 100 * MB)
    put(at / "memory/memory.usage_in_bytes", 40 * MB)
    put(at / "memory/job/memory.limit_in_bytes", 50 * MB)
    put(at / "memory/job/memory.usage_in_bytes", 30 * MB)
    put(at / "cpu,cpuacct/cpu.cfs_quota_us", 150_000)
    put(at / "cpu,cpuacct/cpu.cfs_period_us", 100_000)
    put(at / "cpu,cpuacct/job/cpu.cfs_quota_us", -1)
    put(at / "cpu,cpuacct/job/cpu.cfs_period_us", 100_000)
    assert list(group_limits(tmp_path)) == [(50 * MB, 20 * MB), (100 * MB, 60 * MB)]
    assert cpu_quota(tmp_path) == 1.5


def test_a_limit_on_memory_and_swap_together_is_one_on_memory(tmp_path: Path) -> None:
    at = tmp_path / "sys/fs/cgroup/memory"
    put(at / "memory.limit_in_bytes", (1 << 63) - 4096)
    put(at / "memory.memsw.limit_in_bytes", 80 * MB)
    put(at / "memory.usage_in_bytes", 30 * MB)
    assert list(group_limits(tmp_path)) == [(80 * MB, 50 * MB)]


def test_both_hierarchies_of_a_hybrid_system_count(tmp_path: Path) -> None:
    tell(tmp_path, "4:memory:/a\n0::/b/c\n", HYBRID)
    at = tmp_path / "sys/fs/cgroup"
    put(at / "memory/a/memory.limit_in_bytes", 90 * MB)
    put(at / "unified/b/memory.max", 80 * MB)
    assert sorted(limit for limit, _ in group_limits(tmp_path)) == [80 * MB, 90 * MB]


def test_groups_may_be_mounted_elsewhere(tmp_path: Path) -> None:
    tell(tmp_path, "0::/in:ner\n", ELSEWHERE)
    put(tmp_path / "mnt/my groups/in:ner/memory.max", 70 * MB)
    put(tmp_path / "mnt/my groups/cpu.max", "50000 100000")
    assert [limit for limit, _ in group_limits(tmp_path)] == [70 * MB]
    assert cpu_quota(tmp_path) == 0.5


def test_a_group_named_as_outside_a_namespace_is_the_one_that_is_mounted(tmp_path: Path) -> None:
    tell(tmp_path, "0::/../other\n", ELSEWHERE.replace("/ /mnt", "/.. /mnt"))
    put(tmp_path / "mnt/my groups/memory.max", 70 * MB)
    assert [limit for limit, _ in group_limits(tmp_path)] == [70 * MB]


@pytest.mark.parametrize("inner", ["max 100000", "200000 100000", "", "-5 0", "x y", "1 2 3"])
def test_the_least_quota_of_all_groups_counts(tmp_path: Path, inner: str) -> None:
    tell(tmp_path, "0::/outer/inner\n")
    put(tmp_path / "sys/fs/cgroup/outer/inner/cpu.max", inner)
    put(tmp_path / "sys/fs/cgroup/outer/cpu.max", "100000 100000")
    assert cpu_quota(tmp_path) == 1.0


@pytest.mark.parametrize(("quota", "threads"), [(25_000, 1), (100_000, 1), (150_000, 2)])
def test_a_quota_below_the_cores_bounds_the_threads_and_names_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(host, "ROOT", tmp_path)
    without = machine_key()
    put(tmp_path / "with/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota)
    put(tmp_path / "with/sys/fs/cgroup/cpu/cpu.cfs_period_us", 100_000)
    monkeypatch.setattr(host, "ROOT", tmp_path / "with")
    assert host.core_count() == threads
    assert host.core_quota() == quota / 100_000
    assert machine_key() != without


def test_a_quota_of_all_cores_or_more_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(host, "ROOT", tmp_path)
    put(tmp_path / "sys/fs/cgroup/cpu.max", "200000 100000")
    assert host.core_quota() is None
    assert host.core_count() == 2


_TEXTS = st.text("0123:/-. acgmoprsuwy,\n\\\0", max_size=60)


@settings(max_examples=40)
@given(own=_TEXTS, mounts=_TEXTS, limit=_TEXTS)
def test_files_that_hold_anything_never_raise(
    tmp_path_factory: pytest.TempPathFactory, own: str, mounts: str, limit: str
) -> None:
    root = tmp_path_factory.mktemp("system")
    tell(root, own, f"{mounts}\n1 2 3 {mounts} - cgroup2 {mounts}\n")
    for group in groups(root, "memory"):
        assert str(group.place).startswith(str(root))
    put(root / "sys/fs/cgroup/cpu.max", limit)
    put(root / "sys/fs/cgroup/memory.max", limit)
    assert cpu_quota(root) is None or cpu_quota(root)
    assert all(found.left_bytes >= 0 for found in group_limits(root))


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A real group of version 1 with half a core, where one can be made."""
    group = Path(f"/sys/fs/cgroup/cpu/sti-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no right to make groups here")
    try:
        put(group / "cpu.cfs_quota_us", 50_000)
        yield group
    finally:
        group.rmdir()


def test_a_process_in_a_real_group_finds_its_quota(half_a_core: Path) -> None:
    code = "from sti.device import host; print(host.core_quota(), host.core_count())"
    join = f'echo $$ > {half_a_core}/cgroup.procs; exec "$@"'
    found = subprocess.run(
        ["sh", "-c", join, "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.stdout.split() == ["0.5", "1"], found.stderr
