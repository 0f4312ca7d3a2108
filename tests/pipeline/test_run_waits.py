"""How long the threads of a run waited for a core, thread by thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import sti
from sti.device import run_queue
from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.pipeline.run_waits import RunWaits
from sti.pipeline.trace import Recorder
from sti.pipeline.workers import Worker
from tests.support.packs import TEXTS, tiny_pack


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> dict[int, float | None]:
    """What the system says of each thread, by its number; 0 of others."""
    found: dict[int, float | None] = {}

    class Counter:
        def __init__(self, thread: int) -> None:
            self.thread = thread

        def read(self) -> float | None:
            return found.get(self.thread, 0.0)

        def close(self) -> None:
            pass

    for module in ("run_waits", "workers"):
        monkeypatch.setattr(f"sti.pipeline.{module}.WaitCounter", Counter)
    return found


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    made = [Worker(f"sti-test-{number}") for number in range(3)]
    yield made
    for worker in made:
        worker.close()


@pytest.mark.parametrize(
    ("threads", "lanes"),
    [
        (SEQUENTIAL, {"compute": 1.0}),
        (PIPELINED, {"compute": 1.0, "decode": 0.5, "storage": 0.25}),
        (shared(2), {"compute": 1.0, "compute 1": 0.5, "storage": 0.25}),
    ],
)
def test_each_thread_has_the_lane_that_it_works_last(
    waited: dict[int, float | None],
    workers: list[Worker],
    threads: LaneThreads,
    lanes: dict[str, float],
) -> None:
    storage, *others = workers
    others = others[: threads.decode + threads.compute - 1]
    numbers = [threading.get_native_id(), *(worker.start() or 0 for worker in (*others, storage))]
    waited.update(dict.fromkeys(numbers, 7.0))
    with RunWaits(threads, storage, others) as waits:
        assert waits.so_far() == dict.fromkeys(lanes, 0.0)
        for number, seconds in zip(numbers, (1.0, 0.5, 0.25), strict=False):
            waited[number] = 7.0 + seconds
        if threads == SEQUENTIAL:
            waited[numbers[-1]] = 99.0  # the storage thread has no part in it
        assert waits.so_far() == lanes
        waited[numbers[0]] = None
        assert waits.so_far() is None


def test_a_thread_that_starts_during_the_run_has_waited_for_nothing_before(
    waited: dict[int, float | None], workers: list[Worker]
) -> None:
    with RunWaits(PIPELINED, workers[0], workers[1:2]) as waits:
        waited[workers[0].start() or 0] = 0.125
        assert waits.so_far() == {"compute": 0.0, "decode": 0.0, "storage": 0.125}


def test_a_trace_knows_the_sum_and_the_share_of_the_longest() -> None:
    recorder = Recorder(0.0)
    recorder.add("compute", "head", 0.0, 2.0)
    trace = recorder.trace(PIPELINED, {"compute": 0.5, "decode": 0.25, "storage": 0.0})
    assert trace.waited_s == 0.75 and trace.waited_share == 0.25
    unknown = recorder.trace(PIPELINED)
    assert unknown.waited_s is None and unknown.waited_share is None


def test_a_result_says_what_its_threads_waited() -> None:
    known = run_queue.waited_s([threading.get_native_id()]) is not None
    with sti.Engine.open(tiny_pack("classification"), fidelity=2, threads=1) as engine:
        timing = engine.run(TEXTS).timing
    if not known:
        assert timing.waited_s is None and timing.to_json()["waits_s"] is None
        return
    assert timing.waits_s is not None and "compute" in timing.waits_s
    assert timing.waited_s == sum(timing.waits_s.values()) >= 0.0
    assert timing.to_json()["waited_s"] == round(timing.waited_s, 6)
