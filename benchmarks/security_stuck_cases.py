"""Cases of the row ``processes``: reads that do not return, and threads that cannot be started.

In: a pack, what decides at random. What does not hold is raised.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sti
from benchmarks.security_case_engines import TEXTS, numbers, opened
from sti.device.profile import DeviceProfile
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.testing.faults import Fault, Stalls
from sti.testing.faulty_file import faulty_file

_TIMEOUT_S = 0.2


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
        right = numbers(engine.run(TEXTS, mode=mode))
        engine.preloaded()
        reader.after = reader.reads + pick.randrange(10)
    else:
        right = None
    start = time.monotonic()
    for _ in range(3):
        try:
            found = numbers(engine.run(TEXTS, mode=mode))
            right = found if right is None else right
            assert (found == right).all(), "another answer"
        except sti.StorageError:
            failed += 1
    assert failed <= 1, f"{failed} runs failed"
    assert time.monotonic() - start < 10.0
    if pick.random() < 0.5:
        reader.free.set()
        for _ in range(2):
            assert (numbers(engine.run(TEXTS, mode=mode)) == right).all(), "another answer"
    if pick.random() < 0.7:
        engine.close()


def stuck_opening(pack: Path, pick: random.Random) -> None:
    """A read of the header, or of what stays resident, does not return."""
    with faulty_file(pack) as faults:
        faults.inject(Fault(effect=Stalls(), at=pick.randrange(2)))
        try:
            opened(pack, read_timeout=f"{_TIMEOUT_S}s")
            raise AssertionError("it was opened")
        except sti.StorageError:
            pass
        finally:
            faults.release()
    with opened(pack) as engine:
        engine.run(TEXTS)
