"""Memory that an engine gives back by itself while it is short, and takes again when it is not."""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sti
from benchmarks.cgroups import NoGroups, memory_group
from sti.device import host, memory_pressure
from sti.device.lane_profiles import StorageProfile
from sti.device.lanes import STORAGE
from sti.engine import memory_watch
from sti.engine.memory_watch import MemoryWatch
from tests.support.counted_memory import MB, CountedMemory, counted_memory
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.paths import ROOT
from tests.support.processes import WAIT_S, until

TOTAL = 1600 * MB
SHORT, BETWEEN, ENOUGH = 40 * MB, 150 * MB, 900 * MB


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedMemory:
    """Looked at a hundred times a second; engines are idle only where a test says so."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(memory_watch, "LOOK_S", 0.01)
    monkeypatch.setattr(memory_watch, "IDLE_S", 1e9)
    found = counted_memory(tmp_path, monkeypatch, total=TOTAL)
    found.has(ENOUGH)
    return found


class Notices:
    """What was told, to be waited for."""

    def __init__(self) -> None:
        self._told: queue.Queue[str] = queue.Queue()

    def __call__(self, words: str) -> None:
        if "memory is" in words:
            self._told.put(words)

    def next(self) -> str:
        return self._told.get(timeout=WAIT_S)

    @property
    def none(self) -> bool:
        return self._told.empty()


@contextmanager
def opened(
    notices: Notices, task: str = "embedding", *, fidelity: int | None = 4, **options: object
) -> Iterator[sti.Engine]:
    pack = tiny_pack("classification") if task == "classification" else tiny_pack()
    with sti.Engine.open(
        pack,
        threads=1,
        profile=PROFILE,
        preload="1MB",
        fidelity=fidelity,
        notify=notices,
        **options,  # type: ignore[arg-type]
    ) as engine:
        yield engine


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sti-memory"]


def test_the_preload_buffer_is_given_back_while_memory_is_short_and_filled_again_after(
    system: CountedMemory,
) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        held, before = engine.held_bytes, engine.run(TEXTS)
        assert held > 0
        system.has(SHORT)
        told = notices.next()
        assert told.startswith("memory is short: 40.0 MB of 1.60 GB are available; ")
        assert told.endswith("of held weights were given back")
        assert engine.held_bytes == 0 and not engine.preloaded()
        lean = engine.run(TEXTS)
        assert lean.bytes_read > before.bytes_read and engine.held_bytes == 0
        np.testing.assert_array_equal(lean.embeddings, before.embeddings)
        assert lean.plan.steps == before.plan.steps
        system.has(ENOUGH)
        told = notices.next()
        assert told.startswith("memory is not short any more: 900 MB of 1.60 GB are available")
        assert engine.preloaded(WAIT_S) and engine.held_bytes == held
        after = engine.run(TEXTS)
        assert after.bytes_read == before.bytes_read
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
    assert notices.none


def test_comparable_embeddings_keep_their_plan_while_memory_is_short(system: CountedMemory) -> None:
    notices = Notices()
    with opened(notices, fidelity=None, latency="10s") as engine:
        assert engine.preloaded()
        before = engine.run(TEXTS)
        system.has(SHORT)
        notices.next()
        lean = engine.run(TEXTS)
        assert engine.held_bytes == 0 and lean.bytes_read > before.bytes_read
        assert lean.plan.steps == before.plan.steps
        np.testing.assert_array_equal(lean.embeddings, before.embeddings)


def test_a_pinned_plan_is_run_as_it_is_while_memory_is_short(system: CountedMemory) -> None:
    with opened(Notices(), "classification", fidelity=None, latency="10s") as engine:
        plan = engine.plan_for(tokens=8)
    notices = Notices()
    with sti.Engine.open(
        tiny_pack("classification"), threads=1, profile=PROFILE, plan=plan, notify=notices
    ) as engine:
        assert engine.preloaded()
        before = engine.run(TEXTS[:1])
        system.has(SHORT)
        notices.next()
        lean = engine.run(TEXTS[:1])
        assert lean.plan.steps == before.plan.steps == plan.steps and engine.held_bytes == 0
        np.testing.assert_array_equal(lean.logits, before.logits)


def test_plans_that_change_are_made_for_no_preload_while_memory_is_short(
    system: CountedMemory,
) -> None:
    notices = Notices()
    with opened(notices, "classification", fidelity=None, latency="10s") as engine:
        assert engine.preloaded()
        assert engine.run(TEXTS[:1]).plan.target.preload_bytes == MB
        system.has(SHORT)
        notices.next()
        lean = engine.run(TEXTS[:1]).plan
        assert lean.target.preload_bytes == 0 and lean.target.latency_s == 10.0
        assert not any(step.preload_bytes for step in lean.steps)
        assert engine.target.preload_bytes == MB
        system.has(ENOUGH)
        notices.next()
        assert engine.preloaded(WAIT_S)
        assert engine.run(TEXTS[:1]).plan.target.preload_bytes == MB


def test_a_latency_that_takes_a_preload_buffer_is_not_refused_while_memory_is_short(
    system: CountedMemory,
) -> None:
    slow = StorageProfile(direct=True, request_s=1e-2, bytes_per_s=1e6, row_s=1e-6)
    profile = replace(PROFILE, lanes={**PROFILE.lanes, STORAGE: slow})
    pack, notices = tiny_pack("classification"), Notices()
    with pytest.raises(sti.InfeasibleError):
        sti.Engine.open(pack, latency="30ms", threads=1, profile=profile, adapt=False)
    with sti.Engine.open(
        pack,
        latency="30ms",
        preload="1MB",
        threads=1,
        profile=profile,
        adapt=False,
        notify=notices,
    ) as engine:
        assert engine.preloaded()
        before = engine.run(TEXTS)
        system.has(SHORT)
        notices.next()
        np.testing.assert_array_equal(engine.run(TEXTS).logits, before.logits)
        assert engine.held_bytes == 0


def test_runs_go_on_while_memory_comes_and_goes(system: CountedMemory) -> None:
    with opened(Notices()) as engine:
        before = engine.run(TEXTS).embeddings
        for number in range(200):
            if number % 5 == 0:
                system.has(ENOUGH if number % 10 else SHORT)
            np.testing.assert_array_equal(engine.run(TEXTS).embeddings, before)
        assert engine.health().memory_yields > 0


def test_it_is_filled_again_only_when_there_is_clearly_enough(system: CountedMemory) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        system.has(SHORT)
        notices.next()
        system.has(BETWEEN)
        for _ in range(5):
            engine.run(TEXTS)
        assert engine.held_bytes == 0 and notices.none and engine.health().memory_short
        system.has(ENOUGH)
        notices.next()
        assert engine.preloaded(WAIT_S)
        system.has(BETWEEN)
        engine.run(TEXTS)
        assert engine.held_bytes > 0 and not engine.health().memory_short


def test_an_idle_engine_gives_back_all_that_runs_take(
    system: CountedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_watch, "IDLE_S", 0.0)
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        before = engine.run(TEXTS)
        system.has(SHORT)
        told = notices.next()
        assert "the engine is idle and gave back what runs take; " in told
        assert engine.health().memory_yields == 1
        np.testing.assert_array_equal(engine.run(TEXTS).embeddings, before.embeddings)
        until(lambda: engine.health().memory_yields == 2)  # what that run took; told once
        system.has(ENOUGH)
        assert "filled again" in notices.next()
        assert engine.preloaded(WAIT_S)
    assert notices.none


def test_an_idle_engine_without_a_preload_gives_back_what_runs_take(
    system: CountedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_watch, "IDLE_S", 0.0)
    notices = Notices()
    with sti.Engine.open(
        tiny_pack(), threads=1, profile=PROFILE, fidelity=4, notify=notices
    ) as engine:
        assert not watchers()  # there is nothing to give back yet
        engine.run(TEXTS)
        system.has(SHORT)
        assert notices.next().endswith("the engine is idle and gave back what runs take")
        system.has(ENOUGH)
        assert notices.next().endswith("1.60 GB are available")
        assert engine.preloaded()


def test_health_tells_of_memory(system: CountedMemory) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        assert (engine.health().memory_short, engine.health().memory_yields) == (False, 0)
        system.has(SHORT)
        notices.next()
        found = engine.health()
        assert (found.memory_short, found.memory_yields) == (True, 1)
        assert found.to_json()["memory_short"] is True
        assert str(found) == "no run yet; gave memory back once, and is short now"


def test_memory_is_kept_where_the_caller_wants_that(system: CountedMemory) -> None:
    system.has(SHORT)
    notices = Notices()
    with opened(notices, yield_memory=False) as engine:
        assert engine.preloaded()
        engine.run(TEXTS)
        assert engine.held_bytes > 0 and not watchers() and notices.none


def test_an_engine_that_is_opened_while_memory_is_short_fills_its_buffer_later(
    system: CountedMemory,
) -> None:
    system.has(SHORT)
    notices = Notices()
    with opened(notices) as engine:
        assert "is not filled" in notices.next()
        assert engine.held_bytes == 0 and not engine.preloaded()
        engine.run(TEXTS)
        assert engine.held_bytes == 0
        system.has(ENOUGH)
        assert "filled again" in notices.next()
        assert engine.preloaded(WAIT_S) and engine.held_bytes > 0


def test_another_target_is_without_a_preload_buffer_as_well_while_memory_is_short(
    system: CountedMemory,
) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        system.has(SHORT)
        notices.next()
        engine.set_target(fidelity=2, preload="1MB")
        engine.run(TEXTS)
        assert engine.held_bytes == 0
        system.has(ENOUGH)
        notices.next()
        assert engine.preloaded(WAIT_S)
        read = engine.run(TEXTS).bytes_read
        assert engine.run(TEXTS).bytes_read == read  # what is held is for this target


def test_a_target_without_a_preload_is_not_filled_for_after_a_shortage(
    system: CountedMemory,
) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        system.has(SHORT)
        notices.next()
        engine.set_target(fidelity=4)
        system.has(ENOUGH)
        assert "preload" not in notices.next()
        assert engine.held_bytes == 0


def test_what_the_caller_gave_back_is_filled_by_the_next_run_alone(system: CountedMemory) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        system.has(SHORT)
        notices.next()
        engine.release()
        system.has(ENOUGH)
        notices.next()
        assert engine.held_bytes == 0 and not engine.preloaded()
        engine.run(TEXTS)
        assert engine.preloaded(WAIT_S) and engine.held_bytes > 0


def test_a_system_that_no_longer_says_is_not_short(system: CountedMemory) -> None:
    notices = Notices()
    with opened(notices) as engine:
        assert engine.preloaded()
        system.has(SHORT)
        notices.next()
        system.says_nothing()
        assert "does not say any more" in notices.next()
        assert engine.preloaded(WAIT_S)


def test_two_engines_of_a_process_give_back_what_each_holds(system: CountedMemory) -> None:
    first, second = Notices(), Notices()
    with opened(first) as one, opened(second, "classification") as other:
        assert one.preloaded() and other.preloaded()
        system.has(SHORT)
        first.next(), second.next()
        assert one.held_bytes == other.held_bytes == 0
        one.close()
        system.has(ENOUGH)
        second.next()
        assert other.preloaded(WAIT_S) and other.held_bytes > 0


def test_a_notice_that_fails_leaves_the_watch_alone(system: CountedMemory) -> None:
    notices = Notices()

    def failing(words: str) -> None:
        notices(words)
        if "memory is" in words:
            raise RuntimeError("nobody listens")

    with sti.Engine.open(
        tiny_pack(), threads=1, profile=PROFILE, fidelity=4, preload="1MB", notify=failing
    ) as engine:
        assert engine.preloaded()
        for _ in range(2):
            system.has(SHORT)
            assert "given back" in notices.next()
            system.has(ENOUGH)
            assert "filled again" in notices.next()
        assert engine.preloaded(WAIT_S)


def test_closing_amid_shortages_ends_the_thread(system: CountedMemory) -> None:
    for number in range(20):
        with opened(Notices()) as engine:
            system.has(SHORT if number % 2 else ENOUGH)
            if number % 3:
                engine.run(TEXTS)
    assert not watchers()


def test_an_engine_that_is_dropped_is_collected_and_its_thread_ends(system: CountedMemory) -> None:
    engine = sti.Engine.open(
        tiny_pack(), threads=1, profile=PROFILE, fidelity=4, preload="1MB", notify=Notices()
    )
    engine.run(TEXTS)
    assert watchers()
    kept = weakref.ref(engine)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del engine
        gc.collect()
    assert [item.category for item in told] == [ResourceWarning]
    assert kept() is None and not watchers()


def close_in_child(engine: sti.Engine, ended: multiprocessing.SimpleQueue[str]) -> None:
    with pytest.raises(sti.RunError):
        engine.run(TEXTS)
    engine.close()
    with sti.Engine.open(tiny_pack(), threads=1, profile=PROFILE, fidelity=4) as own:
        own.run(TEXTS)
    ended.put("ended")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_close_the_engine_whatever_the_thread_did(system: CountedMemory) -> None:
    context = multiprocessing.get_context("fork")
    with opened(Notices()) as engine:
        engine.run(TEXTS)
        for available in (SHORT, ENOUGH, SHORT):
            system.has(available)
            ended = context.SimpleQueue()
            child = context.Process(target=close_in_child, args=(engine, ended))
            child.start()
            child.join(WAIT_S)
            assert child.exitcode == 0 and ended.get() == "ended"
        engine.run(TEXTS)


class Givers:
    """Takes note of what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refill_bytes = 0

    def give_preload_back(self) -> int:
        self.asked.append("preload back")
        self.refill_bytes = 4 * MB
        return 4 * MB

    def release(self) -> None:
        self.asked.append("all back")

    def fill_again(self) -> None:
        self.asked.append("fill")
        self.refill_bytes = 0


def test_nothing_is_given_back_amid_a_call_and_what_is_due_is_before_its_run(
    system: CountedMemory,
) -> None:
    givers, lock, notices = Givers(), threading.RLock(), Notices()
    watch = MemoryWatch(givers, lock, notices, wanted=True)
    try:
        with lock:  # as a run has it
            watch.took_memory()
            system.has(SHORT)
            looks = threading.Event()
            looks.wait(0.1)  # the thread sees it meanwhile
            assert givers.asked == []
            watch.before_run()
            assert givers.asked == ["preload back"]
            watch.took_memory()
            assert givers.asked == ["preload back"]
        assert "4.00 MB of held weights were given back" in notices.next()
        system.has(ENOUGH)
        assert "4.00 MB is filled again" in notices.next()
        assert givers.asked == ["preload back", "fill"]
    finally:
        watch.close()
        watch.close()
    assert not watchers()


def test_nothing_is_looked_at_while_there_is_nothing_to_give_back(
    system: CountedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    def counted() -> tuple[host.Memory, ...]:
        looks.append(None)
        return real()

    real = memory_pressure.look
    monkeypatch.setattr(memory_pressure, "look", counted)
    watch = MemoryWatch(Givers(), threading.RLock(), Notices(), wanted=True)

    def rests() -> bool:
        before, pause = len(looks), threading.Event()
        pause.wait(0.2)
        return len(looks) == before

    try:
        assert rests() and not watchers()
        for _ in range(2):
            watch.took_memory()
            before = len(looks)
            until(lambda before=before: len(looks) > before + 2)
            watch.released()
            until(rests)
    finally:
        watch.close()


IN_GROUP = """
import sys, threading
import sti
from sti.device import host, memory_pressure
from sti.device.lanes import STORAGE
from sti.device.lane_profiles import StorageProfile

told = threading.Semaphore(0)

def notify(words):
    if "memory is" in words:
        print(words, flush=True)
        told.release()

with sti.Engine.open(sys.argv[1], fidelity=4, preload="1MB", threads=1, notify=notify) as engine:
    assert engine.preloaded()
    before = engine.run(["a dog"]).embeddings
    ballast = []
    while host.memory().available_bytes > int(sys.argv[2]):
        ballast.append(bytearray(b"x") * 500_000)
    assert told.acquire(timeout=60), "not told that memory is short"
    assert engine.held_bytes == 0
    assert (engine.run(["a dog"]).embeddings == before).all()
    ballast.clear()
    host.trim_heap()
    assert told.acquire(timeout=60), "not told that memory is enough"
    assert engine.preloaded(60) and engine.held_bytes > 0
print("ended")
"""


def test_an_engine_in_a_group_that_kills_gives_memory_back_before_it_is_full() -> None:
    limit = 400 * MB
    command = [sys.executable, "-c", IN_GROUP, str(tiny_pack()), str(limit // 20)]
    try:
        with memory_group(limit) as words:
            found = subprocess.run(
                [*words, *command], cwd=ROOT, capture_output=True, text=True, check=False
            )
    except NoGroups as error:
        pytest.skip(str(error))
    assert found.returncode == 0, found.stderr[-2000:]
    lines = found.stdout.splitlines()
    assert lines[0].startswith("memory is short: ") and "of 400 MB are available" in lines[0]
    assert lines[-1] == "ended"
