"""One measurement at a time: others wait, not for ever, and nothing stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sti.calibration import measuring_lock
from sti.calibration.measuring_lock import one_at_a_time

WAITING = "waiting for another process to measure"
HOLD = """
import sys
from pathlib import Path
from sti.calibration.measuring_lock import one_at_a_time
with one_at_a_time(Path(sys.argv[1]), notify=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input is closed."""
    pytest.importorskip("fcntl")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_nobody_waits_where_nobody_measures(tmp_path: Path) -> None:
    told = list[str]()
    for _ in range(2):
        with one_at_a_time(tmp_path / "made when needed", notify=told.append) as waited:
            assert not waited
    assert told == []


def test_a_process_waits_for_another_one_and_is_told_once(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    told = list[str]()

    def notify(text: str) -> None:
        told.append(text)
        assert owner.stdin is not None
        owner.stdin.close()

    with one_at_a_time(tmp_path, notify=notify) as waited:
        assert waited and owner.wait(10) == 0
    assert told == [WAITING]


def test_the_lock_of_a_process_that_was_killed_is_free(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    with one_at_a_time(tmp_path, notify=lambda _: owner.kill()) as waited:
        assert waited


def test_whoever_has_waited_long_enough_goes_on_without_the_lock(
    tmp_path: Path, owner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_lock, "LONGEST_WAIT_S", 0.05)
    with one_at_a_time(tmp_path, notify=lambda _: None) as waited:
        assert waited and owner.poll() is None


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals")
def test_an_interrupt_ends_the_wait(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    def interrupt(_: str) -> None:
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt), one_at_a_time(tmp_path, notify=interrupt):
        pytest.fail("the lock is not ours")
    assert owner.poll() is None
    assert owner.stdin is not None
    owner.stdin.close()
    with one_at_a_time(tmp_path, notify=lambda _: None):
        pass  # nothing stayed locked


def test_threads_of_one_process_take_turns(tmp_path: Path) -> None:
    inside, most = 0, 0
    entered = threading.Event()

    def measure() -> None:
        nonlocal inside, most
        with one_at_a_time(tmp_path, notify=lambda _: entered.set()):
            inside += 1
            most = max(most, inside)
            entered.wait(5.0)  # until another one waits
            inside -= 1

    threads = [threading.Thread(target=measure) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_a_directory_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with one_at_a_time(tmp_path / "file" / "sti", notify=pytest.fail) as waited:
        assert not waited


def test_what_fails_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), one_at_a_time(tmp_path, notify=pytest.fail):
        raise ValueError("broken")
    with one_at_a_time(tmp_path, notify=pytest.fail):
        pass
