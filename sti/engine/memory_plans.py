"""Plans within a budget of memory: what is left for held weights, and who computes.

In: a target with ``memory_bytes``, what makes the plans of a target. Out: plans as that makes them,
for a target with a preload and threads that memory has room for. Each kind of threads takes another
part of the memory, so each is tried with what it leaves; the best plan wins, for texts of the
length that the budget is divided for. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sti.device import host
from sti.device.lanes import LaneThreads
from sti.device.memory_limit import MEMORY_SHARE
from sti.engine.graph_parts import graph_parts
from sti.engine.memory_budget import MemoryBudget, leanest_plan, over_budget, spare
from sti.engine.plan_source import Source
from sti.engine.prepared import PreparedPlan
from sti.errors import InfeasibleError
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.memory import total_size
from sti.planning.plan import Plan, PlanRequest, Prediction, Target
from sti.planning.uniform import uniform_plan

BUDGET_TOKENS = 128
"""Tokens of the longest text for which weights are held, unless the caller says: for longer ones
some are given up."""
_WORTH = 1 << 16
"""Bytes of more preload that are worth another plan."""


class _Offer(NamedTuple):
    """What one kind of threads could do."""

    target: Target
    plan: Plan


class MemoryPlans:
    """The plans of a target that limits memory.

    Args:
        manifest, pack_id: of the pack.
        target: with ``memory_bytes``.
        given: bytes to hold, as the target says; None: all that there is room for.
        budget: of the engine.
        kinds: of threads that may be used, on this machine.
        make: gives the source of plans for a target.
        forget: gives back the memory of plans that were made to compare.
        workloads: those that the budget may be divided for, the most demanding first.
        usual: the one that plans are compared for.

    Raises:
        InfeasibleError: the least that runs take is more than the budget, or the latency cannot be
            met within it.
    """

    def __init__(
        self,
        manifest: Manifest,
        pack_id: str,
        target: Target,
        given: int | None,
        budget: MemoryBudget,
        kinds: Sequence[LaneThreads],
        make: Callable[[Target], Source],
        forget: Callable[[], None],
        workloads: Sequence[Workload],
        usual: Workload,
    ) -> None:
        assert target.memory_bytes is not None, "there is no budget to keep"
        self._manifest, self._pack_id, self._budget = manifest, pack_id, budget
        self._kinds, self._make, self._limit = kinds, make, target.memory_bytes
        self._given, self._usual, self._forget = given, usual, forget
        self._whole = sum(group.length for group in manifest.groups)
        self.target, self.workload = self._divided(target, workloads)
        """With the preload and the threads; and for which workload."""
        self._source = make(self.target)

    @property
    def replans(self) -> int:
        """As of the source."""
        return self._source.replans

    @property
    def changes(self) -> bool:
        """As of the source."""
        return self._source.changes

    def ahead(
        self, last: Workload | None, usual: Sequence[Workload]
    ) -> Sequence[Callable[[], object]]:
        """As of the source."""
        return self._source.ahead(last, usual)

    def forget(self) -> None:
        """As of the source."""
        self._source.forget()

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> PreparedPlan:
        """The plan for a run now, on one thread where more would take too much.

        Raises:
            InfeasibleError: as the source; or the text is too long for the budget.
        """
        found = self._source.prepare(workload, asked, running=running)
        return found if running else self._budget.fitting(found, (workload,))

    def as_graph(self) -> PreparedPlan | None:
        """The plan to hold as a graph, where there is room for one beside what runs take.

        Plans that follow the machine are held in full: a graph takes as long at any fidelity.
        """
        if self._given is not None:
            return None
        source = self._source
        if source.changes:
            source = self._make(self.target._replace(latency_s=None, preload_bytes=0))
        found = source.prepare(self.workload, self.workload, running=False)
        size = total_size(graph_parts(self._manifest, found, loaded=self._budget.has_loaded))
        left = self._left(found.plan, self.workload, as_graph=True)
        return found if size <= left else None

    def _divided(self, target: Target, workloads: Sequence[Workload]) -> tuple[Target, Workload]:
        """The target for the most demanding workload that there is room for."""
        refusal: InfeasibleError | None = None
        for workload in workloads:
            offers, refusals = self._offers(target, workload)
            if offers:
                return self._best(offers, workload), workload
            refusal = min(refusals, key=_severity)
        assert refusal is not None, "there is a workload"
        raise refusal

    def _offers(
        self, target: Target, workload: Workload
    ) -> tuple[list[_Offer], list[InfeasibleError]]:
        offers, refusals = [], []
        for kind in self._kinds:
            try:
                offers.append(self._offer(target._replace(threads=(kind.name,)), kind, workload))
            except InfeasibleError as error:
                error.__cause__ = error.__context__ = None
                refusals.append(error.with_traceback(None))  # which would keep what was planned
            finally:
                self._forget()
        return offers, refusals

    def _offer(self, target: Target, kind: LaneThreads, workload: Workload) -> _Offer:
        """The plan under one kind of threads, with what it leaves held.

        Raises:
            InfeasibleError: there is no room for it, or it is late.
        """
        given = self._given
        leanest = leanest_plan(self._request(target, workload), kind)
        least = self._needed(leanest, workload) + (given or 0)
        if least > self._limit:  # before anything is planned, which takes memory itself
            raise over_budget(self._limit, least, (workload,), preload=given or 0)
        if given is not None:
            return self._planned(target, workload)
        room = self._room(self._widest(target, kind, workload), workload)
        found = self._planned(target._replace(preload_bytes=max(0, room)), workload)
        more = self._room(found.plan, workload)
        if more - found.target.preload_bytes < _WORTH:
            return found
        try:
            return self._planned(target._replace(preload_bytes=more), workload)
        except InfeasibleError:  # with more held it reads more
            return found

    def _planned(self, target: Target, workload: Workload) -> _Offer:
        plan = self._make(target).prepare(workload, workload, running=False).plan
        needed = self._needed(plan, workload) + target.preload_bytes
        if needed > self._limit:
            raise over_budget(self._limit, needed, (workload,))
        return _Offer(target, plan)

    def _room(self, plan: Plan, workload: Workload) -> int:
        """Bytes that a plan leaves, up to all that could be held."""
        return min(self._left(plan, workload), self._whole)

    def _left(self, plan: Plan, workload: Workload, *, as_graph: bool = False) -> int:
        """Bytes that a plan leaves of the budget and of the machine's memory."""
        needed = self._budget.needed(plan, (workload,), as_graph=as_graph)
        left = self._limit - spare(self._limit) - needed
        free = host.memory().available_bytes
        return left if free is None else min(left, int(free * MEMORY_SHARE))

    def _needed(self, plan: Plan, workload: Workload) -> int:
        return self._budget.needed(plan, (workload,))

    def _widest(self, target: Target, kind: LaneThreads, workload: Workload) -> Plan:
        """What takes the most memory under these threads."""
        request = self._request(target, workload)
        return uniform_plan(request, bits=self._manifest.ladder[-1], threads=kind)

    def _request(self, target: Target, workload: Workload) -> PlanRequest:
        return PlanRequest(self._manifest, self._pack_id, workload, target)

    def _as_good(self, offers: Sequence[_Offer]) -> _Offer:
        """The soonest of those that nobody tells from the one that loses least, by what texts of
        usual length get.
        """
        found = [self._usual_prediction(offer) for offer in offers]
        least, quality = min(item.loss for item in found), self._manifest.quality
        most = least if quality is None else quality.indistinct_from(least)
        alike = [number for number, item in enumerate(found) if item.loss <= most]
        return offers[min(alike, key=lambda number: found[number].total_s)]

    def _usual_prediction(self, offer: _Offer) -> Prediction:
        plan = offer.plan
        if self._usual.tokens < plan.workload.tokens:
            source = self._make(offer.target)
            plan = source.prepare(self._usual, self._usual, running=False).plan
        assert plan.predicted is not None, "plans for a budget are predicted"
        return plan.predicted

    def _best(self, offers: Sequence[_Offer], workload: Workload) -> Target:
        """The target of the best offer; other threads may be used that leave as much."""
        best = self._as_good(offers)
        preload, threads = best.target.preload_bytes, best.target.threads
        for kind in self._kinds:
            widest = self._widest(best.target, kind, workload)
            if kind.name not in threads and self._room(widest, workload) >= preload:
                threads = (*threads, kind.name)
        return best.target._replace(threads=threads)


def _severity(error: InfeasibleError) -> tuple[bool, float]:
    """What a caller is told of several refusals: of time where memory would do, else the least."""
    return error.limit == "memory", error.needed
