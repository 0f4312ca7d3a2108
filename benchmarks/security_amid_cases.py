"""Cases of the row ``processes``: calls and forks amid the caller's own run, frozen processes.

In: a pack, what decides at random. What does not hold is raised.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sti
from benchmarks.security_case_engines import AMID_S, END_S, TEXTS, numbers, opened
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader

_RUNS = 5
_FROZEN_S = 1.5


def _runs_amid(engine: sti.Engine, pick: random.Random, handler: Callable[[], object]) -> None:
    """Runs, amid which a signal handler is called."""
    signal.signal(signal.SIGALRM, lambda *_: handler())
    for _ in range(_RUNS):
        signal.setitimer(signal.ITIMER_REAL, pick.uniform(1e-4, AMID_S / 5))
        engine.run(TEXTS * 4)
    signal.setitimer(signal.ITIMER_REAL, 0)


def close_amid(pack: Path, pick: random.Random) -> None:
    """``close`` in a signal handler: nothing is left."""
    engine = opened(pack, preload=pick.choice([None, "1MB"]))
    try:
        _runs_amid(engine, pick, engine.close)
    except sti.ClosedError:
        signal.setitimer(signal.ITIMER_REAL, 0)
    engine.close()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sti-")]
    assert not left, f"threads are left: {left}"


def run_amid(pack: Path, pick: random.Random) -> None:
    """Other calls in a signal handler: refused or right, and the run's own answer is."""
    with opened(pack) as engine:
        right = numbers(engine.run(TEXTS))
        call = pick.choice(
            [
                lambda: engine.run(TEXTS),
                lambda: list(engine.stream(TEXTS)),
                lambda: engine.plan_for(tokens=9),
                engine.preloaded,
                engine.release,
            ]
        )

        def handler() -> None:
            try:
                call()
            except sti.ClosedError:
                raise
            except sti.RunError:
                pass

        _runs_amid(engine, pick, handler)
        assert (numbers(engine.run(TEXTS)) == right).all(), "another answer"


def fork_amid(pack: Path, pick: random.Random) -> None:
    """A fork in a signal handler; the child goes on in the run."""
    parent, children = os.getpid(), list[int]()

    def handler() -> None:
        if os.getpid() == parent and (child := os.fork()):
            children.append(child)

    engine = opened(pack)
    try:
        _runs_amid(engine, pick, handler)
    except sti.RunError:
        assert os.getpid() != parent
    if os.getpid() != parent:
        engine.close()
        os._exit(0)
    until = time.monotonic() + END_S
    while children:
        if os.waitpid(children[-1], os.WNOHANG)[0]:
            children.pop()
        elif time.monotonic() > until:
            for child in children:
                os.kill(child, signal.SIGKILL)
            raise TimeoutError("a child hangs")
        time.sleep(0.005)
    engine.close()


def _fails(pack: Path) -> None:
    sti.Engine.open(pack, latency="1us")


def pool(pack: Path, pick: random.Random) -> None:
    """An error with fields in a pool of processes."""
    context = multiprocessing.get_context(pick.choice(["spawn", "forkserver"]))
    with context.Pool(1) as workers:
        try:
            workers.apply_async(_fails, (pack,)).get(END_S)
        except sti.InfeasibleError as error:
            found = error.limit
        else:
            found = "none"
    assert found == "latency", f"the limit that came is {found}"


class _Slow(FileReader):
    """Reads that take a while."""

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """As ``Reader``."""
        time.sleep(0.05)
        super().read(item, out)


def frozen(pack: Path, pick: random.Random) -> None:
    """The process is stopped amid a slow read for longer than a read may take."""
    with opened(pack) as engine:
        profile = engine.profile
    code = (
        "import os, signal, sys, time; time.sleep(float(sys.argv[2])); "
        "os.kill(int(sys.argv[1]), signal.SIGSTOP); time.sleep(float(sys.argv[3])); "
        "os.kill(int(sys.argv[1]), signal.SIGCONT)"
    )
    engine = opened(pack, storage=_Slow(pack), profile=profile, read_timeout="1s")
    after = str(pick.uniform(0, AMID_S))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(os.getpid()), after, str(_FROZEN_S)]
    ) as other:
        while other.poll() is None:
            engine.run(TEXTS)
    engine.close()
