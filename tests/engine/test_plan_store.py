"""Plans as the engine chooses them: decode threads, jobs, and what is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import sti
from sti.backend.onnxruntime.compute import OrtBackend
from sti.device import host
from sti.engine.options import EngineOptions
from sti.engine.plan_store import PlanStore, ProfileSource
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning import planner
from sti.planning.plan import Plan, PlanRequest
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from tests.support.packs import PROFILE, TEXTS, tiny_pack


@contextmanager
def store(pack: Path, target: sti.TargetSpec) -> Iterator[tuple[PlanStore, PackReader]]:
    with PackReader.open(pack) as reader:
        options = EngineOptions(profile=PROFILE)
        profiles = ProfileSource(reader, OrtBackend(reader, threads=1), options, threads=1)
        yield PlanStore(reader, target, profiles), reader


def machine(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(host, "core_count", lambda: cores)


def test_a_pinned_plan_is_taken_as_it_is() -> None:
    with PackReader.open(tiny_pack()) as reader:
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8))
        plan = uniform_plan(request, bits=4)
    with store(tiny_pack(), sti.TargetSpec(plan=plan)) as (plans, reader):
        found, jobs = plans.plan_for(batch=1, tokens=8)
        assert found is plan
        wanted = prepare(plan, reader.manifest, reader.group_offset)
    assert [job.name for job in jobs] == [step.name for step in plan.steps]
    for job, expected in zip(jobs, wanted, strict=True):
        assert (job.group, job.ranges) == (expected.group, expected.ranges)
        assert (job.shards == expected.shards).all()


def test_a_uniform_plan_is_decoded_by_the_cores_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, 3)
    with store(tiny_pack(), sti.TargetSpec(fidelity=4)) as (plans, _):
        plan, _ = plans.plan_for(batch=1, tokens=8)
    assert plan.decode_threads == 2


@pytest.mark.parametrize(
    ("cores", "slices", "threads"),
    [(1, None, 1), (2, None, 1), (4, None, 3), (64, None, 4), (64, 2, 2)],
)
def test_the_cores_beside_compute_decode_as_far_as_the_pack_has_use_for_them(
    monkeypatch: pytest.MonkeyPatch, cores: int, slices: int | None, threads: int
) -> None:
    machine(monkeypatch, cores)
    with store(tiny_pack(slices=slices), sti.TargetSpec(fidelity=4)) as (plans, _):
        plan, _ = plans.plan_for(batch=1, tokens=8)
    assert plan.decode_threads == threads


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


def test_a_pack_of_two_slices_finds_its_plan_again_where_more_threads_could_decode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack, profile = tiny_pack(slices=2), replace(PROFILE, decoders=4)
    with sti.Engine.open(pack, latency="10s", threads=1, profile=profile) as engine:
        made = engine.plan_for(tokens=16)
    assert made.decode_threads == 2

    def fail(*_: object, **__: object) -> Plan:
        raise AssertionError("planned again")

    monkeypatch.setattr(planner, "make_plan", fail)
    with sti.Engine.open(pack, latency="10s", threads=1, profile=profile) as engine:
        assert engine.plan_for(tokens=16) == made
