"""Seconds that threads waited for a core, on systems that say it and on others."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sti.device import host, run_queue


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process's threads, filled by the test."""
    monkeypatch.setattr(host, "ROOT", tmp_path)
    folder = tmp_path / "proc" / "self" / "task"
    folder.mkdir(parents=True)
    return folder


def put(tasks: Path, thread: int, text: str) -> None:
    (tasks / str(thread)).mkdir()
    (tasks / str(thread) / "schedstat").write_text(text)


def test_waits_of_the_named_threads_are_added_up(tasks: Path) -> None:
    put(tasks, 7, "5000000 250000000 12\n")
    put(tasks, 8, "5000000 500000000 3\n")
    put(tasks, 9, "1 1000000000 1\n")
    assert run_queue.waited_s([7, 8]) == pytest.approx(0.75)
    assert run_queue.ran_s([7, 8]) == pytest.approx(0.01)
    assert run_queue.waited_s([]) == 0.0


def test_a_thread_that_ended_makes_the_sum_unknown(tasks: Path) -> None:
    put(tasks, 7, "5000000 250000000 12\n")
    assert run_queue.waited_s([7, 8]) is None


@pytest.mark.parametrize("text", ["0 0 0\n", "", "1 2\n", "1 x 3\n", "1 -2 3\n", "1 2 3 4\n"])
def test_a_kernel_that_does_not_count_is_not_believed(tasks: Path, text: str) -> None:
    put(tasks, 7, text)
    assert run_queue.waited_s([7]) is None
    assert run_queue.ran_s([7]) is None


def test_a_system_without_proc_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ROOT", tmp_path)
    assert run_queue.waited_s([1]) is None


@pytest.mark.skipif(
    not os.access("/proc/self/schedstat", os.R_OK), reason="this system counts no waits"
)
def test_this_machine_says_how_long_this_thread_waited() -> None:
    before = run_queue.waited_s([threading.get_native_id()])
    assert before is not None and before >= 0.0
    after = run_queue.waited_s([threading.get_native_id()])
    assert after is not None and after >= before


def test_a_counter_is_asked_again_and_again(tasks: Path) -> None:
    put(tasks, 7, "5000000 250000000 12\n")
    counter = run_queue.WaitCounter(7)
    assert counter.read() == counter.read() == pytest.approx(0.25)
    (tasks / "7" / "schedstat").write_text("6000000 750000000 13\n")
    assert counter.read() == pytest.approx(0.75)
    (tasks / "7" / "schedstat").write_text("0 0 0\n")
    assert counter.read() is None
    counter.close()
    counter.close()
    assert counter.read() is None


def test_a_counter_of_a_thread_that_is_not_there_knows_nothing(tasks: Path) -> None:
    counter = run_queue.WaitCounter(7)
    assert counter.read() is None
    counter.close()


@pytest.mark.skipif(
    not os.access("/proc/self/schedstat", os.R_OK), reason="this system counts no waits"
)
def test_a_counter_of_a_thread_that_ended_knows_nothing() -> None:
    found: list[run_queue.WaitCounter] = []
    thread = threading.Thread(
        target=lambda: found.append(run_queue.WaitCounter(threading.get_native_id()))
    )
    thread.start()
    thread.join()
    (counter,) = found
    while counter.read() is not None:  # the system may still be at its end
        pass
    counter.close()
