"""Plans are made between runs; a run that finds none takes that of texts a little longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

import sti
from sti.backend.onnxruntime.compute import OrtBackend
from sti.engine.machine import Machine
from sti.engine.options import EngineOptions
from sti.engine.plan_maker import PlanMaker
from sti.engine.plan_store import PlanStore
from sti.engine.plans_ahead import PlansAhead
from sti.engine.prepared import PreparedPlan, StepJobs
from sti.errors import InfeasibleError
from sti.model.workload import TOKEN_BUCKETS, Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.planning.plan import PlanStep
from sti.planning.step_jobs import StepJob
from tests.support.packs import PROFILE, tiny_pack

LATENCY = "10s"


@contextmanager
def store(*, adapt: bool = True) -> Iterator[PlanStore]:
    """The plans of a target that everything meets, opened and not run."""
    with PackReader.open(tiny_pack("classification")) as reader:
        options = EngineOptions(profile=PROFILE, adapt=adapt)
        machine = Machine(reader, OrtBackend(reader, lanes=1, threads=1), options, threads=1)
        jobs = StepJobs(reader)

        def maker() -> PlanMaker:
            return PlanMaker(reader, jobs, print)

        found = PlanStore(reader, sti.TargetSpec(latency=LATENCY), machine, options, jobs, maker)
        found.opening()
        yield found


def test_jobs_are_done_in_order_on_another_thread_once_the_caller_stays_away() -> None:
    ahead, done, threads = PlansAhead(), list[int](), set[int]()
    last = threading.Event()

    def job(number: int) -> None:
        done.append(number)
        threads.add(threading.get_ident())

    def fails() -> None:
        raise InfeasibleError("left to the run", limit="latency", asked=1.0, needed=2.0)

    try:
        ahead.between_runs([lambda: job(1), fails, lambda: job(2), last.set])
        assert done == []  # a caller who comes back at once is not held up
        assert last.wait(10.0)
    finally:
        ahead.close()
    assert done == [1, 2] and threading.get_ident() not in threads


def test_a_run_stops_what_was_not_begun() -> None:
    ahead, done = PlansAhead(), list[int]()
    ahead.between_runs([lambda: done.append(1)])
    ahead.stop()
    time.sleep(0.05)
    ahead.close()
    assert done == []


def test_for_a_caller_who_comes_back_at_once_jobs_end_by_the_deadline() -> None:
    ahead, done = PlansAhead(), list[float]()

    def job() -> None:
        time.sleep(0.01)
        done.append(time.perf_counter())

    due_s = time.perf_counter() + 0.1
    ahead.before(due_s, [job] * 100)
    assert done and time.perf_counter() < due_s + 0.05 and len(done) < 10
    ahead.before(time.perf_counter() - 1.0, [job])
    ahead.close()
    assert len(done) < 10


def test_what_was_made_ahead_is_not_made_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with store() as plans:
        for job in plans.ahead(None):
            job()
        assert plans.ahead(None) == []

        def late(*_: object) -> None:
            raise AssertionError("made by the run")

        monkeypatch.setattr(PlanMaker, "price_all", late)
        monkeypatch.setattr(PlanMaker, "make", late)
        for tokens in TOKEN_BUCKETS:
            if tokens <= 512:
                found = plans.plan_for(batch=1, tokens=tokens, running=True)
                assert found.basis is not None
                assert found.plan.predicted is not None


def test_a_first_run_takes_the_plan_of_texts_a_little_longer_once() -> None:
    with store() as plans:
        first, second = (plans.plan_for(batch=1, tokens=20, running=True) for _ in range(2))
        assert (first.plan.workload, first.basis) == (Workload(1, 32), None)
        assert second.plan.workload == Workload(1, 24) and second.basis is not None
        # Much shorter texts would lose too much, longer ones would be late.
        for tokens in (8, 40):
            found = plans.plan_for(batch=1, tokens=tokens, running=True)
            assert found.plan.workload == Workload(1, tokens)
    with store(adapt=False) as plans:
        found = plans.plan_for(batch=1, tokens=20, running=True)
        assert found.plan.workload == Workload(1, 24)


def test_the_preload_buffer_follows_what_was_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[PlanStep, ...]] = []
    real_hold, real_plan_for = Runner.hold, PlanStore.plan_for

    def hold(runner: Runner, jobs: Sequence[StepJob], plan: sti.Plan) -> None:
        held.append(plan.steps)
        real_hold(runner, jobs, plan)

    pack, made, other = tiny_pack("classification"), list[PreparedPlan](), list[PreparedPlan]()

    def plan_for(plans: PlanStore, **size: Any) -> PreparedPlan:
        made.append(other[-1] if other else real_plan_for(plans, **size))
        return made[-1]

    monkeypatch.setattr(Runner, "hold", hold)
    monkeypatch.setattr(PlanStore, "plan_for", plan_for)
    with sti.Engine.open(pack, threads=1, profile=PROFILE, fidelity=4, preload="4KB") as engine:
        engine.plan_for(tokens=8)
        four = made[-1]
        engine.set_target(fidelity=2, preload="4KB")
        engine.plan_for(tokens=8)
        two = made[-1]
        assert held == [four.plan.steps, two.plan.steps]  # a target is prepared for at once
        for prepared in (two, four, two, four, four, four, two):
            other.append(prepared)
            engine.run(["a"])
    assert held == [four.plan.steps, two.plan.steps, four.plan.steps]
