"""What runs over several devices show: of each device, of links, and of a workload everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest

from sti.device.lanes import PIPELINED
from sti.devices.chain import ChainOutcome
from sti.devices.commands import StageReport
from sti.devices.peer import Peer
from sti.devices.peers import Peers
from sti.engine.priced_chains import Asked, PricedChains
from sti.engine.stage_corrections import StageCorrections
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.links import FLOAT32
from sti.planning.stage_times import Member
from sti.planning.strategies import Fleet, Strategy
from tests.planning.test_strategies import fleet_of, plan_of
from tests.support.packs import PROFILE, tiny_pack

WORK, OTHER_WORK = Workload(1, 48), Workload(1, 16)


class KnownPeers:
    """The other devices of ``fleet_of``, ready, as ``Peers`` has them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.named = {member.name: Peer(member.name, "") for member in fleet.members[1:]}
        self.link_ratios: list[float] = []

    @property
    def factors(self) -> tuple[float, ...]:
        return tuple(peer.factor for peer in self.named.values())

    def fleet(self, local: Member, link_type: str) -> Fleet:
        others = (
            member._replace(factor=self.named[member.name].factor)
            for member in self._fleet.members[1:]
        )
        return Fleet((local, *others), self._fleet.links, link_type)

    def learn(self, device: str, report: StageReport, predicted_s: float) -> None:
        self.named[device].learn(report, predicted_s)

    def learn_links(self, devices: set[str], ratio: float) -> None:
        self.link_ratios.append(ratio)


class Lab:
    """Corrections of a machine with two other devices, and runs over one of them."""

    def __init__(self, pack: PackReader, prices: PricedChains) -> None:
        fleet = fleet_of(pack.manifest, 3)
        self._plan, self._prices = plan_of(pack, fleet.members[0].profile), prices
        self.peers = KnownPeers(fleet)
        self.found = StageCorrections(cast(Peers, self.peers), prices, FLOAT32)
        asked = Asked(self._plan, fleet._replace(members=fleet.members[:2]), WORK, (), ())
        found = prices.of(asked, wait=True)
        self._taken = max(found, key=lambda strategy: len(strategy.stages))

    def fleet(self, workload: Workload = WORK) -> Fleet:
        return self.found.fleet(PROFILE, PIPELINED, (), workload)

    def factors(self, workload: Workload = WORK) -> list[float]:
        return [member.factor for member in self.fleet(workload).members]

    def ran(self, times: float, *, units: int = 1, is_lost: bool = False) -> None:
        """A chain took so many times what is predicted without corrections.

        Args:
            is_lost: the other devices are, by now.
        """
        fleet, taken = self.fleet(), self._taken
        reports = self._reports(taken, times)
        total_s = 2.0 * sum(report.total_s for report in reports.values())
        outcome = ChainOutcome((np.zeros(1, np.float32),), (reports,) * units, total_s)
        there = fleet._replace(members=fleet.members[:1]) if is_lost else fleet
        self.found.learn(self._plan, there, WORK, taken, outcome)

    def _reports(self, taken: Strategy, times: float) -> dict[str, StageReport]:
        plain = self.fleet()
        members = tuple(member._replace(factor=1.0) for member in plain.members)
        waits_s = {stage.device: 0.0 for stage in taken.stages}
        expected = self._prices.expected(
            self._plan, plain._replace(members=members), taken, waits_s
        )
        assert expected is not None and len(waits_s) == 2
        return {
            device: StageReport(times * own_s, 0.0, 0) for device, own_s in expected.own_s.items()
        }


@pytest.fixture
def lab() -> Iterator[Lab]:
    with PackReader.open(tiny_pack()) as pack:
        prices = PricedChains(pack.manifest)
        yield Lab(pack, prices)
        prices.close()


def test_nothing_is_corrected_before_runs(lab: Lab) -> None:
    assert lab.factors() == [1.0, 1.0, 1.0]
    assert set(lab.found.factors(WORK)) == {1.0}


def test_the_first_run_of_a_shape_makes_memory_and_shows_nothing(lab: Lab) -> None:
    lab.ran(5.0)
    assert lab.factors() == [1.0, 1.0, 1.0] and not lab.peers.link_ratios
    lab.ran(5.0)
    assert min(lab.factors()) > 1.0 and len(lab.peers.link_ratios) == 1


def test_what_a_workload_takes_everywhere_is_expected_of_it_everywhere(lab: Lab) -> None:
    for _ in range(40):
        lab.ran(3.0)
    common, here, *others = lab.found.factors(WORK)
    assert others[-1] == 1.0  # it never ran
    # Together they say what was seen; what never ran does not seem to be as fast as ever.
    assert lab.factors() == pytest.approx([3.0, 3.0, common], rel=0.1)
    assert lab.factors() == pytest.approx([common * factor for factor in (here, *others)])
    assert common > 1.5
    # Another workload has only what was learned of the devices.
    assert lab.found.factors(OTHER_WORK)[0] == 1.0
    assert lab.factors(OTHER_WORK) == pytest.approx([here, *others])


def test_units_of_a_batch_say_nothing_of_links(lab: Lab) -> None:
    for _ in range(3):
        lab.ran(2.0, units=3)
    assert min(lab.factors()) > 1.0 and not lab.peers.link_ratios


def test_a_run_with_a_device_that_is_lost_by_now_shows_nothing(lab: Lab) -> None:
    for _ in range(3):
        lab.ran(5.0, is_lost=True)
    assert lab.factors() == [1.0, 1.0, 1.0] and not lab.peers.link_ratios
