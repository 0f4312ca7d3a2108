"""Threads on cores of their own while a run lasts, and everywhere again afterwards."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import sti
from sti.device.affinity import Binding, apart
from sti.device.profile import MOST_DISTURBED
from sti.pipeline.workers import Worker

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
