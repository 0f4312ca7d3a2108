"""The device profile of this machine: from the cache, or measured within two seconds.

In: an open pack with its graphs, and the number of compute threads. Out: a ``DeviceProfile``, kept
for this machine, this software, this way to decode, these graphs and this storage. Times are
measured by ``sti.calibration.lane_timer`` and turned into coefficients by
``sti.calibration.fit_profile``. This is the hardware profile of the paper.

Choice of threads (``best_threads``): what ``sti calibrate`` found best for the pack's graphs on
this machine. Before it has run, all cores compute, except slow ones and those beyond the fourth,
where small products gain little. How many of the threads a run uses, and what else they do, each
plan decides (``sti.device.lanes.LaneThreads``).
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from sti.backend.interface import Backend
from sti.backend.onnxruntime.session import ort_version
from sti.calibration.cache import Cache, Key
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set, machine_line
from sti.device.profile import PROFILE_VERSION, DeviceProfile
from sti.notices import Notify, log_notice
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import lane_choices
from sti.storage.digest import sha256

BUDGET_S = 1.9
"""Seconds that measuring may take, everything included."""

_COSTS_VERSION = 4
"""Part of the key of cached profiles: raised when a lane's code becomes faster or slower."""

MOST_THREADS = 4


def best_threads(reader: PackReader, *, cache_dir: Path | None = None) -> int:
    """Compute threads to use where the caller does not choose; see the module's docstring."""
    found = Cache(cache_dir).load_threads(_key(reader))
    return default_threads() if found is None else min(found, host.core_count())


def default_threads() -> int:
    """Compute threads for this machine while nothing has been measured."""
    return min(host.fast_core_count(), MOST_THREADS)


def thread_choices() -> tuple[int, ...]:
    """Numbers of compute threads worth trying on this machine, ascending."""
    count = host.core_count()
    fast = host.fast_core_count()
    return tuple(sorted({1, 2, default_threads(), fast - 1, fast} & set(range(1, count + 1))))


def remember_threads(
    reader: PackReader, threads: int, *, cache_dir: Path | None = None
) -> Path | None:
    """Make ``best_threads`` return ``threads`` for packs with these graphs on this machine."""
    return Cache(cache_dir).store_threads(_key(reader), threads)


def load_or_measure(
    reader: PackReader,
    backend: Backend,
    *,
    threads: int,
    force: bool = False,
    cache_dir: Path | None = None,
    notify: Notify = log_notice,
) -> DeviceProfile:
    """The profile for this pack's graphs on this machine.

    Measures where nothing is cached (or ``force`` is set), calls ``notify`` first, and caches the
    result; a cache that cannot be used causes a warning. ``backend`` must not be in use meanwhile.

    Args:
        reader: the open pack.
        backend: computes the pack, with ``threads`` lanes.
        threads: part of the key of the cached profile.
        force: measure even if a profile is cached.
        cache_dir: where profiles are kept; the user's cache directory by default.
        notify: called with a notice before measuring begins.

    Raises:
        RunError, PackCorruptError: storage or computation failed while measuring.
    """
    cache = Cache(cache_dir)
    key = {
        **_key(reader),
        "threads": threads,
        "storage": [os.major(reader.device), os.minor(reader.device)],
    }
    profile = None if force else cache.load_profile(key)
    if profile is None:
        notify("measuring this device (once, about 2 s)")
        profile = measure(reader, backend, threads=threads, budget_s=BUDGET_S)
        cache.store_profile(key, profile)
    return profile


def measure(
    reader: PackReader, backend: Backend, *, threads: int, budget_s: float
) -> DeviceProfile:
    """Measure every lane, as ``load_or_measure`` does, without cache or notice.

    Takes longer than ``budget_s`` seconds only where timing everything once does.
    """
    # Imported late: most starts find a cached profile and need none of this.
    from sti.calibration.fit_profile import fit_profile
    from sti.calibration.lane_timer import LaneTimer

    start = perf_counter()
    timer = LaneTimer(reader, backend, lane_choices(threads, host.core_count()))
    try:
        seen = timer.observe(budget_s - (perf_counter() - start))
    finally:
        timer.close()
    profile = fit_profile(
        seen,
        reader.manifest,
        device=machine_line(),
        threads=threads,
        direct=timer.direct,
    )
    return replace(profile, instructions=instruction_set(), kernel=kernel_path())


def _key(reader: PackReader) -> Key:
    """What measurements depend on: machine, software and graphs."""
    manifest = reader.manifest
    graphs = sha256()
    for name, tensor in sorted(manifest.graphs.items()):
        graphs.update(name.encode() + reader.resident(tensor).tobytes())
    shards = [(kind.name, kind.shard_weights, *kind.groups) for kind in manifest.kinds]
    return {
        "profile": PROFILE_VERSION,
        "lanes": _COSTS_VERSION,
        "machine": [host.cpu_name(), host.core_count(), platform.machine(), sys.platform],
        "instructions": instruction_set(),
        "kernel": kernel_path(),
        "speeds": [core.speed for core in host.cores()],
        "software": [platform.python_version(), np.__version__, ort_version()],
        "graphs": graphs.hexdigest()[:16],
        "model": [manifest.dimensions.hidden, manifest.dimensions.slices, *shards],
        "ladder": manifest.ladder,
    }
