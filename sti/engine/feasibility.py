"""Whether a target can be met for a workload: on the machine as it was measured, or with more held.

In: a workload, prices of a pack's staircases. Out: whether it is feasible, and the error to raise
where it is not. Not thread-safe.
"""

from __future__ import annotations

import math
from pathlib import Path

from sti.device.profile import DeviceProfile
from sti.engine.conditions import terms_now
from sti.engine.machine import Machine
from sti.engine.plan_maker import PlanMaker
from sti.engine.refusals import least_preload, too_slow
from sti.errors import InfeasibleError
from sti.model.workload import Workload
from sti.planning.choice import Terms, choose, fastest
from sti.planning.conditions import as_measured
from sti.planning.plan import Target
from sti.planning.pricing import Prices


def least_s(prices: Prices, terms: Terms) -> float:
    """The least latency that can be promised; infinite where there is nothing to run."""
    found = fastest(prices, terms)
    return math.inf if found is None else found.promised_s


class Feasibility:
    """Of one target.

    Args:
        maker: prices the pack.
        most_loss: expected loss at the floor.
        pack_bytes: of all slice groups.
        path: of the pack, for messages.
    """

    def __init__(
        self,
        maker: PlanMaker,
        target: Target,
        machine: Machine,
        *,
        most_loss: float,
        pack_bytes: int,
        path: Path,
    ) -> None:
        self._maker, self._target, self._machine = maker, target, machine
        self._most_loss, self._pack_bytes, self._path = most_loss, pack_bytes, path
        self._known: dict[Workload, tuple[DeviceProfile, bool]] = {}

    def forget(self) -> None:
        """Give back the memory of what was found; it is found anew."""
        self._known.clear()

    def as_measured(self, workload: Workload) -> bool:
        """Whether something above the floor is in time where nothing has changed since the machine
        was measured; it is measured anew where not.
        """
        if self._in_time_as_measured(workload):
            return True
        return self._machine.measure_again() and self._in_time_as_measured(workload)

    def too_slow(self, workload: Workload, asked: Workload, needed_s: float) -> InfeasibleError:
        """The error that says what would do: a latency, or a preload.

        Args:
            asked: what the caller asked for.
            needed_s: the least latency that can be promised.
        """

        def in_time(preload_bytes: int) -> bool:
            speeds, latency_s = self._machine.speeds, self._target.latency_s
            target = self._target._replace(preload_bytes=preload_bytes)
            prices = self._maker.price_once(speeds.now, workload, target)
            names = [threads.name for threads in prices.threads]
            terms = terms_now(speeds, self._target, workload, names)
            return latency_s is None or least_s(prices, terms) <= latency_s

        return too_slow(
            asked,
            self._target,
            needed_s,
            path=self._path,
            preload_bytes=least_preload(self._pack_bytes, self._target.preload_bytes, in_time),
            measured=self._machine.is_measured,
        )

    def _in_time_as_measured(self, workload: Workload) -> bool:
        profile, target = self._machine.speeds.profile, self._target
        known = self._known.get(workload)
        if known is not None and known[0] is profile:
            return known[1]
        prices = self._maker.price_once(profile, workload, target)
        terms = as_measured(profile, workload, target).terms
        found = choose(prices, terms._replace(most_loss=self._most_loss)) is not None
        self._known[workload] = profile, found
        return found
