"""Which planes still come in time: told by a made-up clock."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.chains import chains
from sti.planning.deadlines import Watch
from sti.planning.downgrade import LATE, Downgrade, downgraded
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.prediction import predict
from sti.planning.remainder import Remainder
from sti.planning.uniform import uniform_plan
from tests.support.synthetic import LADDER, make_manifest, make_profile

PACK = "0123456789abcdef"
QUALITY = Quality("accuracy", 500, 0.005, (0.0, 4.0), (0.96, 0.3))
MANIFEST = make_manifest(Random(5), layers=4, slices=6, ladder=LADDER, groups=(2, 3))
THREADS = (SEQUENTIAL, PIPELINED, shared(1), shared(2))
every_kind = pytest.mark.parametrize("threads", THREADS, ids=str)
SLOW = make_profile(bytes_per_s=2e7, jitter=1.0, kinds=(SEQUENTIAL, PIPELINED, shared(1)))
"""Storage takes most of the time."""


def plan_of(threads: LaneThreads, *, bits: int = 8, preload: int = 0, keeps: float = 1.3) -> Plan:
    """All at so many bits, with a latency that is so many times what is predicted."""
    request = PlanRequest(MANIFEST, PACK, Workload(1, 64), Target(None, preload))
    profile = replace(SLOW, threads=threads.compute) if threads.name == "shared" else SLOW
    plan = uniform_plan(request, bits=bits, profile=profile, threads=None)
    plan = replace(plan, threads=threads, predicted=None)
    predicted = predict(MANIFEST, profile, plan)
    target = Target(predicted.total_s * keeps, preload)
    return replace(plan, predicted=predicted, target=target)


def watch_of(plan: Plan, *, floor: float = 0.0) -> Watch:
    """A run that arrived at 100 s."""
    assert plan.target.latency_s is not None
    return Watch(Remainder(plan, MANIFEST), 100.0 + plan.target.latency_s, floor=floor)


def simulated(plan: Plan, slower: float, *, stall: dict[int, float] | None = None) -> list[int]:
    """Planes of each step where reads take so many times what is predicted."""
    remainder = Remainder(plan, MANIFEST)
    watch, reads, after_s = watch_of(plan), remainder.reads, remainder.most[0].tolist()
    now, found = 100.0, []
    for number in range(len(plan.steps)):
        if number and remainder.serial:
            now += after_s[number - 1] - after_s[number]
        planes = watch.planes(number, now)
        took = slower * reads[number].seconds[planes] + (stall or {}).get(number, 0.0)
        watch.has_read(number, planes, took)
        now += took
        found.append(planes)
    return found


@every_kind
def test_a_run_as_predicted_reads_everything(threads: LaneThreads) -> None:
    plan = plan_of(threads, keeps=1.01)
    watch, predicted = watch_of(plan), plan.predicted
    assert predicted is not None
    for number, step in enumerate(plan.steps):
        span = predicted.span("storage", step.name)
        assert span is not None
        assert watch.planes(number, 100.0 + span.start_s) == len(LADDER)
        watch.has_read(number, len(LADDER), span.duration_s)


@every_kind
def test_when_the_time_is_over_the_lowest_plane_is_read_alone(threads: LaneThreads) -> None:
    plan = plan_of(threads)
    watch = watch_of(plan)
    found = [watch.planes(number, 1000.0) for number in range(len(plan.steps))]
    assert found[:10] == [1] * 10  # at last planes cost next to nothing


@every_kind
def test_slower_storage_costs_planes_of_many_steps_and_not_of_one(threads: LaneThreads) -> None:
    found = simulated(plan_of(threads), 1.8)
    fewer = [planes for planes in found if planes < len(LADDER)]
    assert len(fewer) > len(found) / 2 and 1 not in found[:-1]


@every_kind
def test_the_slower_storage_is_the_fewer_planes_are_read(threads: LaneThreads) -> None:
    plan = plan_of(threads)
    sums = [sum(simulated(plan, slower)) for slower in (1.0, 1.5, 2.0, 3.0, 10.0)]
    assert sums[0] == 20 * len(LADDER) and sums[-1] < 30
    assert all(above >= below for above, below in pairwise(sums))


@every_kind
def test_one_read_that_stalls_does_not_make_the_others_slow(threads: LaneThreads) -> None:
    plan = plan_of(threads, keeps=1.5)
    latency_s = plan.target.latency_s or 0.0
    found = simulated(plan, 1.0, stall={2: 0.1 * latency_s})
    assert found == [len(LADDER)] * 20
    assert sum(simulated(plan, 1.0, stall={2: 0.6 * latency_s})) < sum(found)


@given(
    st.sampled_from(THREADS),
    st.sampled_from((0, 200_000, 2_000_000)),
    st.floats(0.0, 3.0),
    st.integers(0, 19),
    st.integers(0, 5),
)
def test_what_is_preloaded_and_the_lowest_plane_are_always_read(
    threads: LaneThreads, preload: int, left: float, number: int, have: int
) -> None:
    plan = plan_of(threads, preload=preload)
    remainder = Remainder(plan, MANIFEST)
    watch, reads = watch_of(plan), remainder.reads[number]
    now = 100.0 + (plan.target.latency_s or 0.0) * (1.0 - left)
    planes = watch.planes(number, now, have=have)
    assert max(reads.least, have) <= planes <= reads.most == len(LADDER)
    assert reads.seconds[reads.least] == 0.0 or reads.least == 1
    if left <= 0.0:
        assert planes == max(reads.least, have)


@every_kind
def test_below_the_floor_planes_are_waited_for(threads: LaneThreads) -> None:
    manifest = MANIFEST._replace(quality=QUALITY)
    plan = plan_of(threads)
    watch = Watch(Remainder(plan, manifest), 100.0, floor=0.95)
    left_out = []
    for number, step in enumerate(plan.steps):
        planes = watch.planes(number, 1000.0)
        watch.has_read(number, planes, 0.0)
        if planes < len(LADDER):
            bits = LADDER[planes]
            left_out.append(Downgrade(step.layer, step.kind, step.group, bits, None, LATE))
    found = downgraded(plan, manifest, left_out).predicted
    assert found is not None and found.quality is not None and left_out
    assert 0.95 * 0.96 <= found.quality.value < 0.96
    assert len(left_out) < len(plan.steps)
    watch = Watch(Remainder(plan, manifest), 100.0, floor=1.0)
    assert watch.planes(0, 1000.0) == len(LADDER)


def test_a_pipelined_run_that_computes_too_slowly_gains_nothing_by_less_and_keeps_it() -> None:
    plan = plan_of(PIPELINED, bits=4)
    watch, remainder = watch_of(plan), Remainder(plan, MANIFEST)
    for name in remainder.computing_s:
        watch.begins(plan.steps[0].name)
        watch.has_computed(name, 50 * remainder.computing_s[name], thread=0)
    assert watch.planes(5, 100.0 + 0.9 * (plan.target.latency_s or 0.0)) == 3


@every_kind
def test_chains_end_in_the_head_and_grow_towards_the_start(threads: LaneThreads) -> None:
    plan = plan_of(threads)
    predicted = plan.predicted
    assert predicted is not None
    found = chains(plan, predicted, {})
    *compute_s, head_s = found.compute_s
    assert 0.0 < head_s <= min(compute_s)
    assert all(mine > own for mine, own in zip(found.decode_s, compute_s, strict=True))
    assert max(found.decode_s) == found.decode_s[0] < predicted.total_s
    halved = chains(plan, predicted, {step.name: 0.5 for step in plan.steps})
    assert all(less < all_ for less, all_ in zip(halved.decode_s, found.decode_s, strict=True))
    last = predicted.span("decode", plan.steps[-1].name)
    if threads in (SEQUENTIAL, PIPELINED):
        computed = predicted.span("compute", plan.steps[-1].name)
        assert last is not None and computed is not None
        assert found.decode_s[-1] == pytest.approx(predicted.total_s - last.start_s)
        assert found.compute_s[-2] == pytest.approx(predicted.total_s - computed.start_s)
