"""Which plan is current: one for each workload bucket, made for one target, kept.

In: what the caller asked for (``TargetSpec``), the pack's manifest, a source of the device profile.
Out: plans and their block jobs. What the planner made is remembered between runs
(``sti.calibration.cache``): on a small machine planning can take longer than answering. An engine
that aims at another target gets another ``PlanStore``, so that a target that cannot be met leaves
everything as it was. Not thread-safe.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

from sti.backend.interface import Backend
from sti.calibration.cache import Cache
from sti.calibration.calibrate import load_or_measure
from sti.device import host
from sti.device.memory_limit import check_memory
from sti.device.profile import DeviceProfile
from sti.engine.pinned_plan import check_in_time, read_plan
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, PlanError
from sti.model.workload import TOKEN_BUCKETS, Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.check import check_plan
from sti.planning.jobs import BlockJob, prepare_block
from sti.planning.plan import PLAN_VERSION, PLANNING, Plan, PlanStep, Target
from sti.planning.uniform import uniform_plan
from sti.version import __version__

_OPENING_TOKENS = 32

PreparedPlan = tuple[Plan, tuple[BlockJob, ...]]


class ProfileSource:
    """The device profile of one engine: given, or measured when it is first asked for.

    Not thread-safe, and not to be asked while ``backend`` computes.
    """

    def __init__(
        self, reader: PackReader, backend: Backend, *, threads: int, given: DeviceProfile | None
    ) -> None:
        self._reader, self._backend, self._threads = reader, backend, threads
        self.known = given
        """The profile, if there is one already."""

    def get(self) -> DeviceProfile:
        """The profile, from the cache or measured if need be."""
        if self.known is None:
            self.known = load_or_measure(self._reader, self._backend, threads=self._threads)
        return self.known


class PlanStore:
    """The plans for one target.

    Args:
        reader: the pack.
        settings: what the caller asked for.
        threads: compute threads in use.
        profiles: the device profile.

    Raises:
        InfeasibleError: the preload buffer is larger than memory allows.
        PlanError: a pinned plan cannot be read or does not fit the pack.
    """

    def __init__(
        self,
        reader: PackReader,
        settings: TargetSpec,
        *,
        threads: int,
        profiles: ProfileSource,
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._threads = threads
        self._profiles = profiles
        self._made: dict[Workload, PreparedPlan] = {}
        self._jobs: dict[PlanStep, BlockJob] = {}
        self._stored = {(block.layer, block.kind): block for block in reader.manifest.blocks}
        preload_bytes = settings.preload_bytes or 0
        _check_preload(preload_bytes)
        self._target = Target(settings.latency_s, preload_bytes)
        self._pinned = None
        if settings.plan is not None:
            self._pinned = read_plan(settings.plan, reader.manifest, reader.pack_id)
            _check_preload(self._pinned.target.preload_bytes)

    def plan_for(self, *, batch: int, tokens: int) -> PreparedPlan:
        """The plan for ``batch`` sentences of ``tokens`` tokens, and its jobs.

        Raises:
            InfeasibleError: the target cannot be met for them.
        """
        workload = bucket(batch, tokens, most=self._reader.manifest.dimensions.max_tokens)
        if workload not in self._made:
            plan = self._make(workload)
            self._made[workload] = plan, tuple(self._job(item) for item in plan.steps)
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

    def _job(self, item: PlanStep) -> BlockJob:
        """A block's job; plans for different workloads share those they have in common."""
        if item not in self._jobs:
            block = self._stored[item.layer, item.kind]
            self._jobs[item] = prepare_block(item, block, self._reader.block_offset(block.tensor))
        return self._jobs[item]

    def _make(self, workload: Workload) -> Plan:
        if self._pinned is not None:
            return self._pinned
        if self._settings.fidelity is not None:
            return self._uniform(workload, self._settings.fidelity)
        return self._planned(workload)

    def _planned(self, workload: Workload) -> Plan:
        """The planner's choice, remembered or made now."""
        reader, profile = self._reader, self._profiles.get()
        key = {
            "plan": [PLAN_VERSION, PLANNING],
            "version": __version__,
            "pack": reader.pack_id,
            "profile": profile.to_json(),
            "workload": asdict(workload),
            "target": asdict(self._target),
        }
        cache = Cache()
        plan = cache.load_plan(key)
        if plan is not None and (plan.workload, plan.target) == (workload, self._target):
            with suppress(PlanError):  # who changed the file gets another plan
                check_plan(plan, reader.manifest, reader.pack_id, where="cached plan")
                return plan
        from sti.planning.planner import (
            make_plan,  # most starts find their plan, and need none of it
        )

        plan = make_plan(reader.manifest, reader.pack_id, profile, workload, self._target)
        cache.store_plan(key, plan)
        return plan

    def _uniform(self, workload: Workload, bits: int) -> Plan:
        """Every shard at ``bits``; measures the machine only where a latency has to be kept."""
        timed = self._target.latency_s is not None
        profile = self._profiles.get() if timed else self._profiles.known
        plan = uniform_plan(
            self._reader.manifest,
            self._reader.pack_id,
            workload,
            bits=bits,
            target=self._target,
            profile=profile,
            decode_threads=max(1, host.core_count() - self._threads),
        )
        if profile is not None and timed:
            check_in_time(plan, profile, bits)
        return plan


def _check_preload(preload_bytes: int) -> None:
    if preload_bytes:
        what = "a preload buffer takes"
        check_memory(preload_bytes, what=what, remedy="ask for less", limit="preload")
