"""Threads on cores of their own while a run lasts, and everywhere again afterwards."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import sti
from sti.device.affinity import Binding, apart, started_thread
from sti.device.profile import MOST_DISTURBED
from sti.pipeline.workers import Worker
from tests.support.processes import WAIT_S, forked

EVERYWHERE = {3, 7}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, set[int]]]:
    """What the system was asked, on a machine whose cores are 3 and 7."""
    asked: list[tuple[int, set[int]]] = []

    def ask(thread: int, cores: set[int]) -> None:
        asked.append((thread, cores))

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: EVERYWHERE, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", ask, raising=False)
    return asked


def test_each_has_a_core_and_the_caller_is_free_again(calls: list[tuple[int, set[int]]]) -> None:
    with apart([7, 3], 4711):
        assert calls == [(4711, {3}), (0, {7})]
    assert calls[2:] == [(4711, {3, 7}), (0, {3, 7})]


def test_of_two_runs_at_once_one_is_bound(calls: list[tuple[int, set[int]]]) -> None:
    with apart([7, 3], 4711):
        bound = len(calls)
        with apart([7, 3], 4712):
            assert len(calls) == bound


@pytest.mark.usefixtures("calls")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_run_that_stayed_behind() -> None:
    bound, done = threading.Event(), threading.Event()

    def run() -> None:
        with apart([7, 3], 4711):
            bound.set()
            done.wait(WAIT_S)

    def start() -> None:
        assert started_thread([7, 3], lambda: 5)[0] == 5

    thread = threading.Thread(target=run)
    thread.start()
    assert bound.wait(WAIT_S)
    code = forked(start)
    done.set()
    thread.join()
    assert code == 0
    with apart([7, 3], 4711):
        assert forked(start) == 0  # nor for its own


def test_the_caller_is_free_again_after_a_failure(calls: list[tuple[int, set[int]]]) -> None:
    with pytest.raises(RuntimeError), apart([7, 3], 4711):
        raise RuntimeError
    assert calls[-1] == (0, {3, 7})


def test_who_was_bound_elsewhere_is_left_alone(calls: list[tuple[int, set[int]]]) -> None:
    with apart([0, 1], 4711):
        pass
    assert calls == []


def test_a_system_that_refuses_is_no_failure(
    calls: list[tuple[int, set[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def refuse(thread: int, cores: set[int]) -> None:
        refused.append(thread)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with apart([7, 3], 4711):
        assert refused == [4711]
    assert refused == [4711, 4711, 0] and calls == []


def test_a_system_without_such_a_call_is_no_failure(
    calls: list[tuple[int, set[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with apart([7, 3], 4711):
        pass
    assert calls == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no such call here")
def test_after_a_run_every_thread_may_run_everywhere(tiny_pack: Path) -> None:
    everywhere = os.sched_getaffinity(0)
    with sti.Engine.open(tiny_pack, fidelity=2, threads=1) as engine:
        engine.run(["the dog runs"])
        found = {
            thread.name: os.sched_getaffinity(thread.native_id or 0)
            for thread in threading.enumerate()
        }
    assert found["MainThread"] == found["sti-storage"] == found["sti-worker-1"] == everywhere


def test_a_worker_tells_its_thread() -> None:
    worker, seen = Worker("sti-test"), list[int]()
    number = worker.start()
    assert worker.start() == number
    worker.submit(lambda: seen.append(threading.get_native_id())).wait()
    worker.close()
    assert seen == [number]


def parked() -> tuple[threading.Thread, threading.Event]:
    """A thread that waits until it may end."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    return thread, end


TWO_CORES = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) != 2,
    reason="needs a machine with just two cores",
)


@TWO_CORES
def test_the_thread_that_was_started_is_found_and_may_run_everywhere() -> None:
    cores = sorted(os.sched_getaffinity(0))
    (thread, end), found = started_thread(cores, parked)
    assert found == thread.native_id and found is not None
    assert os.sched_getaffinity(found) == os.sched_getaffinity(0) == set(cores)
    end.set()


@TWO_CORES
def test_a_thread_that_somebody_bound_before_is_not_taken_for_it() -> None:
    cores = sorted(os.sched_getaffinity(0))
    other, other_end = parked()
    assert other.native_id is not None
    os.sched_setaffinity(other.native_id, {cores[1]})
    (thread, end), found = started_thread(cores, parked)
    assert found == thread.native_id
    assert os.sched_getaffinity(other.native_id) == {cores[1]}
    end.set()
    other_end.set()


@TWO_CORES
def test_of_two_threads_that_were_started_neither_is_known_and_both_may_run_everywhere() -> None:
    cores = sorted(os.sched_getaffinity(0))
    made, found = started_thread(cores, lambda: (parked(), parked()))
    assert found is None
    assert [os.sched_getaffinity(thread.native_id or 0) for thread, _ in made] == [set(cores)] * 2
    for _, end in made:
        end.set()


@TWO_CORES
def test_a_thread_is_started_amid_a_run_that_may_wait_for_it() -> None:
    cores = sorted(os.sched_getaffinity(0))
    other, end = parked()
    made: list[tuple[int, int | None]] = []
    with apart(cores, other.native_id or 0) as bound:
        assert bound
        starting = threading.Thread(target=lambda: made.append(started_thread(cores, lambda: 5)))
        os.sched_setaffinity(0, set(cores))  # new threads are free, as those of workers are
        starting.start()
        starting.join(30)
        assert made == [(5, None)]
    end.set()
    assert started_thread(cores, lambda: 6)[0] == 6


@TWO_CORES
def test_what_cannot_be_started_leaves_the_caller_unbound() -> None:
    cores = sorted(os.sched_getaffinity(0))
    with pytest.raises(RuntimeError):
        started_thread(cores, lambda: (_ for _ in ()).throw(RuntimeError()))
    assert os.sched_getaffinity(0) == set(cores)


def test_on_other_cores_or_where_binding_is_refused_no_thread_is_found(
    calls: list[tuple[int, set[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started_thread([0, 1], lambda: 5) == (5, None)
    assert calls == []

    def refuse(thread: int, cores: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert started_thread([7, 3], lambda: 5) == (5, None)


def bound(binding: Binding, runs: int, share: float | None) -> list[int]:
    """Which of so many runs are bound, where each that is waits for such a share."""
    found = []
    for number in range(runs):
        if binding.wanted():
            found.append(number)
            binding.learn(share)
    return found


@pytest.mark.parametrize("share", [None, 0.0, MOST_DISTURBED])
def test_threads_are_bound_while_nobody_else_wants_the_cores(share: float | None) -> None:
    assert bound(Binding(), 5, share) == [0, 1, 2, 3, 4]


def test_threads_that_wait_although_they_are_bound_are_left_unbound_for_longer_each_time() -> None:
    found = bound(Binding(), 1000, 0.5)
    pauses = [later - earlier - 1 for earlier, later in pairwise(found)]
    assert pauses[:5] == [8, 16, 32, 64, 128] and set(pauses[5:]) == {128}


def test_threads_are_bound_again_when_others_are_gone() -> None:
    binding = Binding()
    bound(binding, 100, 0.5)
    found = bound(binding, 200, 0.0)
    assert found[-50:] == list(range(150, 200))
    assert bound(binding, 10, 0.5) == [0, 9]  # as the first time
