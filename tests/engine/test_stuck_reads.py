"""Reads that do not return: a typed error in time, an engine that goes on, memory left alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from numpy.typing import NDArray

import sti
from sti.device.lanes import SEQUENTIAL
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from tests.support.packs import PROFILE, tiny_pack

TEXTS = ["the dog runs", "under the table"]
TIMEOUT = timedelta(seconds=0.05)


class Stuck:
    """Reads of which one waits for ``free``, and then writes nonsense first."""

    def __init__(self) -> None:
        self._inner = FileReader(tiny_pack())
        self.free = threading.Event()
        self.step: int | None = None
        """How many steps are read before one hangs."""
        self.rows = False
        """Whether the next read of token embeddings hangs."""

    @property
    def direct(self) -> bool:
        return self._inner.direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        if self.step is not None:
            self.step -= 1
            if self.step < 0:
                self.step = None
                self._hang(out)
        self._inner.read(item, out)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        if self.rows:
            self.rows = False
            self._hang(out)
        self._inner.read_rows(base, rows, out)

    def _hang(self, out: NDArray[np.uint8]) -> None:
        assert self.free.wait(30.0)
        out[:] = 0x5A

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    reader = Stuck()
    yield reader
    reader.free.set()
    for thread in threading.enumerate():
        if thread.name in ("sti-storage", "sti-rows", "sti-opening"):
            thread.join(30.0)
    reader.close()


def opened(stuck: Stuck, *, preload: str | None = None) -> sti.Engine:
    return sti.Engine.open(
        tiny_pack(),
        threads=1,
        profile=PROFILE,
        fidelity=8,
        storage=stuck,
        preload=preload,
        read_timeout=TIMEOUT,
    )


@pytest.mark.parametrize("mode", ["planned", "sequential"])
@pytest.mark.parametrize("what", ["step", "rows"])
def test_a_run_ends_in_time_and_the_next_one_is_right(
    what: str, mode: sti.Mode, stuck: Stuck
) -> None:
    with opened(stuck) as engine:
        right = engine.run(TEXTS, mode=mode)
        assert mode == "sequential" or right.plan.threads != SEQUENTIAL
        if what == "step":
            stuck.step = 2
        else:
            stuck.rows = True
        message = rf"{tiny_pack().name}: reading .* at \d+.* did not end within 0.05 s"
        with pytest.raises(sti.StorageError, match=message):
            engine.run(TEXTS, mode=mode)
        again = engine.run(TEXTS, mode=mode)
        np.testing.assert_array_equal(again.embeddings, right.embeddings)
        stuck.free.set()  # and what it writes now harms nobody
        for _ in range(3):
            np.testing.assert_array_equal(engine.run(TEXTS, mode=mode).embeddings, right.embeddings)


def test_a_preload_buffer_that_cannot_be_filled_is_filled_by_the_next_run(stuck: Stuck) -> None:
    stuck.step = 1
    with opened(stuck, preload="1MB") as engine:
        assert not engine.preloaded()
        engine.run(TEXTS)
        assert engine.preloaded()
        engine.run(TEXTS)


def test_closing_waits_no_longer_than_a_read_may_take(stuck: Stuck) -> None:
    stuck.step = 1
    engine = opened(stuck, preload="1MB")
    start = perf_counter()
    engine.close()
    assert perf_counter() - start < 10.0


def test_reads_that_all_hang_are_not_begun_any_more(stuck: Stuck) -> None:
    with opened(stuck) as engine:
        for _ in range(4):
            stuck.rows = True
            with pytest.raises(sti.StorageError):
                engine.run(TEXTS)
        with pytest.raises(sti.StorageError, match="4 reads did not end"):
            engine.run(TEXTS)
        stuck.free.set()
        for thread in threading.enumerate():
            if thread.name == "sti-rows":
                thread.join(10.0)
        engine.run(TEXTS)


def test_opening_ends_in_time_too(monkeypatch: pytest.MonkeyPatch, stuck: Stuck) -> None:
    pread, before = os.pread, len(list(Path("/proc/self/fd").iterdir()))

    def hang(fd: int, length: int, offset: int) -> bytes:
        assert stuck.free.wait(30.0)
        return pread(fd, length, offset)

    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)  # what is in memory is read without it
    monkeypatch.setattr(os, "pread", hang)
    with pytest.raises(sti.StorageError, match=r"within 0\.05 s"):
        sti.Engine.open(tiny_pack(), read_timeout=TIMEOUT)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("timeout", [30, "30", timedelta(0)])
def test_a_timeout_is_a_time_with_a_unit(timeout: object) -> None:
    with pytest.raises(sti.InputError, match="read_timeout"):
        sti.Engine.open(tiny_pack(), read_timeout=timeout)  # type: ignore[arg-type]
