"""What stages take: of all that begin with a layer at once, as of each of them."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.lanes import PIPELINED, LaneThreads, shared
from sti.device.profile import DeviceProfile
from sti.model.workload import Workload
from sti.planning.plan import LOCAL, PlanRequest
from sti.planning.stage_times import LATE_S, Member, StageTimes, weights_bytes
from sti.planning.stages import Stage
from sti.planning.uniform import uniform_plan
from tests.support.synthetic import BERT_BASE, make_manifest, make_profile

MANIFEST = make_manifest(Random(5), **{**BERT_BASE, "layers": 5})
UNIT = Workload(1, 64)
WHOLE = uniform_plan(PlanRequest(MANIFEST, "made up", UNIT), bits=4)
BYTES = weights_bytes(MANIFEST, WHOLE)
RATES = (5e7, 1.2e9)
"""Of storage: one that limits, and one that does not."""


def machine(*, rate: float = 1.2e9, compute: int = 1) -> DeviceProfile:
    return make_profile(kinds=(PIPELINED, shared(compute)), bytes_per_s=rate)


def times_of(member: Member, *, keeps: bool = False) -> StageTimes:
    return StageTimes(MANIFEST, WHOLE, member, UNIT, keeps=keeps)


@given(
    rate=st.sampled_from(RATES),
    threads=st.sampled_from((PIPELINED, shared(2))),
    preload=st.sampled_from((0, BYTES // 2, BYTES * 9)),
    room=st.sampled_from((None, BYTES // 2, BYTES, BYTES * 2, BYTES * 3, BYTES * 20)),
    held=st.sampled_from(((0, None), (1, 3))),
    arrival_s=st.sampled_from((0.0, 0.01, LATE_S)),
    keeps=st.booleans(),
)
def test_all_stages_at_once_take_what_each_takes(
    rate: float,
    threads: LaneThreads,
    preload: int,
    room: int | None,
    held: tuple[int, int | None],
    arrival_s: float,
    keeps: bool,
) -> None:
    profile = machine(rate=rate, compute=2)
    times = times_of(Member("a", profile, threads, preload, room, *held), keeps=keeps)
    for first in range(5):
        found = times.ends_s(first, arrival_s)
        for last in range(first, 5):
            stage = Stage("a", first, last)
            part = times.part(stage)
            wanted = math.inf if part is None else times.end_s(stage, part, arrival_s)
            assert found[last - first] == pytest.approx(wanted, rel=1e-12)


def test_a_stage_reads_as_far_ahead_as_there_is_room() -> None:
    stage, ahead = Stage("a", 2, 4), []
    for room in (BYTES - 1, BYTES, BYTES * 2, BYTES * 20):
        part = times_of(Member("a", machine(), PIPELINED, room_bytes=room)).part(stage)
        assert part is not None
        assert weights_bytes(MANIFEST, part) <= room
        if part.read_ahead < len(part.steps) - 1:
            more = replace(part, read_ahead=part.read_ahead + 1)
            assert weights_bytes(MANIFEST, more) > room
        ahead.append(part.read_ahead)
    assert ahead == sorted(ahead)
    assert ahead[0] < ahead[1] < ahead[-1] == len(part.steps) - 1
    small = times_of(Member("a", machine(), PIPELINED, room_bytes=4096))
    assert small.part(stage) is None


def test_the_faster_threads_are_taken() -> None:
    profile = machine()
    stage = Stage("a", 1, 4)
    found = {}
    for others in ((), (PIPELINED,)):
        times = times_of(Member("a", profile, shared(1), others=others))
        part = times.part(stage)
        assert part is not None
        found[part.threads] = times.end_s(stage, part, 0.0)
    assert set(found) == {shared(1), PIPELINED}
    assert found[PIPELINED] < found[shared(1)]


def test_this_machine_keeps_its_preload() -> None:
    held = WHOLE.steps[-1]._replace(preload_bytes=4096)
    plan = replace(WHOLE, steps=(*WHOLE.steps[:-1], held))
    member = Member(LOCAL, machine(), PIPELINED)
    for keeps in (True, False):
        part = StageTimes(MANIFEST, plan, member, UNIT, keeps=keeps).part(Stage(LOCAL, 4, 4))
        assert part is not None
        assert bool(part.steps[-1].preload_bytes) is keeps
