"""One case of the row ``processes``, as a process of its own: ``KIND PACK SEED``.

Ends with 0 where all that the case promises holds; what does not is raised.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sti
from sti.device.profile import DeviceProfile
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader

FIDELITY = 3
TEXTS = ["a text", "and another one that is somewhat longer"]
_AMID_S = 0.15
"""Moments lie within so many seconds from the first run on."""
_TIMEOUT_S = 0.2
_END_S = 20.0


def opened(pack: Path, **more: object) -> sti.Engine:
    """An engine, some with weights held."""
    return sti.Engine.open(pack, fidelity=FIDELITY, **more)  # type: ignore[arg-type]


def works(engine: sti.Engine, ran: threading.Event | None = None) -> None:
    """Run until the engine is closed."""
    try:
        while True:
            engine.run(TEXTS)
            if ran is not None:
                ran.set()
    except sti.ClosedError:
        pass


def busy(engine: sti.Engine, *, daemon: bool = True) -> threading.Thread:
    """A thread that runs."""
    ran = threading.Event()
    thread = threading.Thread(target=works, args=(engine, ran), daemon=daemon)
    thread.start()
    assert ran.wait(_END_S)
    return thread


def refused(call: Callable[[], object]) -> None:
    """What is called raises ``RunError``."""
    try:
        call()
    except sti.RunError:
        return
    raise AssertionError("it was not refused")


def forked(child: Callable[[], object]) -> None:
    """A forked child that does something, and ends as Python ends, within the time."""
    process = os.fork()
    if process == 0:
        child()
        sys.exit(0)
    until = time.monotonic() + _END_S
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
    time.sleep(pick.uniform(0, _AMID_S))
    uses: list[Callable[[], object]] = [
        lambda: engine.run(TEXTS),
        lambda: list(engine.stream(TEXTS)),
        lambda: engine.embed(TEXTS),
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
    _answer(pack)
    found: list[sti.Engine] = []
    thread = threading.Thread(target=lambda: found.append(opened(pack)))
    thread.start()
    time.sleep(pick.uniform(0, _AMID_S))

    def child() -> None:
        with opened(pack) as own:
            own.run(TEXTS)

    forked(child)
    thread.join()
    found[0].run(TEXTS)
    found[0].close()


def _answer(pack: Path) -> None:
    with opened(pack) as engine:
        engine.run(TEXTS)


def started(pack: Path, pick: random.Random) -> None:
    """Processes of ``multiprocessing``, amid a run."""
    with opened(pack) as engine:
        busy(engine)
        context = multiprocessing.get_context(pick.choice(["fork", "spawn", "forkserver"]))
        child = context.Process(target=_answer, args=(pack,))  # type: ignore[attr-defined]
        child.start()
        child.join(_END_S)
        assert child.exitcode == 0, f"the child ended with {child.exitcode}"


def exit_daemons(pack: Path, pick: random.Random) -> None:
    """Python ends while daemon threads run."""
    engine = opened(pack, preload=pick.choice([None, "1MB"]))
    for _ in range(pick.randint(1, 3)):
        busy(engine)
    time.sleep(pick.uniform(0, _AMID_S))


def exit_amid_opening(pack: Path, pick: random.Random) -> None:
    """Python ends while a daemon thread imports STI, opens an engine, and runs."""

    def work() -> None:
        with contextlib.suppress(sti.ClosedError):
            works(opened(pack))

    threading.Thread(target=work, daemon=True).start()
    time.sleep(pick.uniform(0, 2 * _AMID_S))


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


def no_threads(pack: Path, pick: random.Random) -> None:
    """No thread can be started from some one on."""
    usual, left = threading.Thread.start, pick.randrange(14)

    def start(thread: threading.Thread) -> None:
        nonlocal left
        if left == 0:
            raise RuntimeError("can't start new thread")
        left -= 1
        usual(thread)

    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    threading.Thread.start = start  # type: ignore[method-assign]
    engine = None
    try:
        engine = opened(pack, preload=pick.choice([None, "1MB"]))
        for _ in range(3):
            engine.run(TEXTS)
    except sti.RunError:
        pass
    threading.Thread.start = usual  # type: ignore[method-assign]
    if engine is None:
        after = len(os.listdir("/proc/self/fd")), threading.active_count()
        assert after == before, f"descriptors and threads: {before}, then {after}"
        engine = opened(pack)
    engine.run(TEXTS)
    engine.close()
    assert threading.active_count() == before[1]


class Stuck:
    """Reads of which one does not return until it is let."""

    def __init__(self, pack: Path) -> None:
        self._inner = FileReader(pack)
        self.free = threading.Event()
        self.after: int | None = None
        self.reads = 0

    @property
    def direct(self) -> bool:
        """As the file's."""
        return self._inner.direct

    def _count(self, out: NDArray[np.uint8]) -> None:
        self.reads += 1
        if self.after is not None and self.reads > self.after:
            self.after = None
            self.free.wait()
            out[:] = 0x5A

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """As ``Reader``."""
        self._count(out)
        self._inner.read(item, out)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """As ``Reader``."""
        self._count(out)
        self._inner.read_rows(base, rows, out)

    def close(self) -> None:
        """As ``Reader``."""
        self._inner.close()


def stuck_read(pack: Path, pick: random.Random) -> None:
    """A read does not return, in a run or while the preload buffer is filled."""
    with opened(pack) as engine:
        profile: DeviceProfile = engine.profile
    reader, mode = Stuck(pack), pick.choice(["planned", "sequential"])
    preload = pick.choice([None, "1MB"])
    amid_fill = preload is not None and pick.random() < 0.5
    if amid_fill:
        reader.after = pick.randrange(3)
    engine = opened(
        pack, storage=reader, profile=profile, preload=preload, read_timeout=f"{_TIMEOUT_S}s"
    )
    failed = 0
    if not amid_fill:
        right = engine.run(TEXTS, mode=mode).embeddings
        engine.preloaded()
        reader.after = reader.reads + pick.randrange(10)
    else:
        right = None
    start = time.monotonic()
    for _ in range(3):
        try:
            found = engine.run(TEXTS, mode=mode).embeddings
            right = found if right is None else right
            assert (found == right).all(), "another answer"
        except sti.StorageError:
            failed += 1
    assert failed <= 1, f"{failed} runs failed"
    assert time.monotonic() - start < 10.0
    if pick.random() < 0.5:
        reader.free.set()
        for _ in range(2):
            assert (engine.run(TEXTS, mode=mode).embeddings == right).all(), "another answer"
    if pick.random() < 0.7:
        engine.close()


def stuck_opening(pack: Path, pick: random.Random) -> None:
    """A read of the header, or of what stays resident, does not return."""
    pread, left = os.pread, pick.randrange(2)

    def hang(fd: int, length: int, offset: int) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            time.sleep(3600)
        return pread(fd, length, offset)

    os.pread = hang
    try:
        opened(pack, read_timeout=f"{_TIMEOUT_S}s")
        raise AssertionError("it was opened")
    except sti.StorageError:
        os.pread = pread
    with opened(pack) as engine:
        engine.run(TEXTS)


def interrupted(pack: Path, pick: random.Random) -> None:
    """Ctrl-C amid runs of a program in Python."""
    with opened(pack, preload=pick.choice([None, "1MB"])) as engine:
        right = engine.run(TEXTS).embeddings
        timer = threading.Timer(pick.uniform(0, _AMID_S), os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            while True:
                engine.run(TEXTS)
        except KeyboardInterrupt:
            pass
        timer.join()
        assert (engine.run(TEXTS).embeddings == right).all(), "another answer"


CASES: dict[str, Callable[[Path, random.Random], None]] = {
    "fork": fork,
    "fork amid opening": fork_amid_opening,
    "multiprocessing": started,
    "end, daemons": exit_daemons,
    "end amid opening": exit_amid_opening,
    "end, others": exit_others,
    "asyncio": tasks,
    "no threads": no_threads,
    "stuck read": stuck_read,
    "stuck opening": stuck_opening,
    "interrupted": interrupted,
}
"""By kind."""


if __name__ == "__main__":
    CASES[sys.argv[1]](Path(sys.argv[2]), random.Random(int(sys.argv[3])))
