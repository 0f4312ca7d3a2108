"""What this machine does now: its profile, and what the runs of this engine have shown since.

In: a source of the profile, and each run with its prediction. Out: the profile as it is now, what
runs take beyond it, and their spreads, kept for later processes. What was learned while other
processes kept this one waiting for a core is used here and not kept. Not thread-safe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from typing import NamedTuple

from sti.calibration.cache import Cache
from sti.device.lanes import DECODE, STORAGE, by_work
from sti.device.profile import MOST_DISTURBED, DeviceProfile
from sti.engine.results import Result
from sti.errors import ProfileError
from sti.model.workload import Workload
from sti.planning.corrections import Corrections, RunTimes
from sti.planning.cost_model import spread
from sti.planning.extra_time import Extra
from sti.planning.plan import Plan

STALE = math.log(1.25)
"""A lane that has changed by more is predicted anew."""
_RUNS_A_SAVE = 200


class Basis(NamedTuple):
    """What a prediction was made with."""

    lanes: Mapping[str, float]
    """Lane to its factor."""
    lanes_s: Mapping[str, float]
    """By work, the seconds that were predicted with these."""
    price_s: float
    """What the run takes with these."""
    extra: Extra
    """What whole runs take beyond that."""
    first: str | None
    """Which of ``sti.planning.corrections.FIRSTS`` the run is; None for later ones."""
    first_s: float
    """Seconds for being one."""

    @property
    def total_s(self) -> float:
        """What the run takes."""
        return self.extra.total_s(self.price_s) + self.first_s


class Slowed(NamedTuple):
    """A device profile with each lane as fast as it was at some time."""

    lanes: Mapping[str, float]
    """Lane to its factor."""
    profile: DeviceProfile
    """With these factors."""


def lanes_differ(before: Mapping[str, float], now: Mapping[str, float], most: float) -> bool:
    """Whether the factor of any lane has changed by more than ``most``, as a logarithm."""
    return any(abs(math.log(now[name] / before[name])) > most for name in now)


class Speeds:
    """A device profile corrected by runs.

    Args:
        profile: as measured.
        pack_id: of the pack whose runs are learned from.
        cache: keeps what was learned; None: nothing does.
        learns: whether runs correct the profile.
    """

    def __init__(
        self, profile: DeviceProfile, pack_id: str, cache: Cache | None, *, learns: bool = True
    ) -> None:
        self.profile = profile
        self._cache, self._learns = cache, learns
        self._key = {"profile": profile.to_json(), "pack": pack_id}
        jitter = {name: run.jitter for name, run in profile.runs.items()}
        self.corrections = Corrections(jitter)
        self._steady = Corrections(jitter)
        """What undisturbed runs alone have shown."""
        kept = None if cache is None else cache.load_corrections(self._key)
        if kept is not None:
            with suppress(ProfileError):  # of another release, or damaged: learned anew
                self._steady.restore(kept, where="kept corrections")
                self.corrections = deepcopy(self._steady)
        lanes = self.corrections.lanes
        self._slowed = Slowed(lanes, profile.slowed(lanes))
        self._saved_runs = 0

    @property
    def slowed(self) -> Slowed:
        """The profile with each lane as fast as it is now; the same object while nothing changes.

        Small changes wait until they add up: predictions are corrected as a whole meanwhile.
        """
        lanes = self.corrections.lanes
        if lanes_differ(self._slowed.lanes, lanes, STALE):
            self._slowed = Slowed(lanes, self.profile.slowed(lanes))
        return self._slowed

    @property
    def now(self) -> DeviceProfile:
        """The profile of ``slowed``."""
        return self.slowed.profile

    @property
    def lanes(self) -> Mapping[str, float]:
        """The factors that are part of ``now``."""
        return self.slowed.lanes

    def learn(self, plan: Plan, basis: Basis, result: Result, run_s: float, *, held: bool) -> None:
        """Take note of a run, which took ``run_s``, of a plan predicted on this basis.

        Args:
            held: whether the preload buffer held what the plan wants held.
        """
        predicted = plan.predicted
        if predicted is None or not self._learns:
            return
        share = result.trace.waited_share
        lanes_s = dict(basis.lanes_s)
        if result.downgrades:  # it did less than was predicted, and read for as much less
            lanes_s[DECODE] = 0.0
            lanes_s[STORAGE] *= result.bytes_read / max(1, predicted.bytes_read)
        if not held:  # it read what it was not to read
            lanes_s[STORAGE] = basis.lanes[STORAGE] * self._reading_s(plan, result)
        times = RunTimes(
            threads=plan.threads.name,
            workload=result.workload,
            predicted_lanes_s=lanes_s,
            measured_lanes_s=by_work(result.timing.busy_s),
            predicted_s=predicted.total_s,
            measured_s=run_s,
            lanes=basis.lanes,
            price_s=basis.price_s,
            first=basis.first,
            first_s=basis.first_s,
            whole=not result.downgrades,
            held=held,
        )
        self.corrections.learn(times, plan.target.quantile)
        if share is None or share <= MOST_DISTURBED:
            self._steady.learn(times, plan.target.quantile)
        if self._steady.runs - self._saved_runs >= _RUNS_A_SAVE:
            self.save()

    def _reading_s(self, plan: Plan, result: Result) -> float:
        """What the storage lane would take for what a run read, by the profile as measured."""
        storage, reads = self.profile.storage, len(result.timing.lanes.get(STORAGE, ()))
        alone_s = storage.read_s(reads, result.bytes_read)
        return self.profile.run(plan.threads).contention[STORAGE] * alone_s

    def save(self) -> None:
        """Keep what undisturbed runs taught for later processes."""
        if self._cache is not None and self._steady.runs > self._saved_runs:
            self._saved_runs = self._steady.runs
            self._cache.store_corrections(self._key, self._steady.to_json())

    def spread(self, threads: str, quantile: float) -> float:
        """What that share of runs take at most, over what they typically take."""
        if not self._learns:
            return spread(self.profile, quantile, threads)
        return self.corrections.spread(threads, quantile)

    def extra(self, threads: str, workload: Workload) -> Extra:
        """What runs take beyond what ``now`` predicts."""
        return self.corrections.extra(threads, workload)
