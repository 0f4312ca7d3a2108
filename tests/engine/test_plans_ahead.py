"""Plans are made between runs; a run that finds none takes that of texts a little longer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

import sti
from sti.backend.onnxruntime.compute import OrtBackend
from sti.device.lanes import LANES
from sti.engine.machine import Machine
from sti.engine.memory_budget import MemoryBudget
from sti.engine.options import EngineOptions
from sti.engine.plan_maker import PlanMaker
from sti.engine.plan_store import PlanStore
from sti.engine.plans_ahead import PlansAhead
from sti.engine.prepared import PreparedPlan, StepJobs
from sti.model.workload import TOKEN_BUCKETS, Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.preloading import Preloading
from sti.planning.corrections import RunTimes
from sti.planning.plan import PlanStep
from sti.planning.step_jobs import StepJob
from tests.support.packs import PROFILE, SHAPE, tiny_pack

LENGTHS = [tokens for tokens in TOKEN_BUCKETS if tokens <= SHAPE.positions]


@contextmanager
def store(
    *, adapt: bool = True, latency: str = "10s", preload: str = "0"
) -> Iterator[tuple[PlanStore, Machine]]:
    """The plans of a target, opened and not run."""
    with PackReader.open(tiny_pack("classification")) as reader:
        options = EngineOptions(profile=PROFILE, adapt=adapt)
        machine = Machine(reader, OrtBackend(reader, lanes=1, threads=1), options, threads=1)
        jobs = StepJobs(reader)

        def maker() -> PlanMaker:
            return PlanMaker(reader, jobs, print)

        target = sti.TargetSpec(latency=latency, preload=preload)
        budget = MemoryBudget(reader, None, machine)
        found = PlanStore(reader, target, machine, options, jobs, maker, budget)
        found.opening()
        yield found, machine


class Pause:
    """Stands in for the pause of the thread: it lasts until the test ends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self._over = threading.Semaphore(0), threading.Semaphore(0)
        monkeypatch.setattr("sti.engine.plans_ahead.sleep", self._wait)

    def _wait(self, seconds: float) -> None:
        self.begun.release()
        assert self._over.acquire(timeout=10.0)

    def end(self) -> None:
        assert self.begun.acquire(timeout=10.0)
        self._over.release()


def learn(machine: Machine, slower: float) -> None:
    """A run whose lanes took so many times longer than the profile says."""
    known = machine.speeds.corrections
    alone_s = dict.fromkeys(LANES, 0.01)
    now_s = {lane: seconds * known.lanes[lane] for lane, seconds in alone_s.items()}
    measured_s = {lane: seconds * slower for lane, seconds in alone_s.items()}
    price_s, took_s = sum(now_s.values()), sum(measured_s.values())
    run = RunTimes(
        "sequential", Workload(1, 8), now_s, measured_s, price_s, took_s, known.lanes, price_s
    )
    known.learn(run, 0.98)


def test_jobs_are_done_in_order_on_another_thread_once_the_caller_stays_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pause, ahead, done, threads = Pause(monkeypatch), PlansAhead(), list[int](), set[int]()

    def job(number: int) -> None:
        done.append(number)
        threads.add(threading.get_ident())

    def fails() -> None:
        raise MemoryError("left to the run")

    last = threading.Event()
    ahead.between_runs([lambda: job(1), fails, lambda: job(2), last.set])
    assert done == []  # a caller who comes back at once is not held up
    pause.end()
    assert last.wait(10.0)
    ahead.between_runs([lambda: job(3), last.clear])
    pause.end()
    ahead.close()
    assert done[:2] == [1, 2] and threading.get_ident() not in threads


def test_a_run_stops_what_was_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    pause, ahead, done = Pause(monkeypatch), PlansAhead(), list[int]()
    ahead.between_runs([lambda: done.append(1)])
    ahead.stop()
    for number in (2, 3):  # what was asked for last is done, once
        ahead.between_runs([lambda number=number: done.append(number)])  # type: ignore[misc]
    ready = threading.Event()
    ahead.between_runs([lambda: done.append(4), ready.set])
    while not ready.wait(0.01):
        if pause.begun.acquire(blocking=False):
            pause.begun.release()
            pause.end()
    ahead.close()
    assert done == [4]


def test_a_caller_who_comes_back_at_once_is_given_what_ends_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pause, ahead, done, now = Pause(monkeypatch), PlansAhead(), list[float](), [0.0]
    monkeypatch.setattr("sti.engine.plans_ahead.perf_counter", lambda: now[0])

    def job() -> None:
        now[0] += 1e-3
        done.append(now[0])

    ahead.before(1.0, [job] * 100)
    assert len(done) == 4  # no more than a few milliseconds, however much is left
    ahead.before(now[0] - 1.0, [job])
    ahead.before(now[0] + 3.5e-3, [job] * 100)
    assert len(done) == 4 + 2  # the next one might end too late
    rest = threading.Event()
    ahead.before(now[0], [rest.set])
    while not rest.wait(0.01):  # what is left is done when the caller stays away
        if pause.begun.acquire(blocking=False):
            pause.begun.release()
            pause.end()
    ahead.close()


def test_what_was_made_ahead_is_not_made_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with store() as (plans, machine):

        def late(*_: object) -> None:
            raise AssertionError("made by the run")

        last = None
        for slower in (1.0, 2.0):  # and again when the machine has changed
            for _ in range(2):
                learn(machine, slower)
            assert plans.ahead(last)
            for job in plans.ahead(last):
                job()
            assert plans.ahead(last) == []
            with monkeypatch.context() as patched:
                patched.setattr(PlanMaker, "price_all", late)
                patched.setattr(PlanMaker, "make", late)
                for tokens in LENGTHS:
                    found = plans.plan_for(batch=1, tokens=tokens, running=True)
                    assert found.plan.workload == Workload(1, tokens)
                    assert found.basis is not None
            last = Workload(1, 8)


def test_a_first_run_takes_the_plan_of_texts_a_little_longer_once() -> None:
    with store() as (plans, _):
        first, second = (plans.plan_for(batch=1, tokens=20, running=True) for _ in range(2))
        assert (first.plan.workload, first.basis) == (Workload(1, 32), None)
        assert second.plan.workload == Workload(1, 24) and second.basis is not None
        # Much shorter texts would lose too much, longer ones would be late.
        for tokens in (8, 40):
            found = plans.plan_for(batch=1, tokens=tokens, running=True)
            assert found.plan.workload == Workload(1, tokens)
    with store(adapt=False) as (plans, _):
        found = plans.plan_for(batch=1, tokens=20, running=True)
        assert found.plan.workload == Workload(1, 24)


def test_plans_that_do_not_adapt_do_not_depend_on_what_ran_before() -> None:
    found = []
    for order in ((8, 16, 40), (40, 16, 8)):
        with store(adapt=False, latency="30ms", preload="4KB") as (plans, _):
            made = {
                tokens: plans.plan_for(batch=1, tokens=tokens, running=True) for tokens in order
            }
            found.append({tokens: made[tokens].plan.steps for tokens in LENGTHS if tokens in made})
    assert found[0] == found[1]


def test_the_preload_buffer_follows_what_was_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[PlanStep, ...]] = []
    real_hold, real_plan_for = Preloading.hold, PlanStore.plan_for

    def hold(preloading: Preloading, jobs: Sequence[StepJob], plan: sti.Plan, **most: Any) -> None:
        held.append(plan.steps)
        real_hold(preloading, jobs, plan, **most)

    pack, made, other = tiny_pack("classification"), list[PreparedPlan](), list[PreparedPlan]()

    def plan_for(plans: PlanStore, **size: Any) -> PreparedPlan:
        made.append(other[-1] if other else real_plan_for(plans, **size))
        return made[-1]

    monkeypatch.setattr(Preloading, "hold", hold)
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
