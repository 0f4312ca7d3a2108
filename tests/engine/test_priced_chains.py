"""Chains are priced once, between runs, and again where what runs show has changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sti.engine.priced_chains import Asked, PricedChains
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import LOCAL
from tests.planning.test_strategies import fleet_of, plan_of
from tests.support.packs import tiny_pack
from tests.support.processes import until

WORK = Workload(1, 48)


@pytest.fixture(scope="module")
def pack() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


@pytest.fixture
def prices(pack: PackReader) -> Iterator[PricedChains]:
    made = PricedChains(pack.manifest)
    yield made
    made.close()


def asked(pack: PackReader, *, factor: float = 1.0, met: int = 1) -> Asked:
    fleet = fleet_of(pack.manifest, 2)
    local, other = fleet.members
    fleet = fleet._replace(members=(local, other._replace(factor=factor)))
    plan = plan_of(pack, local.profile)
    return Asked(plan, fleet, WORK, ((other.name, met),), (factor,))


def test_a_run_does_not_wait_for_prices(pack: PackReader, prices: PricedChains) -> None:
    wanted = asked(pack)
    assert prices.of(wanted, wait=False) == []
    assert prices.of(wanted, wait=False) == []
    prices.between_runs()
    until(lambda: bool(prices.of(wanted, wait=False)))
    assert prices.of(wanted, wait=False) == prices.of(wanted, wait=True)


def test_prices_follow_corrections(pack: PackReader, prices: PricedChains) -> None:
    before = prices.of(asked(pack), wait=True)[0].total_s
    assert prices.of(asked(pack, factor=1.05), wait=False)[0].total_s == before
    # Changed by more, they are priced for later; by much more, at once.
    later = asked(pack, factor=1.3)
    assert prices.of(later, wait=False)[0].total_s == before
    prices.between_runs()
    until(lambda: prices.of(later, wait=False)[0].total_s > before)
    much = prices.of(asked(pack, factor=8.0), wait=False)[0].total_s
    assert much > prices.of(later, wait=True)[0].total_s


def test_a_device_that_was_met_again_is_priced_anew(pack: PackReader, prices: PricedChains) -> None:
    assert prices.of(asked(pack), wait=True)
    assert prices.of(asked(pack, met=2), wait=False) == []


def test_devices_that_lost_each_other_are_priced_anew(
    pack: PackReader, prices: PricedChains
) -> None:
    wanted = asked(pack)
    assert prices.of(wanted, wait=True)
    apart = wanted._replace(fleet=wanted.fleet._replace(links={}))
    assert prices.of(apart, wait=False) == []


def test_devices_that_were_not_measured_with_the_plan_are_told(
    pack: PackReader, prices: PricedChains
) -> None:
    wanted = asked(pack)
    local, other = wanted.fleet.members
    lacking = other._replace(
        profile=other.profile.__class__(
            **{
                **{name: getattr(other.profile, name) for name in other.profile.__slots__},
                "runs": {},
            }
        )
    )
    fleet = wanted.fleet._replace(members=(local, lacking))
    assert prices.of(wanted._replace(fleet=fleet), wait=True) == []
    assert set(prices.take_refused()) == {other.name} - {LOCAL}
    assert prices.take_refused() == {}
