"""Plans that change with the machine: for packs that plan for every length of text.

In: a pack's staircases, priced for a workload by what the machine does now. Out: the plan of least
loss that is in time, chosen anew before each run. Nothing is searched for: fidelities worth running
were found beforehand (``sti.planning.staircases``). What takes longer than to choose is done
between runs where that is soon enough. Not thread-safe, but for the jobs of ``ahead``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sti.engine.conditions import terms_now
from sti.engine.feasibility import Feasibility, least_s
from sti.engine.machine import Machine
from sti.engine.plan_maker import Made, PlanMaker, Priced
from sti.engine.prepared import PreparedPlan
from sti.engine.refusals import below_floor, refused_below_floor
from sti.engine.speeds import Slowed
from sti.model.quality import loss_at
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.choice import Choice, Terms, choose, fastest, in_time
from sti.planning.plan import Target
from sti.planning.pricing import Prices

_LONGER = 2
"""Times the tokens of a text for which a plan is run that was made for longer ones."""
_PRICED_AT_ONCE = 4
"""Workloads: it takes twice as long as for one, and holds up a run that begins meanwhile."""


class ElasticPlans:
    """The plans for one target. Not thread-safe, but for the jobs of ``ahead``.

    Args:
        reader: the pack.
        target: the limits.
        machine: what it is to run on.
        maker: of the pack.
    """

    changes = True

    def __init__(
        self,
        reader: PackReader,
        target: Target,
        machine: Machine,
        maker: PlanMaker,
    ) -> None:
        self._manifest = reader.manifest
        self._target, self._machine, self._maker = target, machine, maker
        quality = reader.manifest.quality
        self._most_loss = math.inf if quality is None else loss_at(quality, target.floor)
        self._current: dict[Workload, Made] = {}
        """What runs of a workload take."""
        self._last: Made | None = None
        """What the last run took, or the first one is to take."""
        self._ready: dict[Workload, Made] = {}
        """What was made ahead of them."""
        self._wanted: set[Workload] = set()
        """Those for which something better was found than what they take."""
        self._stood_in: set[Workload] = set()
        """Those that ran as the plan of another one before they had their own."""
        self._feasibility = Feasibility(
            maker,
            target,
            machine,
            most_loss=self._most_loss,
            pack_bytes=sum(group.length for group in reader.manifest.groups),
            path=reader.path,
        )
        self.replans = 0
        """How often a workload went over to another plan."""

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> PreparedPlan:
        """The plan for a run now.

        Raises:
            InfeasibleError: nothing is in time, or nothing above a floor that is a limit.
        """
        made = self._stand_in(workload) if running else None
        if made is not None:
            self._stood_in.add(workload)
            first_s = self._machine.first_s(workload)
            return self._prepared(made, first_s=first_s)._replace(basis=None)
        made, notice = self._chosen(workload, asked, running=running)
        if running or self._last is None:
            self._last = made
        return self._prepared(made, running=running)._replace(notice=notice)

    def _prepared(self, made: Made, *, running: bool = False, first_s: float = 0.0) -> PreparedPlan:
        plan, predicted = made.plan, made.plan.predicted
        assert predicted is not None, "plans that are chosen are predicted"
        lanes = made.priced.slowed.lanes
        basis = self._machine.basis(plan, plan.workload, lanes, made.lanes_s, running=running)
        predicted = replace(predicted, total_s=basis.total_s + first_s)
        return PreparedPlan(replace(plan, predicted=predicted), made.jobs, basis)

    def ahead(self, last: Workload | None, usual: Sequence[Workload]) -> list[Callable[[], object]]:
        """Jobs of a millisecond or two that make ready for the next run, on any thread.

        Args:
            last: what ran last, and is likely to run again.
            usual: what else may run, the likeliest first.
        """
        slowed, jobs = self._machine.speeds.slowed, list[Callable[[], object]]()
        self._ready = {
            item: made for item, made in self._ready.items() if made.priced.slowed is slowed
        }
        if last is not None and (last in self._wanted or self._is_unmade(last, slowed)):
            jobs.append(partial(self._make_ahead, last, slowed))
        usual = [item for item in usual if item != last]
        unpriced = [item for item in usual if self._priced_for(item, slowed) is None]
        for start in range(0, len(unpriced), _PRICED_AT_ONCE):
            some = unpriced[start : start + _PRICED_AT_ONCE]
            jobs.append(partial(self._maker.price_all, some, self._target, slowed))
        unmade = [item for item in usual if self._is_unmade(item, slowed)]
        jobs += [partial(self._make_ahead, item, slowed) for item in unmade]
        return jobs

    def forget(self) -> None:
        """Give back the memory of plans; they are made anew."""
        self._last = None
        self._ready = {}
        self._current.clear()
        for known in (self._wanted, self._stood_in):
            known.clear()
        self._feasibility.forget()
        self._maker.forget()

    def _is_unmade(self, workload: Workload, slowed: Slowed) -> bool:
        """Whether a workload has no plan that was made for such a machine."""
        found = self._ready.get(workload), self._current.get(workload)
        return all(made is None or made.priced.slowed is not slowed for made in found)

    def _priced_for(self, workload: Workload, slowed: Slowed) -> Priced | None:
        """What was priced for a workload on such a machine, if it was."""
        known = self._maker.known(workload, self._target)
        return known if known is not None and known.slowed is slowed else None

    def _make_ahead(self, workload: Workload, slowed: Slowed) -> None:
        """Make what the next run of a workload would take on such a machine."""
        self._wanted.discard(workload)
        current, priced = self._current.get(workload), self._priced_for(workload, slowed)
        if priced is None:
            priced = self._maker.price(workload, self._target, slowed)
        terms, kept = self._terms(workload, priced.prices), self._kept(workload)
        choice = choose(priced.prices, terms, kept)
        if choice is None:
            choice = choose(priced.prices, terms._replace(most_loss=math.inf), kept)
        if choice is not None and (current is None or not current.is_for(priced, choice)):
            self._ready[workload] = self._maker.make(workload, priced, choice, self._target)

    def _chosen(
        self, workload: Workload, asked: Workload, *, running: bool
    ) -> tuple[Made, str | None]:
        """What to run, and what the caller should know of it."""
        priced, kept = self._priced(workload), self._kept(workload)
        terms = self._terms(workload, priced.prices)
        first_s = self._machine.first_s(workload) if running else 0.0
        latency_s, choice = self._target.latency_s, None
        if latency_s is not None and first_s > 0.0:
            choice = choose(priced.prices, terms._replace(latency_s=latency_s - first_s), kept)
        if choice is None:
            # A first run that takes longer is no reason to refuse a target, or to lose quality.
            choice = choose(priced.prices, terms, kept)
        if choice is None:
            return self._lesser(workload, priced, terms, asked)
        return self._take(workload, priced, choice, terms), None

    def _stand_in(self, workload: Workload) -> Made | None:
        """What was made for texts a little longer, where nothing was for this workload so far.

        It is in time as well, and there at once: to price and to plan would take longer than a
        better plan for one run is worth. Where something is preloaded, only what ran last is: the
        preload buffer holds it.
        """
        if workload in self._current or workload in self._stood_in or not self._machine.learns:
            return None
        slowed = self._machine.speeds.slowed
        made = self._ready.get(workload)
        if made is not None and made.priced.slowed is slowed:
            return None
        return next(
            (
                made
                for made in self._made_for_longer(workload)
                if self._stands_in(made, workload, slowed)
            ),
            None,
        )

    def _stands_in(self, made: Made, workload: Workload, slowed: Slowed) -> bool:
        priced, longer = made.priced, made.plan.workload
        if priced is not self._priced_for(longer, slowed):
            return False
        if self._target.preload_bytes and (
            self._last is None or not made.choice.runs_as(self._last.choice)
        ):
            return False
        terms = self._terms(longer, priced.prices)
        if terms.latency_s is not None:
            terms = terms._replace(latency_s=terms.latency_s - self._machine.first_s(workload))
        return in_time(priced.prices, terms, made.choice)

    def _made_for_longer(self, workload: Workload) -> list[Made]:
        """Plans for texts of up to ``_LONGER`` times the length, the shortest first."""
        most = Workload(workload.batch, int(_LONGER * workload.tokens))
        found = {**self._ready, **self._current}
        near = sorted(item for item in found if workload.within(item) and item.within(most))
        return [found[item] for item in near if item.batch == workload.batch]

    def _kept(self, workload: Workload) -> Choice | None:
        """What may stay: what was chosen for a workload before; where something is preloaded, what
        was chosen last for any, as most of that is what the preload buffer holds.
        """
        shared = self._target.preload_bytes and self._machine.learns
        made = self._last if shared else self._current.get(workload)
        return None if made is None else made.choice

    def _priced(self, workload: Workload) -> Priced:
        """What a run of a workload may choose from, for the machine as it is now."""
        slowed = self._machine.speeds.slowed
        priced = self._priced_for(workload, slowed)
        return priced or self._maker.price(workload, self._target, slowed)

    def _take(self, workload: Workload, priced: Priced, choice: Choice, terms: Terms) -> Made:
        """The plan of what was chosen.

        What would be better alone, and is still to be made, is made after this run.
        """
        self._wanted.discard(workload)
        before, made = self._current.get(workload), self._ready.pop(workload, None)
        if before is not None and before.is_for(priced, choice):
            return before
        if made is None or not made.is_for(priced, choice):
            if (
                before is not None
                and before.priced is priced
                and in_time(priced.prices, terms, before.choice)
            ):
                self._wanted.add(workload)
                return before
            made = self._maker.make(workload, priced, choice, self._target)
        self.replans += before is not None and before.plan.steps != made.plan.steps
        self._current[workload] = made
        return made

    def _terms(self, workload: Workload, prices: Prices) -> Terms:
        names = [threads.name for threads in prices.threads]
        terms = terms_now(self._machine.speeds, self._target, workload, names)
        return terms._replace(most_loss=self._most_loss)

    def _lesser(
        self, workload: Workload, priced: Priced, terms: Terms, asked: Workload
    ) -> tuple[Made, str | None]:
        """What to run where nothing above the floor is in time.

        What would be in time on the machine as it was measured is not refused for what has changed
        since: the run is late, its result says so, and what it takes shows when that is over.

        Raises:
            InfeasibleError: nothing else is in time, or the floor is a limit.
        """
        speeds, prices = self._machine.speeds, priced.prices
        lesser = terms._replace(most_loss=math.inf)
        choice = choose(prices, lesser, self._kept(workload))
        if choice is None or self._target.floor_is_limit:
            late = fastest(prices, terms)
            feasible = self._feasibility.as_measured(workload)
            if self._machine.speeds is not speeds:  # measured anew meanwhile
                return self._chosen(workload, asked, running=False)
            if late is not None and feasible:
                return self._take(workload, priced, late, terms), None
        if choice is None:
            raise self._feasibility.too_slow(workload, asked, least_s(prices, lesser))
        quality, needed_s = self._manifest.quality, least_s(prices, terms)
        assert quality is not None, "without a quality there is no floor"
        if self._target.floor_is_limit:
            raise refused_below_floor(asked, self._target, quality, choice.loss, needed_s)
        made = self._take(workload, priced, choice, lesser)
        return made, below_floor(asked, self._target, quality, made.choice.loss, needed_s)
