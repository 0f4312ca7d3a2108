"""Facts of the machine: cores, memory and containers, and systems that tell little."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sti.device import host

CPU = Path("sys/devices/system/cpu")
CGROUP = Path("sys/fs/cgroup")


@pytest.fixture
def fake_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system without files, filled by the test; four cores may be used."""
    monkeypatch.setattr(host, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def deny_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).startswith(("/proc", "/sys")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    real = io.open
    monkeypatch.setattr(io, "open", denied)


def without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)


def test_cores_are_ranked_by_capacity_fastest_first(fake_system: Path) -> None:
    for index, capacity in enumerate((300, 300, 1024, 700)):
        put(fake_system / CPU / f"cpu{index}" / "cpu_capacity", f"{capacity}\n")
    assert [core.index for core in host.cores()] == [2, 3, 0, 1]
    assert host.fast_core_count() == 2
    assert "1+1+2 cores" in host.describe()


def test_cores_without_capacity_are_ranked_by_frequency(fake_system: Path) -> None:
    for index, khz in enumerate((1_800_000, 2_400_000, 1_800_000, 2_400_000)):
        put(fake_system / CPU / f"cpu{index}" / "cpufreq" / "cpuinfo_max_freq", str(khz))
    assert [core.index for core in host.cores()] == [1, 3, 0, 2]
    assert host.fast_core_count() == 4


def test_cores_of_unknown_speed_keep_their_order(fake_system: Path) -> None:
    assert [core.index for core in host.cores()] == [0, 1, 2, 3]
    assert all(core.speed is None for core in host.cores())
    assert "4 cores" in host.describe()


def test_only_cores_this_process_may_use_are_counted(
    fake_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert [core.index for core in host.cores()] == [5]
    assert host.core_count() == 1


@pytest.mark.parametrize(
    ("quota", "count"), [("150000 100000", 2), ("max 100000", 4), ("10000 100000", 1), ("", 4)]
)
def test_a_containers_quota_limits_the_cores(fake_system: Path, quota: str, count: int) -> None:
    put(fake_system / CGROUP / "cpu.max", quota)
    assert host.core_count() == count


def test_a_refused_affinity_falls_back_to_all_cores(
    fake_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> set[int]:
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", refused, raising=False)
    assert len(host.cores()) == (os.cpu_count() or 1)


def test_a_containers_limit_lowers_the_memory(fake_system: Path) -> None:
    put(fake_system / "proc" / "meminfo", "MemTotal: 4000 kB\nMemAvailable: 3000 kB\n")
    assert host.memory() == host.Memory(4_096_000, 3_072_000)
    put(fake_system / CGROUP / "memory.max", "1000000")
    put(fake_system / CGROUP / "memory.current", "700000")
    put(fake_system / CGROUP / "memory.stat", "anon 1\ninactive_file 200000\n")
    assert host.memory() == host.Memory(1_000_000, 500_000)


def test_the_processors_name_is_the_systems_own(fake_system: Path) -> None:
    put(fake_system / "proc" / "cpuinfo", "processor : 0\nModel : Board 5\nHardware : Chip 7\n")
    host.cpu_name.cache_clear()
    try:
        assert host.cpu_name() == "Chip 7"
        assert host.describe().startswith("Chip 7, 4 cores, ")
    finally:
        host.cpu_name.cache_clear()


def test_memory_figures_are_plausible() -> None:
    found = host.memory()
    rss, peak = host.rss_bytes(), host.peak_rss_bytes()
    assert found.total_bytes and found.available_bytes and rss and peak
    assert 2**20 < rss <= peak * 1.01 < found.total_bytes
    assert found.available_bytes < found.total_bytes


def test_peak_memory_follows_an_allocation() -> None:
    before = host.peak_rss_bytes()
    block = b"x" * (64 << 20)
    after = host.peak_rss_bytes()
    assert before is not None and after is not None
    assert after >= (host.rss_bytes() or 0) >= len(block)


def test_everything_answers_when_proc_and_sys_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    deny_proc(monkeypatch)
    without_psutil(monkeypatch)
    host.cpu_name.cache_clear()
    try:
        assert host.memory() == host.Memory(None, None)
        assert host.rss_bytes() is None
        assert host.peak_rss_bytes()
        assert host.core_count() >= 1
        assert host.cpu_name()
        assert "memory unknown" in host.describe()
    finally:
        host.cpu_name.cache_clear()


def test_psutil_answers_where_proc_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        total, available, rss = 10, 5, 3

    class Module:
        virtual_memory = staticmethod(Answer)

        class Process:
            memory_info = staticmethod(Answer)

    deny_proc(monkeypatch)
    monkeypatch.setitem(sys.modules, "psutil", Module)  # type: ignore[arg-type]
    assert host.memory() == host.Memory(10, 5)
    assert host.rss_bytes() == 3


def test_a_broken_psutil_is_like_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def broken(what: str) -> None:
        asked.append(what)
        raise RuntimeError("boot time denied")

    class Module:
        @staticmethod
        def virtual_memory() -> None:
            broken("memory")

        class Process:
            def __init__(self) -> None:
                broken("process")

    deny_proc(monkeypatch)
    monkeypatch.setitem(sys.modules, "psutil", Module)  # type: ignore[arg-type]
    assert host.memory() == host.Memory(None, None)
    assert host.rss_bytes() is None
    assert asked == ["memory", "process"]
