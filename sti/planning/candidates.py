"""Candidates of the planner: fidelities of a submodel, simulated under the threads that suit them.

In: a request, a device profile, shard counts. Out: candidates with their steps, loss and run; which
of them are in time. Knows nothing of searches. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.fidelity import Counts, groups_of, uniform_counts
from sti.model.manifest import Submodel
from sti.planning.cost_model import RunCosts, deadline_s, promised_s, run_costs
from sti.planning.expected_loss import loss_of_steps
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import NARROW, PlanRequest, PlanStep
from sti.planning.prediction import Run, loads_of, simulate_loads
from sti.planning.preload_placement import better, place, placements
from sti.planning.variants import rounding_loss, variants_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """Fidelities and preload for one submodel, and its run under the threads that end it first."""

    submodel: Submodel
    steps: tuple[PlanStep, ...]
    loss: float
    run: Run

    @property
    def rank(self) -> tuple[float, int, float]:
        """What candidates are compared by; the least is the best."""
        return self.loss, self.run.read_bytes, self.run.total_s


@dataclass(frozen=True)
class Candidates:
    """Makes the candidates of one planning problem. Not thread-safe."""

    request: PlanRequest
    profile: DeviceProfile
    read_ahead: int
    _uniform: dict[tuple[int, int, int], tuple[tuple[PlanStep, ...], list[Run]]] = field(
        default_factory=dict
    )
    """Uniform steps and their runs, by depth, width and bits."""
    _costs: dict[tuple[int, LaneThreads], RunCosts] = field(default_factory=dict)
    """By width and threads."""

    @cached_property
    def choices(self) -> Sequence[LaneThreads]:
        """The threads that the machine may use for this pack."""
        return measured_choices(self.profile, self.request.target.threads)

    @cached_property
    def variants(self) -> Sequence[str]:
        """How it may compute products."""
        return variants_of(self.request.manifest, self.profile)

    @property
    def rounding(self) -> Mapping[int, float]:
        """What narrow products lose; nothing where there are none."""
        return rounding_loss(self.request.manifest) if NARROW in self.variants else {}

    def costs(self, submodel: Submodel, threads: LaneThreads) -> RunCosts:
        """What runs of a submodel cost.

        Raises:
            ProfileError: the profile lacks a graph or a fidelity of the pack.
        """
        manifest, workload = self.request.manifest, self.request.workload
        width = submodel.width
        if (found := self._costs.get((width, threads))) is None:
            found = run_costs(manifest, self.profile, workload, width, threads=threads)
            self._costs[width, threads] = found
        return found

    def of(self, submodel: Submodel, counts: Sequence[Counts]) -> Candidate:
        """The submodel with these shards of each of its groups."""
        return self._of_runs(submodel, *self._runs(submodel, counts))

    def uniform(self, submodel: Submodel, bits: int) -> Candidate:
        """The submodel with every shard at one fidelity."""
        return self._of_runs(submodel, *self._uniform_runs(submodel, bits))

    def uniform_loss(self, submodel: Submodel, bits: int) -> float:
        """The loss of that candidate, which does not depend on what is held."""
        groups = groups_of(self.request.manifest, submodel)
        counts = [uniform_counts(group, submodel.width, bits) for group in groups]
        steps = place(groups, counts, 0, self.variants)
        return loss_of_steps(self.request.manifest, submodel, groups, steps)

    def uniform_s(self, submodel: Submodel, bits: int) -> list[float]:
        """What is promised of it under each of ``choices``, as ``promised_s``."""
        return [self.promised_s(run) for run in self._uniform_runs(submodel, bits)[1]]

    def in_time(self, run: Run) -> bool:
        """Whether a run meets the latency asked for."""
        deadline = deadline_s(self.profile, self.request.target, run.costs.threads)
        return deadline is None or run.total_s <= deadline

    def promised_s(self, run: Run) -> float:
        """Seconds within which as many runs end as the target asks for."""
        quantile = self.request.target.quantile
        return promised_s(self.profile, run.total_s, run.costs.threads, quantile=quantile)

    def _uniform_runs(
        self, submodel: Submodel, bits: int
    ) -> tuple[tuple[PlanStep, ...], list[Run]]:
        key = submodel.depth, submodel.width, bits
        if key not in self._uniform:
            groups = groups_of(self.request.manifest, submodel)
            counts = [uniform_counts(group, submodel.width, bits) for group in groups]
            self._uniform[key] = self._runs(submodel, counts)
        return self._uniform[key]

    def _runs(
        self, submodel: Submodel, counts: Sequence[Counts]
    ) -> tuple[tuple[PlanStep, ...], list[Run]]:
        """The steps with these counts, what is held placed where it serves best, and their runs
        under each of the threads.
        """
        groups = groups_of(self.request.manifest, submodel)
        costs = [self.costs(submodel, threads) for threads in self.choices]
        held = self.request.target.preload_bytes
        best: tuple[tuple[PlanStep, ...], list[Run]] | None = None
        for steps in placements(groups, counts, held, self.variants):
            loads = loads_of(groups, steps)
            runs = [simulate_loads(item, loads, read_ahead=self.read_ahead) for item in costs]
            if best is None or better(self._soonest_s(best[1]), self._soonest_s(runs)):
                best = steps, runs
        assert best is not None, "there is a placement"
        return best

    def _soonest_s(self, runs: Sequence[Run]) -> float:
        return min(map(self.promised_s, runs))

    def _of_runs(
        self, submodel: Submodel, steps: tuple[PlanStep, ...], runs: Sequence[Run]
    ) -> Candidate:
        groups = groups_of(self.request.manifest, submodel)
        loss = loss_of_steps(self.request.manifest, submodel, groups, steps)
        return Candidate(submodel, steps, loss, min(runs, key=self.promised_s))
