"""Memory that is given back, and made anew by the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import sti
from sti.engine.answers import EmbeddingAnswer
from sti.pipeline.workers import Worker
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.paths import ROOT

INTENTS = ROOT / "models" / "clinc150-intents.sti.safetensors"
GROWTH = """
import sys, time
import sti, sti.engine.engine, sti.engine.elastic_plans, sti.backend.onnxruntime.compute

def anonymous_kb():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

before = anonymous_kb()
with sti.Engine.open(sys.argv[1], latency="10s", preload="1MB", threads=2) as engine:
    assert engine.preloaded()
    found = [anonymous_kb() - before]
    for _ in range(2):
        for _ in range(3):
            engine.run(["what is the balance of my savings account " * 8])
        assert engine.preloaded()
        found.append(anonymous_kb() - before)
        engine.release()
        found.append(anonymous_kb() - before)
print(*found)
"""


class GatedReader:
    """Reads of a file that wait for leave, one at a time."""

    def __init__(self, path: Path) -> None:
        self._inner, self.leave, self.reads = FileReader(path), threading.Semaphore(0), 0
        self.begun = threading.Event()
        self.amid: Callable[[], None] | None = None

    @property
    def direct(self) -> bool:
        return self._inner.direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        self.reads += 1
        self.begun.set()
        if self.amid is not None:
            self.amid()
        assert self.leave.acquire(timeout=30.0)
        self._inner.read(item, out)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        self._inner.read_rows(base, rows, out)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("task", ["classification", "embedding"])
@pytest.mark.parametrize("target", [{"fidelity": 4}, {"latency": "10s"}])
def test_answers_are_the_same_after_memory_was_given_back(
    task: str, target: dict[str, str]
) -> None:
    pack = tiny_pack("classification") if task == "classification" else tiny_pack()
    with sti.Engine.open(pack, threads=1, profile=PROFILE, preload="1MB", **target) as engine:
        assert engine.preloaded()
        before = engine.run(TEXTS)
        for _ in range(2):
            engine.release()
            engine.release()  # there is nothing left, and that is no error
            after = engine.run(TEXTS)
            assert after.plan.steps == before.plan.steps
            np.testing.assert_array_equal(_numbers(after), _numbers(before))


def _numbers(result: sti.Result) -> NDArray[np.float32]:
    embedding = isinstance(result.answer, EmbeddingAnswer)
    return result.embeddings if embedding else result.logits


def test_the_preload_buffer_is_filled_again_by_the_next_run() -> None:
    with sti.Engine.open(tiny_pack(), threads=1, fidelity=4, preload="1MB") as engine:
        assert engine.preloaded()
        read = engine.run(TEXTS).bytes_read
        engine.release()
        assert not engine.preloaded()
        assert engine.run(TEXTS).bytes_read > read  # nothing was held
        assert engine.preloaded()
        assert engine.run(TEXTS).bytes_read == read


def test_a_closed_engine_has_nothing_to_give_back() -> None:
    with sti.Engine.open(tiny_pack(), threads=1, fidelity=4) as engine:
        pass
    with pytest.raises(sti.ClosedError):
        engine.release()


def test_a_buffer_that_is_being_filled_is_given_back_before_it_is_full() -> None:
    reader, all_reads = GatedReader(tiny_pack()), 12
    with sti.Engine.open(
        tiny_pack(), threads=1, profile=PROFILE, fidelity=8, preload="1MB", storage=reader
    ) as engine:
        assert reader.begun.wait(30.0)
        thread = threading.Thread(target=engine.release)
        thread.start()
        for _ in range(all_reads):  # the read that is at work has to end
            reader.leave.release()
            thread.join(1.0)
            if not thread.is_alive():
                break
        assert not thread.is_alive() and reader.reads < all_reads
        assert not engine.preloaded()
        reader.leave.release(10_000)
        assert engine.run(TEXTS).bytes_read > 0
        assert engine.preloaded()


def test_what_is_given_back_amid_the_callers_own_run_is_given_back_after_it(
    request: pytest.FixtureRequest,
) -> None:
    reader = GatedReader(tiny_pack())
    reader.leave.release(10_000)
    with sti.Engine.open(
        tiny_pack(), threads=1, profile=PROFILE, fidelity=8, storage=reader
    ) as engine:
        before = engine.run(TEXTS, mode="sequential").embeddings
        usual = signal.signal(signal.SIGUSR1, lambda *_: engine.release())
        request.addfinalizer(lambda: signal.signal(signal.SIGUSR1, usual))
        reader.amid = lambda: os.kill(os.getpid(), signal.SIGUSR1)
        np.testing.assert_array_equal(engine.run(TEXTS, mode="sequential").embeddings, before)
        reader.amid = None
        np.testing.assert_array_equal(engine.run(TEXTS, mode="sequential").embeddings, before)


def test_what_a_job_used_does_not_stay_until_the_next_one() -> None:
    class Used:
        pass

    worker, used = Worker("test"), Used()
    kept = weakref.ref(used)

    def job(held: Used = used) -> None:
        assert held is not None

    done = worker.submit(job)
    del used, job
    assert done.wait(10.0)
    ended = worker.submit(lambda: None)  # begun when the first one was let go of
    assert ended.wait(10.0)
    assert kept() is None
    worker.close()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell")
def test_growth_falls_below_what_opening_took() -> None:
    for _ in range(2):  # the first process may measure the machine, which takes memory of its own
        command = [sys.executable, "-c", GROWTH, str(INTENTS)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    opened, *rest = map(int, run.stdout.split())
    for running, released in zip(rest[::2], rest[1::2], strict=True):
        assert running > opened > released
