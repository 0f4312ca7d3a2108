"""Corrections of predictions by what runs took: factors of lanes and of whole runs, and spreads.

In: for each run what was predicted and what was measured. Out: by what factor each lane is slower
than its profile says, how much longer runs take than is then predicted, and how far above that the
slowest of them lie. Pure: no clock, no file; in memory of the caller, not thread-safe.

What is known follows the runs: small differences move it by a share of themselves (of factors,
their logarithms do), a large one moves it only if the next run confirms it, and then at once, to
the nearer of the two. So a single outlier changes nothing, a neighbour that comes or goes is known
after two runs, and drift is followed.

What the cost model gets wrong for runs of a workload is learned for that workload: of each lane, so
that runs of different lengths in turn do not look like a machine that changes, and of the whole.

The first run of a workload, and of an engine, takes some seconds more, because memory is made for
its shapes, and threads are started. They are learned apart, as what most such runs take.

Whole runs take some seconds more, or less, than their corrected lanes: a common number, which moves
fast; one for each kind of threads, which moves slowly, so that what is passing (a neighbour, heat)
passes for those kinds as well that do not run meanwhile; and one for each workload under them,
which learns what the cost model gets wrong for runs of that length. These are sums and no factors,
so that time that every run loses (threads that wake up late) is not taken for more where a plan is
larger. Runs of a lower price than those that taught what is common take as much less of that: what
long texts lose a short one does not.

The spread is that of a normal distribution of logarithms with the runs' mean deviation, times a
calibrated number that grows with every run beyond the promise and shrinks with every other one, at
rates that balance where the share of runs that is asked for keeps it, whatever the distribution is
(adaptive conformal inference: Gibbs and Candes, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sti.device.lane_profiles import THREAD_NAMES
from sti.device.lanes import LANES
from sti.errors import ProfileError
from sti.json_fields import JsonFields
from sti.model.workload import Workload
from sti.planning.extra_time import Extra
from sti.planning.follower import MOST_FACTOR, Factor, Follower
from sti.planning.normal import normal_quantile
from sti.planning.plan import DEFAULT_QUANTILE

CORRECTIONS_VERSION = 2
MOST_EXTRA_S = 100.0
MOST_RUNS_KNOWN = 256
"""Workloads that factors are kept for; beyond that, those that were learned first are dropped."""
LEAST_SPREAD, MOST_SPREAD = 1.02, 3.0
_MOST_SIZE = 10**6
"""Of a workload that is read."""
_MEMBERS = (
    *("corrections", "lanes", "common", "reference_s", "kinds", "workloads", "deviation"),
    *("calibration", "first_s"),
)

_SMALL, _SMALL_LANE = 0.35, math.log(1.6)
"""Differences that are believed at once; larger ones have to be confirmed: of runs, as a share of
the prediction; of their lanes more, as a logarithm, because these differ more between workloads."""
_LANE_SHARE, _COMMON_SHARE, _KIND_SHARE, _WORKLOAD_SHARE = 0.04, 0.1, 0.03, 0.12
_REFERENCE_SHARE = 0.2
_DEVIATION_SHARE = 0.1
_MOST_GROWTH = 3.0
"""A deviation counts for no more than so many times the mean."""
_LEAST_DEVIATION = 0.01
_LEAST_SEEN = 2
"""Runs of a workload before its deviations count: until then they are those of the cost model."""
_MEAN_OF_NORMAL = 1.2533
"""Standard deviation over mean deviation of a normal distribution."""
_CALIBRATION_RATE = 0.15
_MOST_FIRST = 2.0
"""A first run counts for no more than so many later ones above what is known of first ones."""
_FIRST_SHARES, _MOST_FIRST_S = (0.05, 0.4), 1.0
"""Of the difference where a first run took less than was known, and where it took more."""
FIRSTS = ENGINE, WORKLOAD = "engine", "workload"
"""First runs: the very first one of an engine, and the first one of each workload."""
_LEAST_CALIBRATION, _MOST_CALIBRATION = 0.7, 12.0
_LEAST_LANE_S, _LEAST_LANE_SHARE = 1.5e-3, 0.1
"""A lane that was to work for less, and is less of the run, tells nothing."""
_RUNS_KNOWN, _FORGOTTEN_SHARE = 6, 0.2
"""Runs that tell nothing of a lane before what is known of it is forgotten, by a share a run: where
storage was slow a plan may read nothing, which must not hide that storage is fast again."""


class RunTimes(NamedTuple):
    """What a run was predicted to take, and what it took."""

    threads: str
    """Name of the kind of its threads."""
    workload: Workload
    predicted_lanes_s: Mapping[str, float]
    """By work (``sti.device.lanes.by_work``), with the factors of lanes as they were then."""
    measured_lanes_s: Mapping[str, float]
    predicted_s: float
    """Whole run, all that is known included."""
    measured_s: float
    lanes: Mapping[str, float]
    """The factors of lanes that were part of the prediction."""
    price_s: float
    """Part of ``predicted_s``: what its lanes take."""
    first: str | None = None
    """Which of ``FIRSTS`` it was; None for later ones."""
    first_s: float = 0.0
    """Part of ``predicted_s`` for being one."""
    whole: bool = True
    """Whether it did all that was predicted; else its lanes alone tell something."""
    held: bool = True
    """Whether what the prediction took to be preloaded was; else its lanes alone tell something,
    and not that the promise was too short."""


class _Own:
    """What is known of one workload under one kind of threads. Not thread-safe."""

    __slots__ = ("extra_s", "lanes")

    def __init__(self, extra_s: float = 0.0, lanes: Mapping[str, float] | None = None) -> None:
        self.extra_s = Follower(extra_s)
        self.lanes = {lane: Factor((lanes or {}).get(lane, 1.0)) for lane in LANES}


class Corrections:
    """What is known of how this machine differs from its profile now. Not thread-safe.

    Args:
        jitter: by kind of threads the spread that the profile states, for ``DEFAULT_QUANTILE``.
    """

    def __init__(self, jitter: Mapping[str, float]) -> None:
        self._lanes = {lane: Factor() for lane in LANES}
        self._unseen = dict.fromkeys(LANES, 0)
        """Runs in a row that told nothing of a lane."""
        self._common = Follower()
        self._reference_s = 0.0
        """Price of the runs that what is common was learned from; 0 before the first one."""
        self._kinds: dict[str, Follower] = {}
        self._workloads: dict[tuple[str, Workload], _Own] = {}
        widest = normal_quantile(DEFAULT_QUANTILE) * _MEAN_OF_NORMAL
        self._first = {
            name: max(_LEAST_DEVIATION, math.log(value) / widest) for name, value in jitter.items()
        }
        self._deviation: dict[str, float] = {}
        self._calibration: dict[float, float] = {}
        """By quantile."""
        self._first_s = dict.fromkeys(FIRSTS, 0.0)
        self.runs = 0
        """Runs that were taken note of."""

    @property
    def lanes(self) -> dict[str, float]:
        """Lane to the factor by which it is slower than the profile says."""
        return {lane: factor.value for lane, factor in self._lanes.items()}

    def extra(self, threads: str, workload: Workload) -> Extra:
        """What runs of a workload take beyond what the corrected lanes take."""
        kind, own = self._kinds.get(threads), self._workloads.get((threads, workload))
        shared_s = self._common.value + (0.0 if kind is None else kind.value)
        return Extra(shared_s, 0.0 if own is None else own.extra_s.value, self._reference_s)

    def first_s(self, first: str) -> float:
        """Seconds that most first runs of this kind take more than later ones."""
        return self._first_s[first]

    def spread(self, threads: str, quantile: float) -> float:
        """What that share of runs take at most, over what they typically take."""
        places = normal_quantile(quantile) * _MEAN_OF_NORMAL * self._calibration_of(quantile)
        widest = math.exp(min(math.log(MOST_SPREAD), places * self._deviation_of(threads)))
        return min(MOST_SPREAD, max(LEAST_SPREAD, widest))

    def learn(self, run: RunTimes, quantile: float) -> None:
        """Take note of a run.

        Args:
            quantile: share of runs that shall keep what ``spread`` promises.
        """
        if not (run.predicted_s > 0.0 and 0.0 < run.measured_s < math.inf):
            return  # a clock that jumped
        self.runs += 1
        if run.first is not None:
            if run.whole and run.held:
                later_s = run.predicted_s - run.first_s
                most_s = self._first_s[run.first] + _MOST_FIRST * later_s
                self._learn_first(run.first, min(most_s, run.measured_s - later_s))
            return
        off = math.log(run.measured_s / run.predicted_s)
        if run.held and self._own(run.threads, run.workload).extra_s.seen >= _LEAST_SEEN:
            self._calibrate(run, off, quantile)
        if self._learn_lanes(run) > _SMALL or not (run.whole and run.held):
            return  # the lanes explain it; what is left shows when the next run is predicted
        self._learn_whole(run)

    def _learn_first(self, first: str, more_s: float) -> None:
        known_s = self._first_s[first]
        off_s = min(_MOST_FIRST_S, max(0.0, more_s)) - known_s
        share = _FIRST_SHARES[off_s > 0.0] if known_s else 1.0
        self._first_s[first] = known_s + share * off_s

    def _own(self, threads: str, workload: Workload) -> _Own:
        """What is known of a workload alone, to be changed."""
        key = threads, workload
        own = self._workloads.pop(key, None) or _Own()
        self._workloads[key] = own  # the last one learned is the last one dropped
        while len(self._workloads) > MOST_RUNS_KNOWN:
            del self._workloads[next(iter(self._workloads))]
        return own

    def _learn_lanes(self, run: RunTimes) -> float:
        """Move the factors of lanes; the largest change, as a logarithm."""
        moved, own = 0.0, self._own(run.threads, run.workload)
        for lane, factor in self._lanes.items():
            expected, measured = run.predicted_lanes_s[lane], run.measured_lanes_s[lane]
            share = max(expected / run.predicted_s, measured / run.measured_s)
            if expected < _LEAST_LANE_S or share < _LEAST_LANE_SHARE or measured <= 0.0:
                self._unseen[lane] += 1
                if self._unseen[lane] > _RUNS_KNOWN:
                    factor.forget(_FORGOTTEN_SHARE)
                continue
            self._unseen[lane] = 0
            seen, before = run.lanes[lane] * measured / expected, factor.value
            if factor.follow(seen / own.lanes[lane].value, _LANE_SHARE, _SMALL_LANE):
                own.lanes[lane].follow(seen / factor.value, _WORKLOAD_SHARE)
            moved = max(moved, abs(math.log(factor.value / before)))
        return moved

    def _learn_whole(self, run: RunTimes) -> None:
        kind = self._kinds.setdefault(run.threads, Follower())
        own = self._own(run.threads, run.workload).extra_s
        self._refer_to(run.price_s)
        share = self.extra(run.threads, run.workload).share_of(run.price_s)
        small_s = _SMALL * run.predicted_s
        seen_s = run.measured_s - run.price_s
        shared_s = (seen_s - own.value) / share
        if self._common.follow(shared_s - kind.value, _COMMON_SHARE, small_s / share):
            before_s = self._common.value + kind.value
            kind.follow(shared_s - self._common.value, _KIND_SHARE, small_s / share)
            own.follow(seen_s - share * before_s, _WORKLOAD_SHARE, small_s)

    def _refer_to(self, price_s: float) -> None:
        """Let the reference follow the runs, without another extra for runs of this price."""
        before_s = self._reference_s
        if not before_s:
            self._reference_s = min(MOST_EXTRA_S, price_s)
            return
        moved_s = before_s * (price_s / before_s) ** _REFERENCE_SHARE
        self._reference_s = min(MOST_EXTRA_S, moved_s)
        if self._reference_s < before_s:
            for shared in (self._common, *self._kinds.values()):
                shared.scale(self._reference_s / before_s)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``restore`` reads."""
        return {
            "corrections": CORRECTIONS_VERSION,
            "lanes": self.lanes,
            "common": self._common.value,
            "reference_s": self._reference_s,
            "kinds": {name: kind.value for name, kind in self._kinds.items()},
            "workloads": [
                {
                    "threads": name,
                    **workload._asdict(),
                    "extra_s": own.extra_s.value,
                    "lanes": {lane: factor.value for lane, factor in own.lanes.items()},
                }
                for (name, workload), own in self._workloads.items()
            ],
            "deviation": dict(self._deviation),
            "calibration": {str(share): found for share, found in self._calibration.items()},
            "first_s": dict(self._first_s),
        }

    def restore(self, value: object, *, where: str) -> None:
        """Go on from what ``to_json`` gave.

        Raises:
            ProfileError: an unknown version, or values that no machine has; names ``where``.
        """
        fields = JsonFields(value, where=where, error=ProfileError)
        fields.require_version("corrections", CORRECTIONS_VERSION, remedy="delete the file")
        fields.only(*_MEMBERS)
        lanes, kinds = fields.object("lanes").only(*LANES), fields.object("kinds")
        deviation = fields.object("deviation")
        for named in (kinds, deviation):
            named.only(*THREAD_NAMES)
        found_lanes = {lane: Factor(_bounded(lanes, lane)) for lane in LANES}
        found_kinds = {name: Follower(_extra_s(kinds, name)) for name in kinds.keys()}
        common = Follower(_extra_s(fields, "common"))
        reference_s = fields.number("reference_s", least=0.0, most=MOST_EXTRA_S)
        workloads = {}
        for item in fields.objects("workloads")[:MOST_RUNS_KNOWN]:
            item.only("threads", *Workload._fields, "extra_s", "lanes")
            sizes = (item.integer(name, least=1, most=_MOST_SIZE) for name in Workload._fields)
            own_lanes = item.object("lanes").only(*LANES)
            workloads[item.text("threads"), Workload(*sizes)] = _Own(
                _extra_s(item, "extra_s"), {lane: _bounded(own_lanes, lane) for lane in LANES}
            )
        found = fields.object("calibration")
        shares = {name: _share(name) for name in found.keys()}
        calibration = {
            share: found.number(name, least=_LEAST_CALIBRATION, most=_MOST_CALIBRATION)
            for name, share in shares.items()
            if share is not None
        }
        firsts = fields.object("first_s")
        first_s = {name: min(_MOST_FIRST_S, firsts.number(name, least=0.0)) for name in FIRSTS}
        self._deviation = {
            name: min(math.log(MOST_SPREAD), deviation.number(name, least=_LEAST_DEVIATION))
            for name in deviation.keys()
        }
        self._calibration = calibration
        self._first_s = first_s
        self._lanes, self._common, self._reference_s = found_lanes, common, reference_s
        self._kinds, self._workloads = found_kinds, workloads

    def _calibration_of(self, quantile: float) -> float:
        return self._calibration.get(quantile, 1.0)

    def _deviation_of(self, threads: str) -> float:
        return self._deviation.get(threads, self._first.get(threads, _LEAST_DEVIATION))

    def _calibrate(self, run: RunTimes, off: float, quantile: float) -> None:
        if normal_quantile(quantile) <= 0.0:
            return  # of the slower half of runs nothing is asked
        # A run that left something out would have been late.
        late = run.measured_s > run.predicted_s * self.spread(run.threads, quantile)
        beyond = late or not run.whole
        step = _CALIBRATION_RATE * (float(beyond) - (1.0 - quantile))
        found = self._calibration_of(quantile) * math.exp(step)
        found = min(_MOST_CALIBRATION, max(_LEAST_CALIBRATION, found))
        self._calibration[quantile] = found
        if not run.whole:
            return
        mean = self._deviation_of(run.threads)
        counted = min(abs(off), _MOST_GROWTH * max(mean, _SMALL / _MOST_GROWTH))
        mean += _DEVIATION_SHARE * (counted - mean)
        self._deviation[run.threads] = max(_LEAST_DEVIATION, mean)


def _share(name: str) -> float | None:
    """A quantile that is the name of a field."""
    try:
        found = float(name)
    except ValueError:
        return None
    return found if 0.0 < found < 1.0 else None


def _extra_s(fields: JsonFields, name: str) -> float:
    """Seconds that runs of a machine may take beyond a prediction, or less than it."""
    return fields.number(name, least=-MOST_EXTRA_S, most=MOST_EXTRA_S)


def _bounded(fields: JsonFields, name: str) -> float:
    """A factor that a machine can have.

    Raises:
        ProfileError: it is not.
    """
    found = fields.number(name, least=1.0 / MOST_FACTOR)
    if found > MOST_FACTOR:
        raise fields.fail(name, f"at most {MOST_FACTOR:g}")
    return found
