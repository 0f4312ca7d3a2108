"""Plans as the engine chooses them: threads, variants, jobs, and what is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import sti
from sti.backend.onnxruntime.compute import OrtBackend
from sti.device import host
from sti.device.lanes import PIPELINED, LaneThreads, shared
from sti.device.profile import DeviceProfile
from sti.engine.machine import Machine
from sti.engine.memory_budget import MemoryBudget
from sti.engine.options import EngineOptions
from sti.engine.plan_maker import PlanMaker
from sti.engine.plan_store import PlanStore
from sti.engine.prepared import StepJobs
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning import planner
from sti.planning.plan import EXACT, NARROW, Plan, PlanRequest
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from sti.planning.variants import NARROW_MOST_BITS
from tests.support.packs import PROFILE, TEXTS, tiny_pack


@contextmanager
def store(
    pack: Path,
    target: sti.TargetSpec,
    *,
    profile: DeviceProfile | None = PROFILE,
    threads: int = 1,
    saturates: bool = False,
) -> Iterator[tuple[PlanStore, PackReader]]:
    with PackReader.open(pack) as reader:
        options = EngineOptions(profile=profile)
        backend = OrtBackend(reader, lanes=threads, threads=1, saturates=saturates)
        known = Machine(reader, backend, options, threads=threads)
        budget = MemoryBudget(reader, None, known)
        made = PlanStore(reader, target, known, options, StepJobs(reader), no_maker, budget)
        yield made, reader


def no_maker() -> PlanMaker:
    raise AssertionError("plans that stay need no prices")


def machine(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(host, "core_count", lambda: cores)


def test_a_pinned_plan_is_taken_as_it_is() -> None:
    with PackReader.open(tiny_pack()) as reader:
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8))
        plan = uniform_plan(request, bits=4)
    with store(tiny_pack(), sti.TargetSpec(plan=plan)) as (plans, reader):
        found, jobs, *_ = plans.plan_for(batch=1, tokens=8)
        assert found is plan
        wanted = prepare(plan, reader.manifest, reader.group_offset)
    assert [job.name for job in jobs] == [step.name for step in plan.steps]
    for job, expected in zip(jobs, wanted, strict=True):
        assert (job.group, job.ranges) == (expected.group, expected.ranges)
        assert (job.shards == expected.shards).all()


@pytest.mark.parametrize(
    ("cores", "threads", "expected"),
    [(1, 1, shared(1)), (2, 1, PIPELINED), (2, 2, shared(2)), (64, 4, PIPELINED)],
)
def test_uniform_plans_of_machines_that_were_not_measured_use_the_usual_threads(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, expected: LaneThreads
) -> None:
    machine(monkeypatch, cores)
    with store(tiny_pack(), sti.TargetSpec(fidelity=4), profile=None, threads=threads) as (
        plans,
        _,
    ):
        plan = plans.plan_for(batch=1, tokens=8).plan
    assert plan.threads == expected


@pytest.mark.parametrize("profile", [None, PROFILE])
@pytest.mark.parametrize("saturates", [False, True])
def test_uniform_plans_are_narrow_where_the_profile_or_else_the_back_end_says_that_is_faster(
    profile: DeviceProfile | None, saturates: bool
) -> None:
    for bits in (2, 8):
        target = sti.TargetSpec(fidelity=bits)
        with store(tiny_pack(), target, profile=profile, saturates=saturates) as (plans, _):
            plan = plans.plan_for(batch=1, tokens=8).plan
        narrow = bits <= NARROW_MOST_BITS and profile is None and saturates
        assert {step.variant for step in plan.steps} == {NARROW if narrow else EXACT}


@pytest.mark.parametrize("slices", [None, 2])
def test_a_uniform_plan_of_a_machine_with_many_cores_can_be_saved_and_pinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slices: int | None
) -> None:
    machine(monkeypatch, 64)
    pack, path = tiny_pack(slices=slices), tmp_path / "plan.json"
    with sti.Engine.open(pack, fidelity=4, threads=1, profile=PROFILE) as engine:
        expected, plan = engine.embed(TEXTS), engine.plan_for(tokens=8)
        path.write_text(plan.to_text(), encoding="utf-8")
        engine.set_target(plan=path)
        assert (engine.embed(TEXTS) == expected).all()
        assert engine.plan_for(tokens=8) == plan


def test_a_plan_under_more_threads_than_a_block_has_groups_is_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack, profile = (
        tiny_pack(slices=2),
        replace(PROFILE, threads=4, runs={"shared": PROFILE.runs["shared"]}),
    )
    with sti.Engine.open(pack, latency="10s", threads=1, profile=profile) as engine:
        made = engine.plan_for(tokens=16)
    assert made.threads == shared(4)

    def fail(*_: object, **__: object) -> Plan:
        raise AssertionError("planned again")

    monkeypatch.setattr(planner, "make_plan", fail)
    with sti.Engine.open(pack, latency="10s", threads=1, profile=profile) as engine:
        assert engine.plan_for(tokens=16) == made
