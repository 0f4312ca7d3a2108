"""Cases of the row ``processes``: forks, and other processes of Python's own.

In: a pack, what decides at random. What does not hold is raised.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import sti
from benchmarks.security_case_engines import AMID_S, END_S, TEXTS, answer, busy, opened, refused


def forked(child: Callable[[], object]) -> None:
    """A forked child that does something, and ends as Python ends, within the time."""
    process = os.fork()
    if process == 0:
        child()
        sys.exit(0)
    until = time.monotonic() + END_S
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            assert code == 0, f"the child ended with {code}"
            return
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError("the child hangs")


def fork(pack: Path, pick: random.Random) -> None:
    """A fork amid a run: every method, closing, dropping, another engine."""
    engine = opened(pack, preload=pick.choice([None, "1MB"]))
    busy(engine)
    time.sleep(pick.uniform(0, AMID_S))
    uses: list[Callable[[], object]] = [
        lambda: engine.run(TEXTS),
        lambda: list(engine.stream(TEXTS)),
        lambda: (engine.embed if engine.task == "embedding" else engine.classify)(TEXTS),
        lambda: engine.set_target(fidelity=2),
        lambda: engine.plan_for(tokens=4),
        lambda: engine.planned(tokens=4),
        lambda: engine.tokenize(TEXTS),
        engine.health,
        engine.release,
        engine.preloaded,
    ]
    facts = ["held_bytes", "mapped_bytes", "direct", "threads", "target", "manifest", "closed"]

    def use() -> None:
        for call in uses:
            refused(call)
        for name in facts:
            getattr(engine, name, None)
        repr(engine)

    def new() -> None:
        with opened(pack) as own:
            own.run(TEXTS)

    child = pick.choice([use, engine.close, new, lambda: None, engine.__exit__])
    forked(child)
    engine.run(TEXTS)
    engine.close()


def fork_amid_opening(pack: Path, pick: random.Random) -> None:
    """A fork while another thread opens an engine.

    What that imports is imported before: Python itself hangs in a child that imports what another
    thread was importing at the fork.
    """
    answer(pack)
    found: list[sti.Engine] = []
    thread = threading.Thread(target=lambda: found.append(opened(pack)))
    thread.start()
    time.sleep(pick.uniform(0, AMID_S))

    def child() -> None:
        with opened(pack) as own:
            own.run(TEXTS)

    forked(child)
    thread.join()
    found[0].run(TEXTS)
    found[0].close()


def started(pack: Path, pick: random.Random) -> None:
    """Processes of ``multiprocessing``, amid a run."""
    with opened(pack) as engine:
        busy(engine)
        context = multiprocessing.get_context(pick.choice(["fork", "spawn", "forkserver"]))
        child = context.Process(target=answer, args=(pack,))  # type: ignore[attr-defined]
        child.start()
        child.join(END_S)
        assert child.exitcode == 0, f"the child ended with {child.exitcode}"
