"""Who tells, while a run is under way, which planes would come too late.

In: the plan of a run and when its answer is due. Out: a ``Watch``; none where nothing may be left
out, or there is no prediction to tell by. Remembers what is left to do from each step of the last
few plans on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sti.device.lanes import LaneThreads
from sti.model.manifest import Manifest
from sti.planning.downgrade import Adapt
from sti.planning.plan import Plan

if TYPE_CHECKING:
    from sti.planning.deadlines import Watch
    from sti.planning.remainder import Remainder

_KNOWN_PLANS = 8
"""Plans whose remainders are remembered."""


class Watches:
    """The watches of one engine's runs. Not thread-safe.

    Args:
        manifest: of the pack.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._remainders: list[Remainder] = []

    def of(self, plan: Plan, threads: LaneThreads, adapt: Adapt) -> Watch | None:
        """The watch of a run on these threads; None where it has no deadline, its plan no
        prediction, or the run other threads than its plan.
        """
        if adapt.deadline is None or plan.predicted is None or threads != plan.threads:
            return None
        from sti.planning.deadlines import Watch  # many runs have no deadline
        from sti.planning.remainder import Remainder

        known = next((found for found in self._remainders if found.is_of(plan)), None)
        if known is None:
            known = Remainder(plan, self._manifest)
            self._remainders = [known, *self._remainders[: _KNOWN_PLANS - 1]]
        return Watch(known, adapt.deadline, floor=adapt.floor)

    def forget(self) -> None:
        """Give back what is remembered."""
        self._remainders.clear()
