"""Plans that change with the machine: for packs that plan for every length of text.

In: a pack's staircases, priced for a workload by what the machine does now. Out: the plan of least
loss that is in time, chosen anew before each run. Nothing is searched for: fidelities worth running
were found beforehand (``sti.planning.staircases``). Not thread-safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sti.device.lanes import by_work
from sti.device.profile import DeviceProfile
from sti.engine.machine import Machine
from sti.engine.prepared import Chosen
from sti.engine.refusals import below_floor, least_preload, refused_below_floor, too_slow
from sti.errors import InfeasibleError
from sti.model.quality import loss_at
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.choice import (
    Choice,
    StaircaseSteps,
    Terms,
    choose,
    fastest,
    plan_of,
    steps_of,
)
from sti.planning.cost_model import spread
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.pricing import PriceList, Prices
from sti.planning.variants import variants_of

_MOST_PRICES = 256
"""Workloads whose prices are kept: some 20 KB each."""
_MOST_STEPS = 64
"""Staircases whose steps are kept: workloads often take the same ones."""


@dataclass(slots=True)
class _Entry:
    """The choice for a workload, and what it was made with."""

    list: PriceList
    """Where the choice is from."""
    prices: Prices
    choice: Choice
    plan: Plan
    """With the prediction of the lanes alone."""
    lanes: Mapping[str, float]
    """The factors of lanes that the profile holds."""
    lanes_s: Mapping[str, float]
    """What they take by the plan, by work."""
    notice: str | None = None


class ElasticPlans:
    """The plans for one target. Not thread-safe, but for ``price_ahead``.

    Args:
        reader: the pack.
        target: the limits.
        machine: what it is to run on.
        prices: gives a list of the pack's staircases up to an expected loss.
    """

    changes = True

    def __init__(
        self,
        reader: PackReader,
        target: Target,
        machine: Machine,
        prices: Callable[[float], PriceList],
    ) -> None:
        self._manifest = reader.manifest
        self._pack_id, self._path = reader.pack_id, reader.path
        self._target, self._machine = target, machine
        quality = reader.manifest.quality
        self._most_loss = math.inf if quality is None else loss_at(quality, target.floor)
        self._all, self._prices = prices, prices(self._most_loss)
        self._steps: dict[tuple[PriceList, int, Sequence[str]], StaircaseSteps] = {}
        self._entries: dict[Workload, _Entry] = {}
        self._known: dict[tuple[PriceList, Workload], tuple[DeviceProfile, Prices]] = {}
        self._feasible: dict[Workload, tuple[DeviceProfile, bool]] = {}
        """Whether workloads are in time on the machine as it was measured."""
        self.replans = 0
        """How often a workload went over to another plan."""

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> Chosen:
        """The plan for a run now.

        Raises:
            InfeasibleError: nothing is in time, or nothing above a floor that is a limit.
        """
        entry = self._chosen(workload, asked, running=running)
        name = entry.plan.threads.name
        basis = self._machine.basis(name, workload, entry.lanes, entry.lanes_s, running=running)
        predicted = entry.plan.predicted
        assert predicted is not None, "plans that are chosen are predicted"
        predicted = replace(predicted, total_s=basis.total_s(predicted.total_s))
        return Chosen(replace(entry.plan, predicted=predicted), basis, entry.notice)

    def _chosen(self, workload: Workload, asked: Workload, *, running: bool) -> _Entry:
        prices = self._priced(self._prices, workload)
        kept = self._kept(workload, self._prices)
        terms = self._terms(workload, prices)
        first_s = self._machine.first_s(workload) if running else 0.0
        latency_s, choice = self._target.latency_s, None
        if latency_s is not None and first_s > 0.0:
            choice = choose(prices, terms._replace(latency_s=latency_s - first_s), kept)
        if choice is None:
            # A first run that takes longer is no reason to refuse a target, or to lose quality.
            choice = choose(prices, terms, kept)
        if choice is None:
            return self._lesser(workload, prices, terms, asked)
        return self._take(workload, self._prices, prices, choice)

    def _kept(self, workload: Workload, source: PriceList) -> Choice | None:
        """What was chosen for a workload before, if it was from this list."""
        entry = self._entries.get(workload)
        return entry.choice if entry is not None and entry.list is source else None

    def price_ahead(self, workload: Workload) -> None:
        """Price what a run of a workload may choose from, before there is one.

        May be called on another thread than everything else: it reads what does not change, and
        adds one entry.
        """
        self._price(self._prices, workload, self._machine.speeds.settled)

    def _priced(self, source: PriceList, workload: Workload) -> Prices:
        """What a run of a workload may choose from, priced for the machine as it is now."""
        profile = self._machine.speeds.now
        known = self._known.get((source, workload))
        if known is not None and known[0] is profile:
            return known[1]
        return self._price(source, workload, profile)

    def _price(self, source: PriceList, workload: Workload, profile: DeviceProfile) -> Prices:
        prices = source.price(profile, workload, self._target.preload_bytes)
        if len(self._known) >= _MOST_PRICES:
            self._known.clear()
        self._known[source, workload] = profile, prices
        return prices

    def _take(
        self, workload: Workload, source: PriceList, prices: Prices, choice: Choice
    ) -> _Entry:
        """Plan for what was chosen, unless nothing has changed."""
        before = self._entries.get(workload)
        if before is not None and before.prices is prices and choice.runs_as(before.choice):
            return before
        speeds, target = self._machine.speeds, self._target
        variants = variants_of(self._manifest, speeds.now)
        key = source, choice.staircase, variants
        if key not in self._steps:
            if len(self._steps) >= _MOST_STEPS:
                self._steps.clear()
            self._steps[key] = steps_of(
                self._manifest, source.staircases, choice.staircase, target.preload_bytes, variants
            )
        request = PlanRequest(self._manifest, self._pack_id, workload, target)
        plan = plan_of(request, speeds.now, choice, self._steps[key])
        assert plan.predicted is not None, "plans that are chosen are predicted"
        lanes_s = by_work(plan.predicted.busy_s)
        self.replans += before is not None and before.plan.steps != plan.steps
        entry = _Entry(source, prices, choice, plan, speeds.lanes, lanes_s)
        self._entries[workload] = entry
        return entry

    def _terms(self, workload: Workload, prices: Prices) -> Terms:
        speeds, names = self._machine.speeds, [threads.name for threads in prices.threads]
        return Terms(
            self._target.latency_s,
            extras_s={name: speeds.extra_s(name, workload) for name in names},
            spreads={name: speeds.spread(name, self._target.quantile) for name in names},
            most_loss=self._most_loss,
        )

    def _lesser(self, workload: Workload, prices: Prices, terms: Terms, asked: Workload) -> _Entry:
        """What to run where nothing above the floor is in time.

        What would be in time on the machine as it was measured is not refused for what has changed
        since: the run is late, its result says so, and what it takes shows when that is over.

        Raises:
            InfeasibleError: nothing else is in time, or the floor is a limit.
        """
        source = self._all(math.inf)
        speeds = self._machine.speeds
        whole = self._priced(source, workload)
        kept = self._kept(workload, source)
        choice = choose(whole, terms._replace(most_loss=math.inf), kept)
        if choice is None or self._target.floor_is_limit:
            late = fastest(prices, terms)
            feasible = self._feasible_as_measured(workload)
            if self._machine.speeds is not speeds:  # measured anew meanwhile
                return self._chosen(workload, asked, running=False)
            if late is not None and feasible:
                return self._take(workload, self._prices, prices, late)
        if choice is None:
            raise self._too_slow(workload, asked, _least_s(whole, terms))
        quality, loss = self._manifest.quality, float(whole.loss[choice.staircase])
        assert quality is not None, "without a quality there is no floor"
        needed_s = _least_s(prices, terms)
        if self._target.floor_is_limit:
            raise refused_below_floor(asked, self._target, quality, loss, needed_s)
        entry = self._take(workload, source, whole, choice)
        entry.notice = below_floor(asked, self._target, quality, loss, needed_s)
        return entry

    def _feasible_as_measured(self, workload: Workload) -> bool:
        """Whether something above the floor is in time where nothing has changed since the machine
        was measured; it is measured anew where not.
        """
        if self._in_time_as_measured(workload):
            return True
        return self._machine.measure_again() and self._in_time_as_measured(workload)

    def _in_time_as_measured(self, workload: Workload) -> bool:
        profile, target = self._machine.speeds.profile, self._target
        known = self._feasible.get(workload)
        if known is not None and known[0] is profile:
            return known[1]
        prices = self._prices.price(profile, workload, target.preload_bytes)
        names = [threads.name for threads in prices.threads]
        spreads = {name: spread(profile, target.quantile, name) for name in names}
        terms = Terms(target.latency_s, {}, spreads, self._most_loss)
        found = choose(prices, terms) is not None
        self._feasible[workload] = profile, found
        return found

    def _too_slow(self, workload: Workload, asked: Workload, needed_s: float) -> InfeasibleError:
        def in_time(preload_bytes: int) -> bool:
            source, now = self._all(math.inf), self._machine.speeds.now
            prices = source.price(now, workload, preload_bytes)
            least_s = _least_s(prices, self._terms(workload, prices))
            return self._target.latency_s is None or least_s <= self._target.latency_s

        most_bytes = sum(group.length for group in self._manifest.groups)
        return too_slow(
            asked,
            self._target,
            needed_s,
            path=self._path,
            preload_bytes=least_preload(most_bytes, self._target.preload_bytes, in_time),
            measured=self._machine.is_measured,
        )


def _least_s(prices: Prices, terms: Terms) -> float:
    """The least latency that can be promised; infinite where there is nothing to run."""
    found = fastest(prices, terms._replace(most_loss=math.inf))
    return math.inf if found is None else found.promised_s
