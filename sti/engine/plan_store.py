"""Chooses each workload's plan (planned, uniform, pinned or remembered), and what to preload.

In: what the caller asked for (``TargetSpec``), the pack's manifest, a source of the device profile.
Out: plans and their step jobs; and what the preload buffer should hold for the next run (the last
plan's leading steps). What the planner made is remembered between runs
(``sti.calibration.cache``): on a small machine planning can take longer than answering. Every
target gets a ``PlanStore`` of its own, so that an infeasible one leaves the engine unchanged. Not
thread-safe.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from sti.backend.interface import Backend
from sti.calibration.cache import Cache
from sti.calibration.calibrate import load_or_measure
from sti.device import host
from sti.device.lanes import shared
from sti.device.memory_limit import check_memory
from sti.device.profile import DeviceProfile
from sti.engine.options import EngineOptions
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, PlanError
from sti.model.workload import TOKEN_BUCKETS, Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.planning.check import check_plan
from sti.planning.lane_threads import usual_threads
from sti.planning.plan import PLAN_VERSION, PLANNING, Plan, PlanRequest, PlanStep
from sti.planning.step_jobs import StepJob, prepare_step
from sti.version import __version__

_OPENING_TOKENS = 32

PreparedPlan = tuple[Plan, tuple[StepJob, ...]]


class ProfileSource:
    """The device profile of one engine: given, or measured when it is first asked for.

    Not thread-safe, and not to be asked while ``backend`` computes.
    """

    def __init__(
        self, reader: PackReader, backend: Backend, options: EngineOptions, *, threads: int
    ) -> None:
        self._reader, self._backend, self.notify = reader, backend, options.notify
        self.variants = backend.variants
        """How products may be computed where no profile says it."""
        self.threads = threads
        """Compute threads in use; the profile is one for this many."""
        self.known = options.profile
        """The profile, if there is one already."""

    def get(self) -> DeviceProfile:
        """The profile, from the cache or measured if need be."""
        if self.known is None:
            self.known = load_or_measure(
                self._reader, self._backend, threads=self.threads, notify=self.notify
            )
        return self.known


class PlanStore:
    """The plans for one target.

    Args:
        reader: the pack.
        target: what the caller asked for.
        profiles: the device profile, and the compute threads in use.

    Raises:
        InfeasibleError: the preload buffer is larger than memory allows.
        PlanError: a pinned plan cannot be read or does not fit the pack.
    """

    def __init__(self, reader: PackReader, target: TargetSpec, profiles: ProfileSource) -> None:
        self.target = target
        """What the caller asked for."""
        self._reader = reader
        self._profiles = profiles
        self._made: dict[Workload, PreparedPlan] = {}
        self._jobs: dict[tuple[PlanStep, int], StepJob] = {}
        self._limits = target.limits()
        _check_preload(self._limits.preload_bytes)
        self._pinned = None
        if target.plan is not None:
            from sti.engine.pinned_plan import read_plan  # few targets bring a plan

            pinned = read_plan(target.plan, reader.manifest, reader.pack_id)
            self._pinned = _with_threads(pinned, profiles)
            _check_preload(self._pinned.target.preload_bytes)

    def plan_for(self, *, batch: int, tokens: int) -> PreparedPlan:
        """The plan for ``batch`` sentences of ``tokens`` tokens, and its jobs.

        Raises:
            InfeasibleError: the target cannot be met for them.
        """
        workload = bucket(batch, tokens, most=self._reader.manifest.dimensions.max_tokens)
        if workload not in self._made:
            plan = self._make(workload)
            jobs = tuple(self._job(item, plan.width) for item in plan.steps)
            self._made[workload] = plan, jobs
        return self._made[workload]

    def opening(self) -> PreparedPlan:
        """The plan to prepare for before any text is known: one sentence of usual length.

        Raises:
            InfeasibleError: the target cannot be met even for the shortest text.
        """
        most = self._reader.manifest.dimensions.max_tokens
        try:
            return self.plan_for(batch=1, tokens=min(_OPENING_TOKENS, most))
        except InfeasibleError:
            return self.plan_for(batch=1, tokens=min(TOKEN_BUCKETS[0], most))

    def _job(self, item: PlanStep, width: int) -> StepJob:
        """A step's job; plans for different workloads share those they have in common."""
        key = item, width
        if key not in self._jobs:
            group = self._reader.manifest.group(item.layer, item.kind, item.group)
            offset = self._reader.group_offset(group)
            self._jobs[key] = prepare_step(item, group, offset, width=width)
        return self._jobs[key]

    def _make(self, workload: Workload) -> Plan:
        if self._pinned is not None:
            return self._pinned
        if self.target.fidelity is not None:
            return self._uniform(workload, self.target.fidelity)
        return self._planned(workload)

    def _planned(self, workload: Workload) -> Plan:
        """The planner's choice, remembered or made now."""
        reader, profile = self._reader, self._profiles.get()
        key = {
            "plan": [PLAN_VERSION, PLANNING],
            "version": __version__,
            "pack": reader.pack_id,
            "profile": profile.to_json(),
            "workload": workload._asdict(),
            "target": self._limits._asdict(),
        }
        cache = Cache()
        plan = cache.load_plan(key)
        if plan is not None and (plan.workload, plan.target) == (workload, self._limits):
            with suppress(PlanError):  # a file that was changed: plan again
                check_plan(plan, reader.manifest, reader.pack_id, where="cached plan")
                return plan
        # Most starts find their plan, and need none of this.
        from sti.planning.planner import make_plan

        plan = make_plan(
            PlanRequest(reader.manifest, reader.pack_id, workload, self._limits), profile
        )
        cache.store_plan(key, plan)
        return plan

    def _uniform(self, workload: Workload, bits: int) -> Plan:
        """Every shard at ``bits``; measures the machine only where a latency has to be kept."""
        timed = self._limits.latency_s is not None
        profile = self._profiles.get() if timed else self._profiles.known
        from sti.planning.uniform import uniform_plan  # not needed by planned targets

        manifest = self._reader.manifest
        usual = usual_threads(
            manifest, workload.tokens, compute=self._profiles.threads, cores=host.core_count()
        )
        plan = uniform_plan(
            PlanRequest(manifest, self._reader.pack_id, workload, self._limits),
            bits=bits,
            profile=profile,
            threads=usual if profile is None else None,
            variants=self._profiles.variants if profile is None else None,
        )
        if profile is not None and timed:
            from sti.engine.pinned_plan import check_in_time

            check_in_time(plan, profile, bits)
        return plan


class CurrentPlans:
    """The plans of the target an engine aims at now, and the preload buffer that follows them.

    Args:
        reader: the pack.
        profiles: the device profile.
        runner: has the preload buffer.
    """

    def __init__(self, reader: PackReader, profiles: ProfileSource, runner: Runner) -> None:
        self._reader, self._profiles, self._runner = reader, profiles, runner
        self._held: Plan | None = None
        self._store: PlanStore | None = None

    def aim(self, target: TargetSpec) -> Plan:
        """Plan for another target from now on; begins to fill the preload buffer.

        Returns:
            The plan to prepare for.

        Raises:
            InfeasibleError, PlanError, InputError: as ``PlanStore``; everything is as it was.
        """
        store = PlanStore(self._reader, target, self._profiles)
        prepared = store.opening()
        self.hold(prepared)
        self._store = store
        return prepared[0]

    @property
    def target(self) -> TargetSpec:
        """What is aimed at."""
        return self._current.target

    def plan_for(self, *, batch: int, tokens: int) -> PreparedPlan:
        """As ``PlanStore.plan_for``, for the current target."""
        return self._current.plan_for(batch=batch, tokens=tokens)

    def hold(self, prepared: PreparedPlan) -> None:
        """Let the preload buffer follow a plan, if that changes anything."""
        plan, jobs = prepared
        wanted = plan.target.preload_bytes or self._held is not None
        if wanted and (plan is not self._held or self._runner.hold_failed):
            self._held = plan
            self._runner.hold(jobs, plan)

    @property
    def _current(self) -> PlanStore:
        assert self._store is not None, "nothing was aimed at"
        return self._store


def _with_threads(plan: Plan, profiles: ProfileSource) -> Plan:
    """The plan on at most the engine's threads, which changes no answer; told where it is fewer."""
    wanted, most = plan.threads.compute, profiles.threads
    if wanted <= most:
        return plan
    profiles.notify(
        f"the plan computes on {wanted} threads and this engine on {most}: it takes longer than "
        f"predicted; open it with threads={wanted} (--threads {wanted})"
    )
    return replace(plan, threads=shared(most), predicted=None)


def _check_preload(preload_bytes: int) -> None:
    if preload_bytes:
        what = "a preload buffer takes"
        check_memory(preload_bytes, what=what, remedy="ask for less", limit="preload")
