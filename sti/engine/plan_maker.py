"""Prices of a pack's staircases, and the plans of those that were chosen, kept for the next run.

In: the pack, the machine as it is, a choice. Out: prices, and plans with the jobs of their steps.
Of targets only the preload and the threads matter to prices, so they are kept whatever the rest.
Thread-safe: what is made on two threads at once is the same, and one of the two is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sti.device.lanes import by_work
from sti.device.profile import DeviceProfile
from sti.engine.prepared import StepJobs
from sti.engine.speeds import Slowed
from sti.engine.staircase_source import staircases_of
from sti.engine.staircases_apart import staircases_apart
from sti.model.workload import Workload
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.planning.choice import Choice, StaircaseSteps, plan_of, steps_of
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.pricing import PriceList, Prices
from sti.planning.step_jobs import StepJob
from sti.planning.variants import variants_of

_MOST_PRICES = 256
"""Workloads whose prices are kept: some 20 KB each."""
_MOST_STEPS = 64
"""Staircases whose steps are kept: workloads often take the same ones."""


def _priced_as(target: Target) -> Target:
    """What prices depend on of a target."""
    return Target(preload_bytes=target.preload_bytes, threads=target.threads)


def _say_nothing(line: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Priced:
    """What runs of a workload may choose from."""

    prices: Prices
    slowed: Slowed
    """The machine that it was priced for."""


@dataclass(frozen=True, slots=True)
class Made:
    """A choice, and its plan."""

    priced: Priced
    choice: Choice
    plan: Plan
    """With the prediction of the lanes alone."""
    jobs: tuple[StepJob, ...]
    lanes_s: Mapping[str, float]
    """What the lanes take by the plan, by work."""

    def is_for(self, priced: Priced, choice: Choice) -> bool:
        """Whether making it again would give the same."""
        return self.priced is priced and choice.runs_as(self.choice)


class PlanMaker:
    """Prices and plans of one pack.

    Args:
        reader: the pack.
        jobs: makes those of plans' steps.
        notify: told where the staircases that the pack brings along cannot be used.
        is_limited: whether memory of this process is limited.
    """

    def __init__(
        self,
        reader: PackReader,
        jobs: StepJobs,
        notify: Notify,
        is_limited: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_limited = is_limited
        self._reader, self._notify = reader, notify
        self._manifest, self._pack_id, self._jobs = reader.manifest, reader.pack_id, jobs
        self._known_list: PriceList | None = None
        self._priced: dict[tuple[Workload, Target], Priced] = {}
        self._steps: dict[tuple[int, int, Sequence[str]], list[StaircaseSteps]] = {}

    def forget(self) -> None:
        """Give back the memory of what is kept; it is made anew."""
        self._known_list = None
        self._jobs.forget()
        self.forget_prices()

    def forget_prices(self) -> None:
        """The same of prices and steps alone."""
        self._priced.clear()
        self._steps.clear()

    @property
    def _list(self) -> PriceList:
        found = self._known_list
        if found is None:
            apart = staircases_apart if self._is_limited() else None
            found = PriceList(self._manifest, staircases_of(self._reader, self._notify, apart))
            self._known_list, self._notify = found, _say_nothing  # it was told once
        return found

    def known(self, workload: Workload, target: Target) -> Priced | None:
        """What was priced last for a workload, with the preload and threads of a target."""
        return self._priced.get((workload, _priced_as(target)))

    def price(self, workload: Workload, target: Target, slowed: Slowed) -> Priced:
        """Price a workload, and keep it."""
        return self.price_all([workload], target, slowed)[0]

    def price_all(
        self, workloads: Sequence[Workload], target: Target, slowed: Slowed
    ) -> list[Priced]:
        """Price several workloads, and keep them."""
        each = self._list.price_all(slowed.profile, workloads, target.preload_bytes, target.threads)
        if len(self._priced) + len(each) > _MOST_PRICES:
            self._priced.clear()
        found = [Priced(prices, slowed) for prices in each]
        for workload, priced in zip(workloads, found, strict=True):
            self._priced[workload, _priced_as(target)] = priced
        return found

    def price_once(self, profile: DeviceProfile, workload: Workload, target: Target) -> Prices:
        """Price a workload for another machine or preload."""
        return self._list.price(profile, workload, target.preload_bytes, target.threads)

    def make(self, workload: Workload, priced: Priced, choice: Choice, target: Target) -> Made:
        """The plan of a choice from what was priced for a workload."""
        profile = priced.slowed.profile
        request = PlanRequest(self._manifest, self._pack_id, workload, target)
        steps = self._steps_of(choice.staircase, target.preload_bytes, profile)
        plan = plan_of(request, profile, choice, steps)
        assert plan.predicted is not None, "plans that are chosen are predicted"
        lanes_s = by_work(plan.predicted.busy_s)
        return Made(priced, choice, plan, self._jobs.of(plan), lanes_s)

    def _steps_of(
        self, staircase: int, preload_bytes: int, profile: DeviceProfile
    ) -> list[StaircaseSteps]:
        variants = variants_of(self._manifest, profile)
        key = staircase, preload_bytes, variants
        found = self._steps.get(key)
        if found is None:
            if len(self._steps) >= _MOST_STEPS:
                self._steps.clear()
            staircases = self._list.staircases
            found = steps_of(self._manifest, staircases, staircase, preload_bytes, variants)
            self._steps[key] = found
        return found
