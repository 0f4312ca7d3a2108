"""The device profile of this machine: from the cache, or measured within two seconds.

In: an open pack with its graphs, and the number of compute threads. Out: a ``DeviceProfile``, kept
in two parts (``sti.calibration.parts``), for this machine, software and way to decode: one for this
storage, one for these graphs. One process measures at a time. What was disturbed is provisional,
and measured again at a quiet moment. ``sti.calibration.lane_timer`` measures times,
``sti.calibration.fit_profile`` turns them into coefficients: the hardware profile of the paper.

Choice of threads (``best_threads``): what ``sti calibrate`` found best for the pack's graphs on
this machine. Before it has run, all cores compute, except slow ones and those beyond the fourth,
where small products gain little. How many of the threads a run uses, and what else they do, each
plan decides (``sti.device.lanes.LaneThreads``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from sti.backend.interface import Backend
from sti.calibration.cache import Cache
from sti.calibration.kept import StoragePart
from sti.calibration.parts import FoundParts, KeptParts, joined, shape_key
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set, machine_line
from sti.device.lane_profiles import StorageProfile
from sti.device.profile import DeviceProfile
from sti.notices import Notify, log_notice
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import lane_choices

if TYPE_CHECKING:
    from sti.calibration.fit_profile import Fit
    from sti.calibration.observations import Observations

BUDGET_S = 1.9
"""Seconds that measuring may take, everything included."""

YOUNG_S = 600.0
"""A profile that is younger, in seconds, is as good as one measured now."""
NO_SENSE = 1.0
"""Share of the time that a profile is said to have waited whose costs make no sense."""
SPARE = 0.15
"""Share of the time kept for a second try, where what was measured first makes no sense."""
_STORAGE_SHARE = 0.25
"""Share of the time that the storage lane takes where all the rest is known."""

MOST_THREADS = 4

MeasureApart = Callable[[Path, int, Notify], tuple[StoragePart, DeviceProfile]]
"""Measures with the pack of a path and so many threads (``sti.calibration.measuring_apart``)."""


def best_threads(reader: PackReader, *, cache_dir: Path | None = None) -> int:
    """Compute threads to use where the caller does not choose; see the module's docstring."""
    found = Cache(cache_dir).load_threads(shape_key(reader))
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
    return Cache(cache_dir).store_threads(shape_key(reader), threads)


def load_or_measure(
    reader: PackReader,
    backend: Backend,
    *,
    threads: int,
    force: bool = False,
    apart: MeasureApart | None = None,
    cache_dir: Path | None = None,
    notify: Notify = log_notice,
) -> DeviceProfile:
    """The profile for this pack's graphs on this machine.

    Measures what is not cached, calls ``notify`` first, and caches the result; a cache that cannot
    be used causes a warning. Several processes that find nothing wait for the first of them to
    measure. A provisional profile (``DeviceProfile.provisional``) is used, told, and measured again
    when the machine is quiet. ``backend`` must not be in use meanwhile.

    Args:
        reader: the open pack.
        backend: computes the pack, with ``threads`` lanes.
        threads: part of the key of the cached profile.
        force: measure even if a profile is cached. It is kept if the new one is provisional and
            more disturbed.
        apart: measures in a process of its own, which takes no memory of this one; None: measure
            in this one.
        cache_dir: where profiles are kept; the user's cache directory by default.
        notify: called with a notice before measuring begins, and of what is provisional.

    Raises:
        RunError, PackCorruptError: storage or computation failed while measuring.
        ProfileError: what was measured makes no sense.
    """
    kept = KeptParts(reader, threads, Cache(cache_dir))
    found = kept.load()
    profile = found.profile
    if profile is not None and not force:
        if not profile.provisional:
            return profile
        if not (found.may_try_again and _is_quiet(threads)):
            notify(_told(profile))
            return profile
    return _measure_in_turn(reader, backend, kept, found, force=force, apart=apart, notify=notify)


def measure_again(
    reader: PackReader,
    backend: Backend,
    *,
    threads: int,
    apart: MeasureApart | None = None,
    cache_dir: Path | None = None,
    notify: Notify = log_notice,
    within_s: float = YOUNG_S,
) -> DeviceProfile:
    """The better of the cached profile and one measured now, for a caller who doubts the first.

    Args:
        reader, backend, threads, apart, cache_dir, notify: as of ``load_or_measure``.
        within_s: a profile that is younger than so many seconds, and not provisional, is returned
            as it is.

    Raises:
        As ``load_or_measure``.
    """
    kept = KeptParts(reader, threads, Cache(cache_dir))
    found = kept.load()
    if found.profile is not None and not found.profile.provisional and found.age_s < within_s:
        return found.profile
    return _measure_in_turn(reader, backend, kept, found, force=True, apart=apart, notify=notify)


def measure(
    reader: PackReader, backend: Backend, *, threads: int, budget_s: float
) -> DeviceProfile:
    """Measure every lane, as ``load_or_measure`` does, without cache or lock.

    Takes longer than ``budget_s`` seconds only where timing everything once does.
    """
    storage, profile = measure_parts(
        reader, backend, threads=threads, budget_s=budget_s, notify=log_notice
    )
    assert storage is not None, "it was asked for"
    assert profile is not None, "it was asked for"
    return joined(profile, storage)


def _measure_in_turn(
    reader: PackReader,
    backend: Backend,
    kept: KeptParts,
    found: FoundParts,
    *,
    force: bool,
    apart: MeasureApart | None,
    notify: Notify,
) -> DeviceProfile:
    """Measure what is missing or provisional, or with ``force`` everything; keep what is better."""
    from sti.calibration.measuring_lock import one_at_a_time

    with one_at_a_time(kept.cache.directory, notify=notify) as waited:
        if waited:
            before, found = found, kept.load()
            profile = found.profile
            if profile is not None and found != before:
                if profile.provisional:
                    notify(_told(profile))
                return profile
        again = found.profile is not None
        notify(f"measuring this device {'again' if again else '(once, about 2 s)'}")
        storage: StoragePart | None
        measured: DeviceProfile | None
        if apart is not None:
            storage, measured = apart(reader.path, kept.threads, notify)
        else:
            storage, measured = measure_parts(
                reader,
                backend,
                threads=kept.threads,
                budget_s=BUDGET_S,
                notify=notify,
                known=None if force else found.storage,
                all_else=force or found.needs_profile,
            )
        best = kept.keep(found, storage, measured)
    if best.provisional:
        notify(_told(best))
    elif measured is not None and best.disturbed < measured.disturbed:
        notify("the earlier measurement was disturbed less, and is kept")
    return best


def measure_parts(
    reader: PackReader,
    backend: Backend,
    *,
    threads: int,
    budget_s: float,
    notify: Notify,
    known: StoragePart | None = None,
    all_else: bool = True,
) -> tuple[StoragePart | None, DeviceProfile | None]:
    """Measure the storage lane unless it is known, and all else if asked for; None for the other.

    Takes longer than ``budget_s`` seconds only where timing everything once does.
    """
    # Imported late: most starts find a cached profile and need none of this.
    from sti.calibration.fit_profile import fit_profile, fit_storage
    from sti.calibration.lane_timer import LaneTimer

    start, device = perf_counter(), machine_line()
    budget_s *= 1.0 if all_else else _STORAGE_SHARE
    timer = LaneTimer(
        reader,
        backend,
        lane_choices(threads, host.core_count()),
        storage=known is None,
        runs=all_else,
    )

    def fit(seen: Observations) -> tuple[Fit[StorageProfile] | None, Fit[DeviceProfile] | None]:
        lane = None if known is not None else fit_storage(seen, direct=timer.direct)
        if not all_else:
            return lane, None
        storage = known.lane if known is not None else lane.value if lane is not None else None
        assert storage is not None, "one of both is there"
        found = fit_profile(seen, reader.manifest, device=device, threads=threads, storage=storage)
        return lane, found

    try:
        seen = timer.observe(budget_s * (1.0 - SPARE) - (perf_counter() - start))
        lane, found = fit(seen)
        if any(each is not None and each.problems for each in (lane, found)):
            # More samples may make sense of it.
            lane, found = fit(timer.observe(budget_s - (perf_counter() - start)))
    finally:
        timer.close()
    part = profile = None
    if lane is not None:
        part = StoragePart(lane.value, device, _disturbed(lane, notify))
    if found is not None:
        profile = replace(
            found.value,
            disturbed=_disturbed(found, notify),
            instructions=instruction_set(),
            kernel=kernel_path(),
        )
    return part, profile


def _disturbed(fit: Fit[StorageProfile] | Fit[DeviceProfile], notify: Notify) -> float:
    """The share of the time that a fit waited; all of it where it makes no sense, which is told."""
    for problem in fit.problems:
        notify(f"{problem}; run `sti calibrate` with the pack when this machine is quiet")
    return NO_SENSE if fit.problems else fit.disturbed


def _is_quiet(threads: int) -> bool:
    from sti.calibration.disturbance import is_quiet  # only where a profile is provisional

    return is_quiet(threads)


def _told(profile: DeviceProfile) -> str:
    """What is told of a provisional profile."""
    if profile.disturbed >= NO_SENSE:
        return (
            "what was measured makes no sense: provisional, measured again when it is quiet, or "
            "with `sti calibrate`"
        )
    return (
        f"measured while this machine was busy (waited {profile.disturbed:.0%} of the time): "
        "provisional, measured again when it is quiet, or with `sti calibrate`"
    ).replace("%", " %")
