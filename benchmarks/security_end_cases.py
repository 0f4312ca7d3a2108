"""Cases of the row ``processes``: Python ends, or a task or a run is interrupted.

In: a pack, what decides at random. What does not hold is raised, or told by how the process ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sti
from benchmarks.security_case_engines import AMID_S, TEXTS, busy, numbers, opened, works


def exit_daemons(pack: Path, pick: random.Random) -> None:
    """Python ends while daemon threads run."""
    engine = opened(pack, preload=pick.choice([None, "1MB"]))
    for _ in range(pick.randint(1, 3)):
        busy(engine)
    time.sleep(pick.uniform(0, AMID_S))


def exit_amid_opening(pack: Path, pick: random.Random) -> None:
    """Python ends while a daemon thread imports STI, opens an engine, and runs."""

    def work() -> None:
        with contextlib.suppress(sti.ClosedError):
            works(opened(pack))

    threading.Thread(target=work, daemon=True).start()
    time.sleep(pick.uniform(0, 2 * AMID_S))


def exit_others(pack: Path, pick: random.Random) -> None:
    """Python ends with other threads, handlers and engines that nobody closed."""
    engine = opened(pack)
    kind = pick.randrange(5)
    if kind == 0:
        threading.Thread(target=lambda: [engine.run(TEXTS) for _ in range(9)]).start()
    elif kind == 1:
        pool = ThreadPoolExecutor(2)
        for _ in range(5):
            pool.submit(engine.run, TEXTS)
    elif kind == 2:
        atexit.register(engine.run, TEXTS)
        busy(engine)
    elif kind == 3:
        busy(engine)
        threading.Thread(target=lambda: sys.exit(3)).start()
    else:
        busy(engine)
        sys.stdout.flush()
        os._exit(0)


def tasks(pack: Path, pick: random.Random) -> None:
    """``asyncio.to_thread``, cancelled at any moment."""

    async def main(engine: sti.Engine) -> None:
        for _ in range(5):
            task = asyncio.create_task(asyncio.to_thread(engine.run, TEXTS))
            await asyncio.sleep(pick.uniform(0, 0.03))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(engine.run, TEXTS)

    engine = opened(pack)
    asyncio.run(main(engine))
    if pick.random() < 0.5:
        engine.close()


def interrupted(pack: Path, pick: random.Random) -> None:
    """Ctrl-C amid runs of a program in Python."""
    with opened(pack, preload=pick.choice([None, "1MB"])) as engine:
        right = numbers(engine.run(TEXTS))
        timer = threading.Timer(pick.uniform(0, AMID_S), os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            while True:
                engine.run(TEXTS)
        except KeyboardInterrupt:
            pass
        timer.join()
        assert (numbers(engine.run(TEXTS)) == right).all(), "another answer"
