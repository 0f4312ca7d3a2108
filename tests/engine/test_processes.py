"""Engines in forked children, at the end of Python, and where no thread can be started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import sti
from tests.support import processes
from tests.support.packs import tiny_pack
from tests.support.paths import ROOT

BEGIN = """
import asyncio, atexit, os, sys, threading, time, warnings
warnings.simplefilter("error")
import sti
engine = sti.Engine.open(sys.argv[1], threads=1, fidelity=8)
ran = threading.Event()

def work():
    try:
        while True:
            engine.run(["a text"] * 4)
            ran.set()
    except sti.ClosedError:
        pass

def refused(call):
    try:
        call()
    except (sti.RunError, sti.ClosedError):
        return
    raise SystemExit(f"{call} was not refused")
"""


def ended(code: str) -> subprocess.CompletedProcess[str]:
    """The same, with an engine of a tiny pack."""
    return processes.ended(BEGIN + code, str(tiny_pack()))


def test_python_ends_while_engines_are_open() -> None:
    found = ended(
        """
async def main():
    task = asyncio.create_task(asyncio.to_thread(engine.run, ["a text"]))
    await asyncio.sleep(0)
    task.cancel()
asyncio.run(main())
engine.run(["a text"])
atexit.register(lambda: print(len(engine.run(["a text"]).texts)))
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
ran.wait()
threading.Thread(target=lambda: [engine.run(["a text"]) for _ in range(20)]).start()
"""
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "1\n", "")


def test_a_forked_child_may_close_an_engine_and_open_its_own() -> None:
    found = ended(
        """
threading.Thread(target=work, daemon=True).start()
ran.wait()
for how in ("use", "close", "drop"):
    child = os.fork()
    if child == 0:
        if how == "use":
            for call in (
                lambda: engine.run(["a text"]),
                lambda: list(engine.stream(["a text"])),
                lambda: engine.set_target(fidelity=2),
                lambda: engine.planned(tokens=4),
                engine.release,
                engine.preloaded,
                engine.health,
            ):
                refused(call)
            with sti.Engine.open(sys.argv[1], threads=1, fidelity=8) as own:
                own.run(["a text"])
        elif how == "close":
            with engine:
                pass
            engine.close()
        else:
            del engine, work
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, how
engine.run(["a text"])
"""
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No thread can be started."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        yield patched


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_without_threads_opening_fails_and_leaves_nothing(
    no_threads: pytest.MonkeyPatch,
) -> None:
    before = descriptors(), threading.active_count()
    with pytest.raises(sti.RunError, match="ulimit -u"):
        sti.Engine.open(tiny_pack(), threads=1, fidelity=8)
    assert (descriptors(), threading.active_count()) == before


@pytest.mark.parametrize("threads", [1, 2])
def test_without_threads_a_run_fails_and_the_next_one_succeeds(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, left = threading.Thread.start, [0]

    def start(thread: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        usual(thread)

    with sti.Engine.open(tiny_pack(), threads=threads, fidelity=8) as engine:
        failed = 0
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            for number in range(5):
                left[0] = number
                try:
                    engine.run(["a text"])
                except sti.RunError:
                    failed += 1
        assert failed
        found = engine.run(["a text"]).embeddings
        np.testing.assert_array_equal(engine.run(["a text"], mode="sequential").embeddings, found)


def test_other_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    module = tmp_path / "sleeps.py"
    module.write_text(
        "import os, time\nfrom sti.device.process_answers import serve\n"
        "serve(lambda job, _: (open(job['path'], 'w').write(str(os.getpid())), time.sleep(30)))\n"
    )
    code = (
        "import sys; from sti.device.other_process import ask\n"
        f"ask('sleeps', {{'path': {str(tmp_path / 'pid')!r}}}, what='it', remedy='', "
        "patience_s=60, notify=print)"
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert parent.poll() is None
            threading.Event().wait(0.01)
        parent.kill()
    child = int((tmp_path / "pid").read_text())
    for _ in range(300):
        if not is_alive(child):
            return
        threading.Event().wait(0.01)
    raise AssertionError("it goes on")


def is_alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def test_an_engine_may_be_closed_or_asked_amid_the_callers_own_run() -> None:
    found = ended(
        """
import signal
texts = ["a text"] * 4
with sti.Engine.open(sys.argv[1], threads=2, fidelity=8) as other:
    right = other.run(texts).embeddings.tolist()

def amid(engine, handler):
    signal.signal(signal.SIGALRM, lambda *_: handler())
    for number in range(40):
        signal.setitimer(signal.ITIMER_REAL, 2e-4 + 1e-4 * number)
        yield engine.run(texts).embeddings.tolist()

refusals = []
def uses():
    for call in (lambda: engine.run(texts), lambda: engine.set_target(fidelity=2)):
        try:
            call()
        except sti.RunError as error:
            refusals.append(str(error))
    engine.release()

for answers in amid(engine, uses):
    assert engine.run(texts).texts
signal.setitimer(signal.ITIMER_REAL, 0)
assert any("this very thread" in line for line in refusals)
engine.set_target(fidelity=8)
assert engine.run(texts).embeddings.tolist() == right
try:
    for _ in amid(engine, engine.close):
        pass
except sti.ClosedError:
    pass
signal.setitimer(signal.ITIMER_REAL, 0)
engine.close()
assert not [thread for thread in threading.enumerate() if thread.name.startswith("sti-")]
"""
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_a_child_forked_amid_the_callers_own_run_is_told_that_it_has_no_threads() -> None:
    found = ended(
        """
import signal
parent, children = os.getpid(), []

def fork(*_):
    child = os.fork()
    if child:
        children.append(child)

signal.signal(signal.SIGALRM, fork)
for number in range(8):
    signal.setitimer(signal.ITIMER_REAL, 2e-4 + 1e-3 * number)
    try:
        engine.run(["a text"] * 4)
    except sti.RunError:
        assert os.getpid() != parent
    if os.getpid() != parent:
        os._exit(0)
    for child in children:
        for _ in range(500):
            if os.waitpid(child, os.WNOHANG)[0]:
                break
            time.sleep(0.01)
        else:
            os.kill(child, signal.SIGKILL)
            raise SystemExit("the child hangs")
    children.clear()
signal.setitimer(signal.ITIMER_REAL, 0)  # it may not have come to the last one
assert engine.run(["a text"]).texts
"""
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_opening_that_fails_early_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from sti.engine import core

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = descriptors(), threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(core, "MemoryBudget", fails)
        with pytest.raises(KeyboardInterrupt):
            sti.Engine.open(tiny_pack(), threads=1, fidelity=8)
    assert (descriptors(), threading.active_count()) == before


def test_closing_that_was_interrupted_is_finished_by_closing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = sti.Engine.open(tiny_pack(), threads=2, fidelity=8)
    engine.run(["a text"])
    usual, left = threading.Thread.join, [2]

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        usual(thread, timeout)

    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", join)
        with pytest.raises(KeyboardInterrupt):
            engine.close()
        engine.close()
    assert not [item for item in threading.enumerate() if item.name.startswith("sti-")]
    assert descriptors() < before
