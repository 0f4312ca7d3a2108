"""Plans that stay: pinned, uniform, or made once for all lengths of text.

In: the pack, the limits, the machine. Out: for each workload the same steps, with the prediction
for it. Embeddings are comparable only with those of the same submodel, fidelities and variants, so
they have one plan for all lengths by default; it is made from the machine as it was measured, and
what runs show corrects its predictions only. Such a plan is remembered between processes
(``sti.calibration.cache``): to search for it can take longer than to answer. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sti.calibration.cache import Cache
from sti.device import host
from sti.device.lanes import by_work, shared
from sti.engine.machine import Machine
from sti.engine.prepared import PreparedPlan, StepJobs
from sti.engine.speeds import Speeds
from sti.errors import InfeasibleError, PlanError, ProfileError
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.check import check_plan, check_times
from sti.planning.lane_threads import usual_threads
from sti.planning.plan import PLAN_VERSION, PLANNING, Plan, PlanRequest, Target
from sti.planning.step_jobs import StepJob
from sti.version import __version__

COMPARABLE_TOKENS = 128
"""Tokens of the text that the one plan for all lengths is made for, unless the caller says."""


class _Unchanging:
    """What is true of all plans that stay."""

    replans = 0
    changes = False

    def ahead(self, last: Workload | None, usual: Sequence[Workload]) -> tuple[()]:
        """Nothing is to be made ready."""
        return ()

    def forget(self) -> None:
        """There is little, and it stays."""


class PinnedPlan(_Unchanging):
    """A plan that the caller gave, whatever the workload.

    Args:
        plan: fits the pack.
        machine: computes on at most its threads.
        jobs: makes those of plans' steps.
    """

    def __init__(self, plan: Plan, machine: Machine, jobs: StepJobs) -> None:
        plan = _on_threads(plan, machine)
        self._prepared = PreparedPlan(plan, jobs.of(plan), None)

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> PreparedPlan:
        """The plan."""
        return self._prepared


@dataclass(slots=True)
class _Made:
    """A workload's plan, and what its prediction was made with; no lanes where there is none."""

    plan: Plan
    jobs: tuple[StepJob, ...]
    lanes: Mapping[str, float]
    lanes_s: Mapping[str, float]


class FixedPlans(_Unchanging):
    """Plans that are made once for each workload; only their predictions change.

    Args:
        jobs: makes those of plans' steps.
        make: gives the plan for a workload; its prediction is not used.
    """

    def __init__(
        self,
        manifest: Manifest,
        machine: Machine,
        jobs: StepJobs,
        make: Callable[[Workload, Workload], Plan],
    ) -> None:
        self._manifest, self._machine, self._jobs, self._make = manifest, machine, jobs, make
        self._made: dict[Workload, _Made] = {}

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> PreparedPlan:
        """The plan for a workload, with what the machine would take now.

        Raises:
            InfeasibleError: there is none.
        """
        made = self._made.get(workload)
        if made is None:
            plan = self._make(workload, asked)
            made = self._made[workload] = _Made(plan, self._jobs.of(plan), {}, {})
        speeds = self._machine.known
        if speeds is None:
            return PreparedPlan(replace(made.plan, predicted=None), made.jobs, None)
        if made.lanes is not speeds.lanes:
            self._predict(made, speeds, workload)
        predicted = made.plan.predicted
        assert predicted is not None, "predicted above"
        basis = self._machine.basis(made.plan, workload, made.lanes, made.lanes_s, running=running)
        predicted = replace(predicted, total_s=basis.total_s)
        return PreparedPlan(replace(made.plan, predicted=predicted), made.jobs, basis)

    def _predict(self, made: _Made, speeds: Speeds, workload: Workload) -> None:
        from sti.planning.prediction import predict  # only where a machine is known

        plan = replace(made.plan, workload=workload)
        predicted = predict(self._manifest, speeds.now, plan)
        made.plan = replace(made.plan, predicted=predicted)
        made.lanes, made.lanes_s = speeds.lanes, by_work(predicted.busy_s)


class UniformMaker:
    """Makes plans with every shard at ``bits``; measures only where a latency has to be kept."""

    def __init__(self, reader: PackReader, target: Target, machine: Machine, bits: int) -> None:
        self._reader, self._target, self._machine, self._bits = reader, target, machine, bits

    def __call__(self, workload: Workload, asked: Workload) -> Plan:
        """The plan for a workload.

        Raises:
            InfeasibleError: it misses the latency.
        """
        from sti.planning.uniform import uniform_plan  # not needed by planned targets

        machine, manifest = self._machine, self._reader.manifest
        timed = self._target.latency_s is not None
        profile = machine.speeds.now if timed else machine.profile
        usual = usual_threads(
            manifest, workload.tokens, compute=machine.threads, cores=host.core_count()
        )
        plan = uniform_plan(
            PlanRequest(manifest, self._reader.pack_id, workload, self._target),
            bits=self._bits,
            profile=profile,
            threads=usual if profile is None else None,
            variants=machine.variants if profile is None else None,
        )
        if profile is not None and timed:
            from sti.engine.pinned_plan import check_in_time

            check_in_time(plan, profile, self._bits)
        if self._target.floor_is_limit:
            from sti.engine.pinned_plan import check_floor

            check_floor(plan, manifest, self._bits)
        return plan


class ComparableMaker:
    """Makes one plan for all lengths, from the machine as it was measured.

    Args:
        tokens: of the text that it is made for.
    """

    def __init__(
        self, reader: PackReader, target: Target, machine: Machine, tokens: int | None
    ) -> None:
        self._reader, self._target, self._machine = reader, target, machine
        most = reader.manifest.dimensions.max_tokens
        self._tokens = min(tokens or COMPARABLE_TOKENS, most)
        self.workload = bucket(1, self._tokens, most=most)
        """That the plan is made for."""
        self._plan: Plan | None = None

    def __call__(self, workload: Workload, asked: Workload) -> Plan:
        """The plan: for the workload, or for texts as long as it is made for where that is less.

        Raises:
            InfeasibleError: the latency cannot be met for the text that it is made for.
        """
        if self._plan is None:
            try:
                self._plan = self._planned()
            except InfeasibleError as error:
                if not self._machine.measure_again():
                    raise _explained(error) from error
                self._plan = self._planned()
        tokens = min(workload.tokens, self._plan.workload.tokens)
        return replace(self._plan, workload=Workload(workload.batch, tokens))

    def _planned(self) -> Plan:
        """The planner's choice, remembered or made now."""
        reader, profile = self._reader, self._machine.speeds.profile
        workload = self.workload
        key = {
            "plan": [PLAN_VERSION, PLANNING],
            "version": __version__,
            "pack": reader.pack_id,
            "profile": profile.to_json(),
            "workload": workload._asdict(),
            "target": self._target._asdict(),
        }
        cache = Cache()
        plan = cache.load_plan(key)
        if plan is not None and (plan.workload, plan.target) == (workload, self._target):
            with suppress(PlanError, ProfileError):  # a file that was changed: plan again
                check_plan(plan, reader.manifest, reader.pack_id, where="cached plan")
                check_times(plan, profile, where="cached plan")
                return plan
        # Most starts find their plan, and need none of this.
        from sti.planning.planner import make_plan

        plan = make_plan(
            PlanRequest(
                reader.manifest,
                reader.pack_id,
                workload,
                self._target,
                asked=Workload(1, self._tokens),
            ),
            profile,
        )
        cache.store_plan(key, plan)
        return plan


def _explained(error: InfeasibleError) -> InfeasibleError:
    """With what is particular to embeddings."""
    return InfeasibleError(
        f"{error} (embeddings have one plan for texts of all lengths: `tokens`, --tokens, says for "
        "which it is made; comparable=False, --no-comparable, plans for each)",
        limit=error.limit,
        asked=error.asked,
        needed=error.needed,
    )


def _on_threads(plan: Plan, machine: Machine) -> Plan:
    """The plan on at most the engine's threads, which changes no answer; told where it is fewer."""
    wanted, most = plan.threads.compute, machine.threads
    if wanted <= most:
        return plan
    machine.notify(
        f"the plan computes on {wanted} threads and this engine on {most}: it takes longer than "
        f"predicted; open it with threads={wanted} (--threads {wanted})"
    )
    return replace(plan, threads=shared(most), predicted=None)
