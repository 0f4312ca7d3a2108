"""Which of the priced staircases a run takes, and its plan.

Purpose: what ``planner.make_plan`` decides with a search, decided in microseconds from prices. In:
``Prices``, the terms of a target, the choice so far. Out: a choice, or None where nothing is in
time; and the plan of a choice, predicted as any other. Pure.

As in the planner, the least loss in time wins, then the fewest bytes within what nobody notices,
then time. A choice that is still in time stays until something is noticeably better with time to
spare, so that small corrections of a device profile do not make plans go back and forth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sti.arrays import BoolArray, Float64Array
from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.fidelity import groups_of
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.model.quality import Quality
from sti.planning.cost_model import run_costs
from sti.planning.extra_time import Extra
from sti.planning.plan import Plan, PlanRequest, PlanStep
from sti.planning.prediction import StepLoad, loads_of, predict_run, simulate_loads
from sti.planning.preload_placement import READ_AHEAD, bare_plan, better, placements
from sti.planning.pricing import Prices
from sti.planning.staircases import Staircases

SPARE = 0.1
"""Share of the latency that has to be left for a better choice to take over."""
PATIENCE = 0.05
"""Share of the latency by which the choice so far may exceed it before it is given up: predictions
move by as much from run to run."""
_NONE = Extra()
_NOTICED = 0.05
"""Where no metric was measured: losses that differ by less than this share are alike."""


class Terms(NamedTuple):
    """What a run must keep, and how its time follows from its price."""

    latency_s: float | None
    """Within which a run is promised to end; None for the best quality, whatever it takes."""
    extras: Mapping[str, Extra]
    """Name of ``LaneThreads`` to what runs typically take beyond their price; 0 where absent."""
    spreads: Mapping[str, float]
    """The same to the promised seconds over the typical ones; 1 where absent."""
    most_loss: float
    """No choice has more expected loss."""


class Choice(NamedTuple):
    """One staircase, and who runs it."""

    staircase: int
    threads: LaneThreads
    loss: float
    """Expected loss."""
    typical_s: float
    promised_s: float
    """Seconds within which the target's share of runs end."""
    read_bytes: int
    """Of slice groups, preloaded ones included."""

    def runs_as(self, other: Choice) -> bool:
        """Whether both run the same staircase under the same threads."""
        return (self.staircase, self.threads) == (other.staircase, other.threads)


def choose(prices: Prices, terms: Terms, kept: Choice | None = None) -> Choice | None:
    """The staircase to run; None where none with a loss up to the most is in time.

    Args:
        kept: what was chosen from the same staircases before. It stays, with its times as they are
            now, while it is in time and nothing is noticeably better with ``SPARE`` left.
    """
    times = _Times(prices, terms)
    allowed = prices.loss <= terms.most_loss
    if terms.latency_s is None:
        return _best_quality(prices, times, allowed)
    allowed &= times.least_s <= terms.latency_s
    if kept is not None and times.keeps(kept, terms):
        spare = allowed & (times.least_s <= (1.0 - SPARE) * terms.latency_s)
        least = float(np.min(prices.loss, where=spare, initial=np.inf))
        if _noticed(prices.quality, least) >= float(prices.loss[kept.staircase]):
            return times.choice(kept.staircase, kept.threads, terms.latency_s * (1.0 + PATIENCE))
        allowed = spare
    if not allowed.any():
        return None
    return times.choice(_least_loss(prices, times.least_s, allowed))


def fastest(prices: Prices, terms: Terms) -> Choice | None:
    """What is promised soonest of all with a loss up to the most; None where there is none."""
    times = _Times(prices, terms)
    allowed = prices.loss <= terms.most_loss
    if not allowed.any():
        return None
    return times.choice(int(np.where(allowed, times.least_s, np.inf).argmin()))


def in_time(prices: Prices, terms: Terms, kept: Choice) -> bool:
    """Whether what was chosen before from the same staircases may stay: it is hardly late, and
    loses no more than allowed.
    """
    return terms.latency_s is None or _Times(prices, terms).keeps(kept, terms)


class StaircaseSteps(NamedTuple):
    """The steps of one staircase, and what they ask of any machine."""

    submodel: Submodel
    groups: Sequence[SliceGroup]
    steps: tuple[PlanStep, ...]
    loads: Sequence[StepLoad]


def steps_of(
    manifest: Manifest,
    staircases: Staircases,
    number: int,
    preload_bytes: int,
    variants: Sequence[str],
) -> list[StaircaseSteps]:
    """The steps of a staircase with so much preload, on machines with these variants: with each
    placement of what is held that is worth a comparison, the usual one first.
    """
    submodel = manifest.submodels[int(staircases.submodel[number])]
    groups = groups_of(manifest, submodel)
    ways = placements(groups, staircases.counts_of(number), preload_bytes, variants)
    return [StaircaseSteps(submodel, groups, steps, loads_of(groups, steps)) for steps in ways]


def plan_of(
    request: PlanRequest,
    profile: DeviceProfile,
    choice: Choice,
    ways: Sequence[StaircaseSteps],
    read_ahead: int = READ_AHEAD,
) -> Plan:
    """The plan of a choice, with the prediction of ``profile`` as it is.

    Args:
        ways: the steps of the staircase that was chosen, for the request's preload.

    Raises:
        ProfileError: the profile lacks a graph or a fidelity of the pack, or such threads.
    """
    manifest, workload = request.manifest, request.workload
    found, width = ways[0], ways[0].submodel.width
    costs = run_costs(manifest, profile, workload, width, threads=choice.threads)
    run = simulate_loads(costs, found.loads, read_ahead=read_ahead)
    for other in ways[1:]:
        spread = simulate_loads(costs, other.loads, read_ahead=read_ahead)
        if better(run.total_s, spread.total_s):
            found, run = other, spread
    plan = bare_plan(request, found.submodel, found.steps, choice.threads, read_ahead)
    return replace(plan, predicted=predict_run(manifest, plan, run, choice.loss))


class _Times:
    """Typical and promised seconds of all staircases."""

    def __init__(self, prices: Prices, terms: Terms) -> None:
        names = [threads.name for threads in prices.threads]
        each = zip(names, prices.total_s, strict=True)
        spreads = np.array([terms.spreads.get(name, 1.0) for name in names])
        self._prices = prices
        extras = terms.extras
        self._typical_s = np.array([extras.get(name, _NONE).totals_s(row) for name, row in each])
        self._promised_s = self._typical_s * spreads[:, None]
        self.least_s: Float64Array = self._promised_s.min(axis=0)
        """``[c]``: promised under the threads that are the fastest with each."""

    def keeps(self, kept: Choice, terms: Terms) -> bool:
        """Whether what was chosen may stay: it is hardly late, and loses no more than allowed."""
        assert terms.latency_s is not None, "without a latency everything is in time"
        most_s = terms.latency_s * (1.0 + PATIENCE)
        good = bool(self._prices.loss[kept.staircase] <= terms.most_loss)
        return good and bool(self.least_s[kept.staircase] <= most_s)

    def choice(
        self, staircase: int, threads: LaneThreads | None = None, latency_s: float = 0.0
    ) -> Choice:
        """A staircase under the given threads, or the fastest where those are not in time."""
        promised_s, row = self._promised_s[:, staircase], -1
        if threads in self._prices.threads:
            row = self._prices.threads.index(threads)
        if row < 0 or promised_s[row] > latency_s:
            row = int(promised_s.argmin())
        return Choice(
            staircase=staircase,
            threads=self._prices.threads[row],
            loss=float(self._prices.loss[staircase]),
            typical_s=float(self._typical_s[row, staircase]),
            promised_s=float(promised_s[row]),
            read_bytes=int(self._prices.read_bytes[staircase]),
        )


def _best_quality(prices: Prices, times: _Times, allowed: BoolArray) -> Choice | None:
    """The least loss, and of that everything that can be read."""
    if not allowed.any():
        return None
    least = allowed & (prices.loss <= prices.loss[allowed].min())
    return times.choice(int(np.where(least, prices.read_bytes, -1).argmax()))


def _least_loss(prices: Prices, time_s: Float64Array, allowed: BoolArray) -> int:
    """The least loss; then the fewest bytes for what is not noticed, then time."""
    least = float(prices.loss[allowed].min())
    most = least if prices.quality is None else prices.quality.indistinct_from(least)
    alike = np.flatnonzero(allowed & (prices.loss <= most))
    best = np.lexsort((time_s[alike], prices.loss[alike], prices.read_bytes[alike]))[0]
    return int(alike[best])


def _noticed(quality: Quality | None, loss: float) -> float:
    """The loss beyond which ``loss`` is a noticeable improvement."""
    if quality is None:
        return loss * (1.0 + _NOTICED)
    return quality.indistinct_from(loss) if loss < np.inf else loss
