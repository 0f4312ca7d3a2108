"""Facts about the machine: cores by speed, memory, this process's memory, a one-line description.

In: ``/proc``, ``/sys``, the scheduler and, where it is installed, psutil. Out: plain values, or
None where the system does not say. Only ``check_threads`` raises: Android denies parts of ``/proc``
(``sys.platform`` is ``"android"`` there), containers limit memory and processors below the host's,
and psutil is optional and may fail. Only files that Android leaves readable are read. Files of
``/proc`` and ``/sys`` can be read below another root; what Python itself asks the system cannot.
"""

from __future__ import annotations

import functools
import importlib
import math
import mmap
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sti.device.cpu_groups import cpu_quota
from sti.device.lanes import MOST_THREADS
from sti.device.memory_groups import group_limits
from sti.device.system_files import read_number, read_table, read_text
from sti.errors import InputError

ROOT = Path("/")
"""Below it lie the system's ``proc`` and ``sys``; looked up at every call, so tests may set it."""

_CPU = Path("sys/devices/system/cpu")
_THREADS_A_CORE = 4
_MMAP_THRESHOLD, _LARGE = -3, 1 << 19
"""glibc's ``M_MMAP_THRESHOLD``, and bytes that are mapped each for itself."""


@dataclass(frozen=True, slots=True)
class Core:
    """One processor core this process may run on."""

    index: int
    speed: int | None
    """Relative speed: ``cpu_capacity``, else the highest frequency in kHz; None: unknown."""


class Memory(NamedTuple):
    """Memory of the machine, or of the container this process runs in, in bytes; None: unknown."""

    total_bytes: int | None
    available_bytes: int | None


def cores() -> tuple[Core, ...]:
    """The cores this process may run on, fastest first, then by number."""
    try:
        indices = sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        indices = list(range(os.cpu_count() or 1))
    return _ranked(ROOT / _CPU, tuple(indices))


def core_count() -> int:
    """Cores that can be kept busy: those this process may run on, within a container's quota."""
    quota = core_quota()
    count = len(cores())
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def core_quota() -> float | None:
    """Cores' worth of processor time that this process's cgroups allow; None: all of it.

    Only where that is less than ``cores`` could take. In hundredths, and up to a second old.
    """
    quota = _quota(ROOT, int(time.monotonic()))
    return None if quota is None or quota >= len(cores()) else max(0.01, round(quota, 2))


def most_threads() -> int:
    """The most compute threads that may be asked for; a larger number must be a mistake."""
    return min(_THREADS_A_CORE * core_count(), MOST_THREADS)


def check_threads(threads: int | None, *, name: str = "threads") -> None:
    """Refuse a number of compute threads that this machine cannot use; None is always accepted.

    Args:
        threads: the number asked for, of any type.
        name: the option, for the message, e.g. ``"--threads"``.

    Raises:
        InputError: not a whole number from 1 to ``most_threads()``.
    """
    if threads is None:
        return
    most = most_threads()
    if not (type(threads) is int and 1 <= threads <= most):
        raise InputError(
            f"{name} must be a whole number from 1 to {most} on this machine; found {threads!r:.40}"
        )


def fast_core_count() -> int:
    """Cores among ``core_count`` that are at least half as fast as the fastest."""
    ranked = cores()
    best = ranked[0].speed if ranked else None
    if best is None:
        return core_count()
    return min(core_count(), sum((core.speed or 0) * 2 >= best for core in ranked))


def memory() -> Memory:
    """Total and available memory, in bytes, within the limits of this process's cgroups."""
    limits = memory_limits()
    totals = [item.total_bytes for item in limits if item.total_bytes is not None]
    available = [item.available_bytes for item in limits if item.available_bytes is not None]
    return Memory(min(totals, default=None), min(available, default=None))


def memory_limits() -> tuple[Memory, ...]:
    """The machine's memory, then that of each memory cgroup with a limit that this process is in.

    Reads ``/proc/meminfo``, ``/proc/self/cgroup`` and the groups' files: usage, limits, and how
    much of it is file cache.
    """
    table = read_table(ROOT / "proc" / "meminfo")
    total, available = table.get("MemTotal"), table.get("MemAvailable")
    if total is None or available is None:
        total, available = _psutil_memory()
    return Memory(total, available), *(Memory(*found) for found in group_limits(ROOT))


def rss_bytes() -> int | None:
    """Resident memory of this process now, in bytes."""
    size = read_table(ROOT / "proc" / "self" / "status").get("VmRSS")
    return _psutil_rss() if size is None else size


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs, in bytes; None where the system does not say."""
    words = (read_text(ROOT / "proc" / "self" / "statm") or "").split()
    if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
        return None
    return max(0, int(words[1]) - int(words[2])) * mmap.PAGESIZE


def peak_rss_bytes() -> int | None:
    """Highest resident memory of this process so far, in bytes."""
    size = read_table(ROOT / "proc" / "self" / "status").get("VmHWM")
    if size is not None:
        return size
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    except (ImportError, OSError):
        return None
    return peak if sys.platform == "darwin" else peak * 1024


def map_large_memory() -> None:
    """Let the C library give memory of 512 KiB and more back as soon as it is freed (glibc).

    For the whole process, from now on. By itself it keeps ever larger pieces in heaps once some
    were freed, and ``trim_heap`` does not reach the end of a heap that a thread has of its own.
    """
    with suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes  # as below

        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def trim_heap() -> None:
    """Let the C library give freed memory back to the system, where it can (glibc)."""
    with suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes  # rarely needed, and not part of every Python

        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def cpu_name() -> str:
    """The processor's name as the system gives it, e.g. ``Cortex-A76``; never empty."""
    keys = ("model name", "Hardware", "Model", "cpu model")
    found: dict[str, str] = {}
    for line in (read_text(ROOT / "proc" / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys and value.strip():
            found.setdefault(key.strip(), value.strip())
    for key in keys:
        if key in found:
            return found[key]
    return (
        read_text(ROOT / "proc" / "device-tree" / "model")
        or platform.processor()
        or platform.machine()
    )


def describe() -> str:
    """One line for people, stable between runs: processor, cores, memory, system."""
    total = memory().total_bytes
    size = "memory unknown" if total is None else f"{total / 2**30:.1f} GiB"
    return f"{cpu_name()}, {_core_line()}, {size}, {sys.platform} {platform.machine()}"


def psutil() -> Any | None:
    """The psutil module, or None where it is missing or broken."""
    try:
        return importlib.import_module("psutil")
    except Exception:  # a broken build may raise anything
        return None


def _core_line() -> str:
    ranked, count = cores(), core_count()
    speeds = sorted({core.speed for core in ranked if core.speed}, reverse=True)
    if len(speeds) < 2:
        return f"{count} core{'s' * (count > 1)}"
    groups = (str(sum(core.speed == speed for core in ranked)) for speed in speeds)
    return f"{'+'.join(groups)} cores"


@functools.lru_cache(maxsize=1)
def _quota(root: Path, second: int) -> float | None:
    """Read once a second: a start asks ten times."""
    return cpu_quota(root)


@functools.cache
def _ranked(cpu: Path, indices: tuple[int, ...]) -> tuple[Core, ...]:
    """Read once: a start asks half a dozen times, and a core's speed is what it was made with."""
    found = _rank(cpu, indices, "cpu_capacity") or _rank(cpu, indices, "cpufreq/cpuinfo_max_freq")
    found = found or [Core(index, None) for index in indices]
    return tuple(sorted(found, key=lambda core: (-(core.speed or 0), core.index)))


def _rank(cpu: Path, indices: Sequence[int], leaf: str) -> list[Core]:
    speeds = [read_number(cpu / f"cpu{index}" / leaf) for index in indices]
    if not any(speeds):
        return []
    return [Core(index, speed) for index, speed in zip(indices, speeds, strict=True)]


def _psutil_memory() -> tuple[int | None, int | None]:
    module = psutil()
    if module is None:
        return None, None
    try:
        found = module.virtual_memory()
        return int(found.total), int(found.available)
    except Exception:  # psutil raises whatever its platform code raises
        return None, None


def _psutil_rss() -> int | None:
    module = psutil()
    try:
        return None if module is None else int(module.Process().memory_info().rss)
    except Exception:  # as above
        return None
