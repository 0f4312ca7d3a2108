"""Work that may never return: how long it is waited for, and what comes too late."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from sti.errors import StorageError
from sti.storage import threads, watched_reader
from sti.storage.byte_ranges import ByteRange
from sti.storage.threads import in_time
from sti.storage.watched_reader import WatchedReader


class Clock:
    """A clock that goes as the test says."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Hangs:
    """Reads that do not return until they are let."""

    direct = False

    def __init__(self) -> None:
        self.begun, self.free = threading.Event(), threading.Event()

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        self.begun.set()
        self.free.wait(20)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        self.read(ByteRange(base, 1), out)

    def close(self) -> None: ...


def test_time_in_which_a_process_was_stopped_is_none_of_a_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, storage = Clock(), Hangs()
    monkeypatch.setattr(watched_reader, "monotonic", clock)
    reader = WatchedReader(storage, 2.0, where="a file")
    item, out = ByteRange(0, 1), np.zeros(1, np.uint8)
    thread = threading.Thread(target=reader.read, args=(item, out))
    thread.start()
    storage.begun.wait(20)
    clock.now_s += 0.25
    reader.check()
    clock.now_s += 3600.0
    reader.check()
    for _ in range(5):
        clock.now_s += 0.25
        reader.check()
    clock.now_s += 0.25
    with pytest.raises(StorageError, match="within 2 s"):
        reader.check()
    assert reader.given_up
    storage.free.set()
    thread.join()


def test_time_in_which_a_process_was_stopped_is_none_of_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(threads, "LOOK_S", 0.01)
    monkeypatch.setattr(threads, "monotonic", clock)
    free = threading.Event()

    def work() -> int:
        clock.now_s += 3600.0
        free.wait(0.05)
        return 3

    assert in_time(work, 1.0) == 3


def test_what_comes_too_late_is_given_back_once() -> None:
    for _ in range(20):
        given: list[int] = []
        ended, begun = threading.Event(), threading.Event()

        def work(begun: threading.Event = begun) -> int:
            begun.wait(0.002)
            return 3

        def unwanted(found: int, given: list[int] = given, ended: threading.Event = ended) -> None:
            given.append(found)
            ended.set()

        try:
            assert in_time(work, 0.002, unwanted=unwanted) == 3
            ended.set()
        except TimeoutError:
            assert ended.wait(20)
            assert given == [3]
