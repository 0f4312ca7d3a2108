"""What the time of a run is made of: it adds up, and agrees with the prediction."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from sti.device.lanes import LANES, PIPELINED, SEQUENTIAL, LaneThreads, by_work, shared
from sti.errors import PlanError
from sti.model.workload import Workload
from sti.planning.choice import Terms
from sti.planning.conditions import Conditions, as_measured
from sti.planning.extra_time import Extra
from sti.planning.lane_limits import WAITING, lane_limits
from sti.planning.plan import PlanRequest, Target
from sti.planning.uniform import uniform_plan
from tests.support.synthetic import MACHINES, make_machine, make_manifest

KINDS = (SEQUENTIAL, PIPELINED, shared(2), shared(3))
WORKLOAD = Workload(1, 32)
MANIFEST = make_manifest(Random(7), layers=3, slices=6, groups=(1, 3))


@pytest.mark.parametrize("threads", KINDS, ids=lambda threads: f"{threads.name}{threads.compute}")
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("preload", [0, 400_000, 10**9])
def test_the_parts_of_a_run_add_up(name: str, threads: LaneThreads, preload: int) -> None:
    profile = make_machine(name, (threads,))
    request = PlanRequest(MANIFEST, "pack", WORKLOAD, Target(preload_bytes=preload))
    plan = uniform_plan(request, bits=4, profile=profile, threads=threads)
    predicted = plan.predicted
    assert predicted is not None
    found = lane_limits(MANIFEST, plan, as_measured(profile, WORKLOAD, plan.target))
    assert tuple(found.lanes) == LANES
    assert found.total_s == pytest.approx(predicted.total_s)
    chain_s = sum(use.path_s for use in found.lanes.values())
    assert chain_s + found.text_s + found.beyond_s == pytest.approx(found.total_s)
    assert found.beyond_s == pytest.approx(profile.run(threads).fixed_s)
    if found.limited_by == WAITING:
        assert found.beyond_s > max(use.path_s for use in found.lanes.values())
    else:
        assert found.limited_by == predicted.limited_by
    for lane, busy_s in by_work(predicted.busy_s).items():
        assert found.lanes[lane].busy_s == pytest.approx(busy_s)
        assert found.lanes[lane].path_s <= busy_s + 1e-9
        # Several threads may do it at a time, so that it is not the rest of the run.
        assert found.lanes[lane].waiting_s >= found.total_s - busy_s - 1e-9
        assert found.lanes[lane].waiting_s <= found.total_s
    assert sum(wait.wait_s for wait in found.waits) == pytest.approx(predicted.stall_s, abs=1e-9)
    for wait in found.waits:
        assert wait.wait_s > 0.0
        assert sum(wait.lanes.values()) == pytest.approx(wait.wait_s)
        assert set(wait.lanes) <= set(LANES)
        assert (wait.layer is None) == (wait.kind is None)
    blocks = [(wait.layer, wait.kind) for wait in found.waits]
    assert len(set(blocks)) == len(blocks)
    if threads == SEQUENTIAL:
        assert not found.waits
        assert chain_s == pytest.approx(sum(use.busy_s for use in found.lanes.values()))


def test_the_caller_waits_for_the_lane_that_limits() -> None:
    profile = make_machine("storage")
    request = PlanRequest(MANIFEST, "pack", WORKLOAD)
    plan = uniform_plan(request, bits=8, profile=profile, threads=PIPELINED)
    found = lane_limits(MANIFEST, plan, as_measured(profile, WORKLOAD, plan.target))
    assert found.limited_by == "storage"
    waited = {lane: sum(wait.lanes.get(lane, 0.0) for wait in found.waits) for lane in LANES}
    assert max(waited, key=lambda lane: waited[lane]) == "storage"
    assert waited["compute"] == 0.0  # it is the caller's own
    assert found.lanes["storage"].waiting_s < min(
        found.lanes[lane].waiting_s for lane in ("decode", "compute")
    )


def test_a_run_that_waits_more_than_any_lane_works_is_limited_by_waiting() -> None:
    profile = make_machine("compute")
    plan = uniform_plan(PlanRequest(MANIFEST, "pack", WORKLOAD), bits=2, profile=profile)
    name, assumed = plan.threads.name, as_measured(profile, WORKLOAD, plan.target)
    for shared_s, expected in ((0.0, "compute"), (9.0, WAITING)):
        terms = Terms(None, {name: Extra(shared_s)}, {}, math.inf)
        found = lane_limits(MANIFEST, plan, Conditions(profile, WORKLOAD, terms))
        assert found.limited_by == expected
        assert found.beyond_s == pytest.approx(
            shared_s + lane_limits(MANIFEST, plan, assumed).beyond_s
        )


def test_runs_that_take_less_than_their_lanes_still_add_up() -> None:
    profile = make_machine("compute")
    plan = uniform_plan(PlanRequest(MANIFEST, "pack", WORKLOAD), bits=2, profile=profile)
    assert plan.predicted is not None
    less = Extra(-0.5 * plan.predicted.total_s)
    terms = Terms(None, {plan.threads.name: less}, {}, math.inf)
    found = lane_limits(MANIFEST, plan, Conditions(profile, WORKLOAD, terms))
    assert found.beyond_s < 0.0
    chain_s = sum(use.path_s for use in found.lanes.values())
    assert chain_s + found.text_s + found.beyond_s == pytest.approx(found.total_s)
    assert all(use.waiting_s >= 0.0 for use in found.lanes.values())


def test_a_plan_of_another_pack_is_refused() -> None:
    profile = make_machine("compute")
    plan = uniform_plan(PlanRequest(MANIFEST, "pack", WORKLOAD), bits=2, profile=profile)
    conditions = as_measured(profile, WORKLOAD, plan.target)
    with pytest.raises(PlanError, match="depth 9 x width 3"):
        lane_limits(MANIFEST, replace(plan, depth=9, width=3), conditions)
