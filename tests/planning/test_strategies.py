"""Which devices a run uses: prices of chains, and what is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations
from random import Random

import pytest

from sti.device.lanes import PIPELINED, shared
from sti.device.profile import DeviceProfile
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.links import FLOAT16, FLOAT32, INT8, Link, hidden_bytes
from sti.planning.plan import LOCAL, Plan, PlanRequest
from sti.planning.prediction import predict
from sti.planning.stage_times import Member
from sti.planning.stages import Stage, layers_of
from sti.planning.strategies import (
    CHAIN,
    KEPT,
    WORTH,
    ChainPricing,
    Fleet,
    KnownTimes,
    believed_s,
    chains,
    chosen,
    local_strategy,
    why_not,
)
from sti.planning.uniform import uniform_plan
from tests.support.packs import tiny_pack
from tests.support.synthetic import make_profile

WORK = Workload(1, 48)
FAST = Link(1e-4, 1e9)


@pytest.fixture(scope="module")
def pack() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


def profile_of(manifest: Manifest, seed: int, *, rate: float = 1e6) -> DeviceProfile:
    """Of a device on which reading takes about as long as computing."""
    kinds = (PIPELINED, shared(1))
    return make_profile(Random(seed), ladder=manifest.ladder, kinds=kinds, bytes_per_s=rate)


def plan_of(pack: PackReader, profile: DeviceProfile, work: Workload = WORK) -> Plan:
    request = PlanRequest(pack.manifest, pack.pack_id, work)
    plan = replace(uniform_plan(request, bits=4), threads=PIPELINED)
    return replace(plan, predicted=predict(pack.manifest, profile, plan))


def fleet_of(manifest: Manifest, count: int, seed: int = 0, link: Link = FAST) -> Fleet:
    names = [LOCAL, *(f"w{number}" for number in range(1, count))]
    members = tuple(
        Member(name, profile_of(manifest, seed + number), PIPELINED)
        for number, name in enumerate(names)
    )
    links = {(one, other): link for one in names for other in names if one != other}
    return Fleet(members, links)


def every_chain(layers: tuple[int, ...], names: list[str]) -> Iterator[tuple[Stage, ...]]:
    for size in range(1, len(names) + 1):
        for order in permutations(names, size):
            for ends in combinations(range(1, len(layers)), size - 1):
                bounds = [0, *ends, len(layers)]
                stages = tuple(
                    Stage(name, layers[bounds[at]], layers[bounds[at + 1] - 1])
                    for at, name in enumerate(order)
                )
                if order != (LOCAL,):
                    yield stages


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("link", [FAST, Link(2e-3, 1e7)], ids=["fast", "slow"])
def test_the_chain_of_least_latency_is_about_the_best_there_is(
    pack: PackReader, seed: int, link: Link
) -> None:
    fleet = fleet_of(pack.manifest, 3, seed, link)
    plan = plan_of(pack, fleet.members[0].profile)
    found = chains(pack.manifest, plan, fleet, WORK)[0]
    pricing = ChainPricing(pack.manifest, plan, fleet, WORK)
    names = [member.name for member in fleet.members]
    best_s = min(
        pricing.strategy(stages, 1).total_s for stages in every_chain(layers_of(plan), names)
    )
    # The search takes a stage to end when the later of storage and compute lets it, which is a bit
    # sooner than the simulation that prices it.
    assert best_s <= found.total_s <= 1.1 * best_s


def test_storage_of_several_devices_adds_up(pack: PackReader) -> None:
    slow = profile_of(pack.manifest, 0, rate=2e5)
    members = tuple(Member(name, slow, PIPELINED) for name in (LOCAL, "board"))
    links = {(LOCAL, "board"): FAST, ("board", LOCAL): FAST}
    plan = plan_of(pack, slow)
    assert plan.predicted is not None
    found = chains(pack.manifest, plan, Fleet(members, links), WORK)[0]
    assert found.total_s * 1.4 < plan.predicted.total_s
    assert sum(found.read_bytes.values()) == plan.predicted.bytes_read


def test_more_texts_keep_all_devices_busy(pack: PackReader) -> None:
    work = Workload(8, 48)
    fleet = fleet_of(pack.manifest, 2)
    same = fleet.members[0]._replace(name="w1")
    fleet = fleet._replace(members=(fleet.members[0], same))
    plan = plan_of(pack, same.profile, work)
    found = chains(pack.manifest, plan, fleet, work)
    assert max(item.units for item in found) > 1
    assert all(item.unit.batch * item.units >= work.batch for item in found)


def test_this_machine_alone_is_taken_unless_others_are_worth_it(pack: PackReader) -> None:
    fleet = fleet_of(pack.manifest, 2)
    plan = plan_of(pack, fleet.members[0].profile)
    best = chains(pack.manifest, plan, fleet, WORK)[0]
    for share, name in ((WORTH * 1.01, CHAIN), (WORTH * 0.99, LOCAL), (0.5, LOCAL)):
        alone = local_strategy(pack.manifest, plan, best.total_s * share, WORK)
        taken = chosen([alone, best])
        assert taken.name == name
        assert why_not(taken, taken) == ""
        assert why_not(best if taken is alone else alone, taken)
    assert chosen([alone, best], CHAIN) is best
    assert chosen([alone], CHAIN) is alone
    assert chosen([alone, best], LOCAL) is alone


def test_devices_without_room_or_layers_are_left_out(pack: PackReader) -> None:
    fleet = fleet_of(pack.manifest, 2)
    plan = plan_of(pack, fleet.members[0].profile)
    last = layers_of(plan)[-1]
    local, other = fleet.members
    small = fleet._replace(members=(local, other._replace(room_bytes=1)))
    assert chains(pack.manifest, plan, small, WORK) == []
    part = fleet._replace(members=(local, other._replace(first=last, last=last)))
    found = chains(pack.manifest, plan, part, WORK)
    assert {item.stages for item in found} == {
        (Stage(LOCAL, 0, last - 1), Stage(other.name, last, last))
    }
    apart = fleet._replace(links={})
    assert chains(pack.manifest, plan, apart, WORK) == []


def test_a_room_that_is_short_takes_less_ahead(pack: PackReader) -> None:
    fleet = fleet_of(pack.manifest, 2)
    plan = plan_of(pack, fleet.members[0].profile)
    layers = layers_of(plan)
    stage = Stage("w1", layers[1], layers[-1])
    ample = ChainPricing(pack.manifest, plan, fleet, WORK)
    whole = ample.strategy((Stage(LOCAL, 0, 0), stage), 1)
    room = whole.memory_bytes["w1"] * 2 // 3
    members = (fleet.members[0], fleet.members[1]._replace(room_bytes=room))
    short = ChainPricing(pack.manifest, plan, fleet._replace(members=members), WORK)
    less = short.strategy((Stage(LOCAL, 0, 0), stage), 1)
    assert less.memory_bytes["w1"] <= room
    assert less.parts[1].read_ahead < whole.parts[1].read_ahead
    assert less.total_s >= whole.total_s


def test_numbers_on_links_take_their_bytes() -> None:
    assert hidden_bytes(10, 384, FLOAT32) == 10 * 384 * 4
    assert hidden_bytes(10, 384, FLOAT16) == 10 * 384 * 2
    assert hidden_bytes(10, 384, INT8) == 10 * (384 + 4)


def test_what_rounded_numbers_cost_is_told(pack: PackReader) -> None:
    found = {}
    for link_type in (FLOAT32, FLOAT16, INT8):
        fleet = fleet_of(pack.manifest, 2)._replace(link_type=link_type)
        plan = plan_of(pack, fleet.members[0].profile)
        cuts = (Stage(LOCAL, 0, 0), Stage("w1", 1, layers_of(plan)[-1]))
        found[link_type] = ChainPricing(pack.manifest, plan, fleet, WORK).strategy(cuts, 1)
    assert found[FLOAT32].cosine == 1.0 > found[FLOAT16].cosine > found[INT8].cosine > 0.99
    assert found[FLOAT32].sent_bytes > found[FLOAT16].sent_bytes > found[INT8].sent_bytes


def test_some_of_the_slowness_of_this_machine_is_taken_to_pass() -> None:
    assert believed_s(0.8, 1.0, 0.0) == 0.8
    assert believed_s(4.0, 1.0, 0.0) == pytest.approx(2.0)
    assert believed_s(4.0, 1.0, 10.0) == pytest.approx(2.0**0.5)
    assert believed_s(4.0, 1.0, 1e4) == pytest.approx(1.0)


def test_a_chain_that_devices_are_ready_for_stays_unless_another_one_is_much_better(
    pack: PackReader,
) -> None:
    profile = profile_of(pack.manifest, 1)
    plan, known = plan_of(pack, profile), KnownTimes()
    alike = tuple(Member(name, profile, PIPELINED) for name in (LOCAL, "w1", "w2"))
    fleet = fleet_of(pack.manifest, 3)._replace(members=alike)
    pricing = ChainPricing(pack.manifest, plan, fleet, WORK, known)
    best = chains(pack.manifest, plan, fleet, WORK, known)[0]
    stayed = set()
    for stages in every_chain(layers_of(plan), [LOCAL, "w1", "w2"]):
        kept = pricing.strategy(stages, 1)
        found = chains(pack.manifest, plan, fleet, WORK, known, kept)
        stays = found[0].stages == stages
        assert stays is (kept.total_s <= KEPT * best.total_s)
        assert stays or found[0] == best
        stayed.add(stays)
    assert stayed == {True, False}
    nobody = fleet._replace(members=alike[:1])
    assert chains(pack.manifest, plan, nobody, WORK, known, kept) == []
