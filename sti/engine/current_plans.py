"""The target that an engine aims at now: its plans, the preload buffer, and how it has been kept.

In: a target, and the result of each run. Out: the plan of the next run, what the preload buffer is
to hold, what the caller should know. Between runs it prices what texts of other lengths may choose
from. Not thread-safe.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sti.device.profile import DeviceProfile
from sti.engine.health import Health, HealthLog
from sti.engine.machine import Machine
from sti.engine.options import EngineOptions
from sti.engine.plan_store import PlanStore
from sti.engine.prepared import PreparedPlan
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import StiError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.planning.plan import Plan, PlanStep

if TYPE_CHECKING:
    from sti.planning.pricing import PriceList
    from sti.planning.staircases import Staircases

_MOST_LISTS = 3
"""Price lists that are kept: one for each floor that targets had, and one without."""


class CurrentPlans:
    """The plans of the target an engine aims at now, and the preload buffer that follows them.

    Args:
        reader: the pack.
        machine: what it runs on.
        runner: has the preload buffer.
        options: how to run.
    """

    def __init__(
        self, reader: PackReader, machine: Machine, runner: Runner, options: EngineOptions
    ) -> None:
        self._reader, self._machine, self._runner = reader, machine, runner
        self._options = options
        self._held: tuple[PlanStep, ...] | None = None
        self._store: PlanStore | None = None
        self._log: HealthLog | None = None
        self._staircases: Staircases | None = None
        self._prices: dict[float, PriceList] = {}
        self._ahead: DeviceProfile | None = None
        """The machine that lengths are priced ahead for."""
        self._lengths: list[Workload] = []
        """Those that are still to be priced, the next one last."""
        self._told: set[Workload] = set()
        """Workloads whose notice was told."""

    def aim(self, target: TargetSpec) -> Plan:
        """Plan for another target from now on; begins to fill the preload buffer.

        Returns:
            The plan to prepare for.

        Raises:
            InfeasibleError, PlanError, InputError: as ``PlanStore``; everything is as it was.
        """
        store = PlanStore(self._reader, target, self._machine, self._options, self._price_list)
        prepared = store.opening()
        self.hold(prepared)
        self._store, self._log = store, HealthLog(store.limits)
        self._told.clear()
        self._ahead = None
        return prepared.plan

    @property
    def target(self) -> TargetSpec:
        """What is aimed at."""
        return self._current.target

    def plan_for(self, *, batch: int, tokens: int, running: bool = False) -> PreparedPlan:
        """As ``PlanStore.plan_for``, for the current target."""
        return self._current.plan_for(batch=batch, tokens=tokens, running=running)

    def told_of(self, prepared: PreparedPlan) -> list[str]:
        """What the caller should know of a plan, once for each workload."""
        workload = prepared.plan.workload
        if prepared.notice is None or workload in self._told:
            return []
        self._told.add(workload)
        return [prepared.notice]

    def learn(self, prepared: PreparedPlan, result: Result, run_s: float) -> list[str]:
        """Take note of how a run went.

        Args:
            run_s: what it took, without what came before it.

        Returns:
            What the caller should know: that the target is missed too often.
        """
        assert self._log is not None, "nothing was aimed at"
        speeds = self._machine.known
        if prepared.basis is not None and speeds is not None:
            speeds.learn(prepared.plan, prepared.basis, result, run_s)
            self._price_ahead(self._current)
        self._machine.note_run(result.workload)
        warning = self._log.note(result)
        return [] if warning is None else [warning]

    def health(self) -> Health:
        """How runs under the current target went."""
        assert self._log is not None, "nothing was aimed at"
        return self._log.health(replans=self._current.replans)

    def hold(self, prepared: PreparedPlan) -> None:
        """Let the preload buffer follow a plan, if that changes anything."""
        plan = prepared.plan
        wanted = plan.target.preload_bytes or self._held is not None
        if wanted and (plan.steps != self._held or self._runner.hold_failed):
            self._held = plan.steps
            self._runner.hold(prepared.jobs, plan)

    def _price_ahead(self, store: PlanStore) -> None:
        """Price what texts of one more length may choose from, on the storage thread, when nothing
        is to be read. One after each run, so that the next run waits for no more than that.
        """
        speeds = self._machine.known
        if speeds is None or not store.changes:
            return
        if speeds.settled is not self._ahead:
            self._ahead, self._lengths = speeds.settled, store.lengths
        if not self._lengths:
            return
        workload = self._lengths.pop()

        def price() -> None:
            with suppress(StiError):  # told where a run is of this length
                store.price_ahead(workload)

        self._runner.when_idle(price)

    def _price_list(self, most_loss: float) -> PriceList:
        """The pack's staircases up to a loss, to be priced; made once for each such loss."""
        if most_loss not in self._prices:
            if len(self._prices) >= _MOST_LISTS:
                self._prices.clear()
            from sti.engine.staircase_source import staircases_of  # embeddings need no prices
            from sti.planning.pricing import PriceList

            if self._staircases is None:
                self._staircases = staircases_of(self._reader, self._machine.notify)
            found = self._staircases.up_to(most_loss)
            self._prices[most_loss] = PriceList(self._reader.manifest, found)
        return self._prices[most_loss]

    @property
    def _current(self) -> PlanStore:
        assert self._store is not None, "nothing was aimed at"
        return self._store
