"""What runs over several devices show of devices and links, against what was predicted.

In: chains that ran, with the seconds of each of their stages. Out: the ``Fleet`` that plans are
made for, with corrections: of each device, of each link, and of a workload on all devices alike.
For one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.devices.chain import ChainOutcome
from sti.devices.peer import Peer, moved
from sti.devices.peers import Peers
from sti.engine.priced_chains import PricedChains
from sti.model.workload import Workload
from sti.planning.plan import LOCAL, Plan
from sti.planning.stage_times import Member
from sti.planning.stages import Stage
from sti.planning.strategies import Fleet, Strategy

_MOST_KNOWN = 64
"""Workloads, and stages that ran."""


class StageCorrections:
    """The corrections of one engine.

    Args:
        peers: the other devices, which keep their own.
        prices: say what a run was to take.
        link_type: how hidden states travel.
    """

    def __init__(self, peers: Peers, prices: PricedChains, link_type: str) -> None:
        self._peers, self._prices, self._link_type = peers, prices, link_type
        self._here = Peer(LOCAL, "")
        """What runs have shown of this machine's own stages."""
        self._common: dict[Workload, float] = {}
        """What runs of a workload took on any device, over what was predicted."""
        self._ran: set[tuple[tuple[Stage, ...], Workload]] = set()
        """Stages that ran, and sizes of units."""

    def fleet(
        self,
        profile: DeviceProfile,
        threads: LaneThreads,
        others: Sequence[LaneThreads],
        workload: Workload,
    ) -> Fleet:
        """The devices as they are now, for a workload, this machine first.

        Args:
            profile: this machine, as it is now.
            threads: of the plan.
            others: with which this machine could run a stage besides.
        """
        local = Member(LOCAL, profile, threads, others=tuple(others), factor=self._here.factor)
        fleet, common = self._peers.fleet(local, self._link_type), self._common.get(workload, 1.0)
        members = (item._replace(factor=item.factor * common) for item in fleet.members)
        return fleet._replace(members=tuple(members))

    def factors(self, workload: Workload) -> tuple[float, ...]:
        """All that the fleet of a workload is corrected by."""
        return (self._common.get(workload, 1.0), self._here.factor, *self._peers.factors)

    def learn(
        self, plan: Plan, fleet: Fleet, workload: Workload, taken: Strategy, outcome: ChainOutcome
    ) -> None:
        """Correct what is expected of devices and links by what a run took; one of several units
        says nothing of links, as they are not waited for.

        Args:
            fleet: as it is now, for the workload that was run.
        """
        there = {member.name for member in fleet.members}
        if any(stage.device not in there for stage in taken.stages):
            return
        run, alone = (taken.stages, taken.unit), len(outcome.reports) == 1
        if alone and run not in self._ran:  # memory is made then, for its shapes
            if len(self._ran) >= _MOST_KNOWN:
                self._ran.clear()
            self._ran.add(run)
            return
        reports = outcome.reports[len(outcome.reports) // 2]
        waits_s = {device: report.waited_s for device, report in reports.items()}
        expected = self._prices.expected(plan, fleet, taken, waits_s)
        if expected is None:
            return
        own_s = 0.0
        for device, report in reports.items():
            if device == LOCAL:
                self._here.learn(report, expected.own_s[device])
            else:
                self._peers.learn(device, report, expected.own_s[device])
            own_s += report.total_s - report.waited_s
        self._learn_common(workload, own_s, sum(expected.own_s.values()))
        sent_s = outcome.total_s - own_s
        if alone and expected.sends_s > 0.0 and sent_s > 0.0:
            self._peers.learn_links(set(reports), sent_s / expected.sends_s)

    def _learn_common(self, workload: Workload, own_s: float, expected_s: float) -> None:
        """What is expected of a workload is wrong on all devices alike, at first: else each that
        did not run yet would seem to be faster than those that did.
        """
        if expected_s > 0.0:
            common = self._common.pop(workload, 1.0)
            if len(self._common) >= _MOST_KNOWN:
                del self._common[next(iter(self._common))]
            self._common[workload] = moved(common, common * own_s / expected_s)
