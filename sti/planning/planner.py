"""The planner: which submodel, fidelities, preload and threads, for a target on a machine.

Pure: no clock, file, thread or session. In: manifest, device profile, workload, target. Out: a
frozen plan with its predicted timeline. Improves on the planner of the STI paper: every step may
finish as late as the latest start that still meets the deadline; start-up, embedding and head are
counted; a deadline is met in the share of runs that is asked for. Costs come from ``cost_model``,
timelines from ``timeline``, fidelities from ``beam_search``.

Candidates are ordered by loss, then bytes read, then finish time. Within the submodel found, planes
whose absence made no measurable difference are left out (``fewest_bytes``). If no latency is asked
for, everything is read. Fidelities are searched for under the threads that are the fastest with
uniform ones; what is found runs under those that are the fastest with it. The preload buffer holds
the bytes that are read first, because at the start there is no computation to hide a read behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heapify, heappop, heappush

import numpy as np

from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.errors import InfeasibleError
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import Submodel
from sti.planning.beam_search import Search, SearchProblem
from sti.planning.candidates import Candidate, Candidates
from sti.planning.check import check_target
from sti.planning.cost_model import deadline_s
from sti.planning.fewest_bytes import fewest_bytes
from sti.planning.option_tables import tabulate
from sti.planning.plan import Plan, PlanRequest
from sti.planning.prediction import loads_of, predict_run, simulate_run
from sti.planning.preload_placement import READ_AHEAD, bare_plan, place
from sti.storage.byte_ranges import total_bytes
from sti.units import exact_share, format_size, format_time, rounded_up

_LEAST_S = 1e-6
"""Seconds between two fidelities that tell threads apart."""
_MARGIN = 1e-9
"""Share of a limit kept back, because sums in another order differ by rounding."""


def make_plan(
    request: PlanRequest, profile: DeviceProfile, *, read_ahead: int = READ_AHEAD
) -> Plan:
    """The plan of least loss that meets a target, over all submodels and staircases.

    Args:
        read_ahead: groups that may be read beyond the one being decoded, at least 1.

    Raises:
        InfeasibleError: even the fastest submodel and fidelity miss the latency; says by how much.
        ProfileError: the profile lacks a graph or a fidelity of the pack.
        InputError: a latency that is not above zero, or a preload below zero.
    """
    check_target(request.target)
    best = _Planner(Candidates(request, profile, read_ahead)).best()
    plan = bare_plan(request, best.submodel, best.steps, best.run.costs.threads, read_ahead)
    return replace(plan, predicted=predict_run(request.manifest, plan, best.run, best.loss))


@dataclass(frozen=True)
class _Planner:
    """One planning problem; tries submodel after submodel."""

    candidates: Candidates

    @property
    def request(self) -> PlanRequest:
        """What is asked for."""
        return self.candidates.request

    @cached_property
    def threads(self) -> LaneThreads:
        """Those under which fidelities are searched for.

        The ones under which the latency lies highest between what the full model takes at the
        lowest fidelity and at the highest.
        """
        manifest, asked_s = self.request.manifest, self.request.target.latency_s
        assert asked_s is not None, "without a latency everything is in time"
        low, high = (
            self.candidates.uniform_s(manifest.submodels[0], bits)
            for bits in (manifest.ladder[0], manifest.ladder[-1])
        )
        places = [
            (asked_s - least_s) / max(most_s - least_s, _LEAST_S)
            for least_s, most_s in zip(low, high, strict=True)
        ]
        return self.candidates.choices[places.index(max(places))]

    def best(self) -> Candidate:
        """The candidate of least loss, less the bytes that make no difference.

        Raises:
            InfeasibleError: there is none in time.
        """
        found, quality = self._best_found(), self.request.manifest.quality
        if quality is None or self.request.target.latency_s is None:
            return found
        return self._with_fewest_bytes(found, quality.indistinct_from(found.loss))

    def _best_found(self) -> Candidate:
        """What the search finds, or what is uniform where that is better: the search knows of what
        is held at the beginning of a run alone.

        Raises:
            InfeasibleError: there is none in time, not even a uniform one.
        """
        best, target = self._least_loss(), self.request.target
        if not target.preload_bytes or target.latency_s is None:
            return best
        for submodel in self.request.manifest.submodels:
            for bits in self.request.manifest.ladder if submodel.loss <= best.loss else ():
                if self.candidates.uniform_loss(submodel, bits) > best.loss:
                    continue  # known without a simulation, of which there would be many
                uniform = self.candidates.uniform(submodel, bits)
                if uniform.rank < best.rank and self.candidates.in_time(uniform.run):
                    best = uniform
        return best

    def _least_loss(self) -> Candidate:
        """The best candidate of all submodels that meets the deadline.

        Submodels are opened in order of the least loss they could still reach: first their own loss
        at the top of the ladder, then the bound of their search. So only those that could win are
        searched.

        Raises:
            InfeasibleError: there is none.
        """
        best: Candidate | None = None
        queue = [
            (item.loss, order, False) for order, item in enumerate(self.request.manifest.submodels)
        ]
        heapify(queue)
        while queue and (best is None or queue[0][0] <= best.loss):
            _, order, bounded = heappop(queue)
            submodel = self.request.manifest.submodels[order]
            found = None if bounded else self._whole(submodel)
            if found is None and (bounded or self._may_be_in_time(submodel)):
                search = Search(self._task(submodel))
                if search.hopeless:
                    continue
                bound = submodel.loss_at(search.bound)
                if queue and bound > queue[0][0]:
                    heappush(queue, (bound, order, True))
                    continue
                counts = search.run(math.inf if best is None else submodel.missing_at(best.loss))
                found = None if counts is None else self.candidates.of(submodel, counts)
            if found is not None and (best is None or found.rank < best.rank):
                best = found
        return best or self._fastest()

    def _with_fewest_bytes(self, best: Candidate, most_loss: float) -> Candidate:
        """The same submodel with the fewest bytes for a loss up to ``most_loss``.

        The candidate itself where that would be too slow: low fidelities may take long to decode.
        """
        submodel = best.submodel
        groups = groups_of(self.request.manifest, submodel)
        costs = self.candidates.costs(submodel, self.threads)
        options = tabulate(groups, submodel.width, costs, self.candidates.rounding)
        counts = fewest_bytes(options, submodel.missing_at(most_loss))
        if counts is None:
            return best
        found = self.candidates.of(submodel, counts)
        fewer = self._bytes(found) < self._bytes(best)
        return found if fewer and self.candidates.in_time(found.run) else best

    def _bytes(self, candidate: Candidate) -> int:
        """Bytes of a candidate, preloaded ones included."""
        held = sum(item.preload_bytes for item in candidate.steps)
        return candidate.run.read_bytes + held

    def _whole(self, submodel: Submodel) -> Candidate | None:
        """The submodel at the top of the ladder; None where that is not in time."""
        whole = self.candidates.uniform(submodel, self.request.manifest.ladder[-1])
        return whole if self.candidates.in_time(whole.run) else None

    def _may_be_in_time(self, submodel: Submodel) -> bool:
        """Whether the fewest bytes might be in time if decoded and computed at the least cost.

        Answered by the relaxed course: threads that share compute are not always faster with less
        to do.
        """
        task, lowest = self._task(submodel), self.request.manifest.ladder[0]
        quickest = dict.fromkeys(task.costs.weight_s, min(task.costs.weight_s.values()))
        costs = replace(task.costs, weight_s=quickest)
        counts = [uniform_counts(group, submodel.width, lowest) for group in task.groups]
        loads = loads_of(task.groups, place(task.groups, counts, 0))
        sizes = np.array([item.read_bytes for item in loads])
        read = np.cumsum(sizes) - sizes >= task.preload_bytes
        times = [
            (
                costs.read_s(item.requests if whole else 0, item.read_bytes),
                costs.decode_s(item.group, item.shards),
                min(costs.compute_s(item.group, variant) for variant in costs.variants),
            )
            for item, whole in zip(loads, read.tolist(), strict=True)
        ]
        _, reachable = task.course.latest_ends(read, np.array(times).T)
        return reachable

    def _task(self, submodel: Submodel) -> SearchProblem:
        groups = groups_of(self.request.manifest, submodel)
        costs = self.candidates.costs(submodel, self.threads)
        deadline = deadline_s(self.candidates.profile, self.request.target, self.threads)
        assert deadline is not None, "without a deadline everything is in time"
        return SearchProblem(
            groups=groups,
            width=submodel.width,
            costs=costs,
            limit_s=deadline * (1.0 - _MARGIN) - costs.fixed_s - costs.head_s,
            preload_bytes=min(
                self.request.target.preload_bytes, sum(group.length for group in groups)
            ),
            read_ahead=self.candidates.read_ahead,
            rounding=self.candidates.rounding,
        )

    def _fastest(self) -> Candidate:
        """The uniform candidate that ends first, for targets where the search found nothing."""
        candidates = [
            self.candidates.uniform(submodel, bits)
            for submodel in self.request.manifest.submodels
            for bits in self.request.manifest.ladder
        ]
        fastest = min(candidates, key=lambda item: self.candidates.promised_s(item.run))
        asked = self.request.target.latency_s
        if asked is not None and not self.candidates.in_time(fastest.run):
            raise self._infeasible(fastest, asked)
        return fastest

    def _infeasible(self, fastest: Candidate, asked: float) -> InfeasibleError:
        """Says what would do: a longer latency, or a larger preload where that is enough."""
        total_s, submodel = fastest.run.total_s, fastest.submodel
        needed = self.candidates.promised_s(fastest.run)
        workload = self.request.asked or self.request.workload
        preload = self._least_preload(fastest)
        quantile = exact_share(self.request.target.quantile)
        remedy = f"raise the latency to {format_time(rounded_up(needed))}"
        if preload is not None:
            remedy += f", or the preload to {format_size(round(rounded_up(preload)))}"
        return InfeasibleError(
            f"a latency of {format_time(asked)} cannot be met with {workload.words}: depth "
            f"{submodel.depth} x width {submodel.width} takes at least {format_time(total_s)} "
            f"({format_time(needed)} in {quantile} of the runs), most of it "
            f"{fastest.run.limiting_lane}; {remedy}",
            limit="latency",
            asked=asked,
            needed=needed,
        )

    def _least_preload(self, fastest: Candidate) -> int | None:
        """The least budget with which the candidate is in time, to 1/1000; None where none is."""
        groups = groups_of(self.request.manifest, fastest.submodel)
        counts = [item.counts for item in fastest.steps]

        def in_time(budget: int) -> bool:
            placed = place(groups, counts, budget, self.candidates.variants)
            return self.candidates.in_time(
                simulate_run(
                    fastest.run.costs, groups, placed, read_ahead=self.candidates.read_ahead
                )
            )

        low = self.request.target.preload_bytes
        high = sum(total_bytes(group_ranges(g, c)) for g, c in zip(groups, counts, strict=True))
        if not in_time(high):
            return None
        while high - low > max(1, high // 1000):
            middle = (low + high) // 2
            low, high = (low, middle) if in_time(middle) else (middle, high)
        return high
