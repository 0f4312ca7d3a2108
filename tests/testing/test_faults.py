"""Faults that are injected into reads: which calls they meet, and what comes of it."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sti.errors import PackCorruptError, StorageError
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer
from sti.testing.faults import (
    Call,
    EndsEarly,
    Fails,
    Fault,
    Flipped,
    Injector,
    Raises,
    Replaced,
    Stalls,
    Truncated,
    Zeroed,
)
from sti.testing.faulty_file import faulty_file
from sti.testing.faulty_reader import FaultyReader

SIZE = 8 * SECTOR
FIRST = ByteRange(0, SECTOR)
EIO = Fails(errno.EIO)
WAIT_S = 20


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(3).integers(1, 256, SIZE, dtype=np.uint8).tobytes()


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "data"
    file.write_bytes(content)
    return file


def read(reader: FileReader | FaultyReader, item: ByteRange = FIRST) -> bytes:
    out = aligned_buffer(item.length)
    reader.read(item, out)
    return out[: item.length].tobytes()


def rows(reader: FileReader | FaultyReader, numbers: list[int]) -> bytes:
    out = np.empty((len(numbers), 100), dtype=np.uint8)
    reader.read_rows(10, np.array(numbers), out)
    return out.tobytes()


def outcomes(reader: FaultyReader, count: int) -> str:
    """One letter a read: e for an error, else a dot."""
    found = ""
    for _ in range(count):
        try:
            read(reader)
            found += "."
        except StorageError:
            found += "e"
    return found


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(effect=EIO), "e....."),
        (Fault(effect=EIO, at=2), "..e..."),
        (Fault(effect=EIO, at=1, times=3), ".eee.."),
        (Fault(effect=EIO, at=4, times=None), "....ee"),
        (Fault(effect=EIO, kind="rows", times=None), "......"),
        (Fault(effect=EIO, place=ByteRange(SECTOR, 9), times=None), "......"),
        (Fault(effect=EIO, place=ByteRange(SECTOR - 1, 1), at=1), ".e...."),
        (Fault(effect=EIO, when=lambda call: call.place.offset > 0, times=None), "......"),
        (Fault(effect=EIO, chance=0.0, times=None), "......"),
    ],
)
def test_a_fault_meets_the_calls_it_names(path: Path, fault: Fault, expected: str) -> None:
    reader = FaultyReader(FileReader(path), fault)
    assert outcomes(reader, 6) == expected
    assert reader.calls == 6
    assert len(reader.injected) == expected.count("e")
    reader.inject()
    assert outcomes(reader, 2) == ".."
    reader.close()


def test_chances_are_drawn_from_the_seed(path: Path) -> None:
    fault, found = Fault(effect=EIO, chance=0.5, times=None), []
    for seed in (1, 1, 2):
        reader = FaultyReader(FileReader(path), fault, seed=seed)
        found.append(outcomes(reader, 64))
        reader.close()
    assert found[0] == found[1] != found[2]
    assert 10 < found[0].count("e") < 54


def test_calls_of_many_threads_are_counted_once_each() -> None:
    injector = Injector([Fault(effect=EIO, at=100, times=50)])
    with ThreadPoolExecutor(4) as pool:
        met = list(pool.map(lambda _: len(injector.meet(Call("read", FIRST))), range(400)))
    assert sum(met) == len(injector.injected) == 50 and injector.calls == 400


def test_errors_are_those_of_a_reader_of_files(path: Path) -> None:
    reader = FaultyReader(FileReader(path), Fault(effect=EIO, times=2), name="the card")
    with pytest.raises(StorageError, match="the card: reading 4096 bytes at 0 failed") as caught:
        read(reader)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StorageError):
        rows(reader, [3])
    reader.inject(Fault(effect=EndsEarly(), times=2))
    with pytest.raises(PackCorruptError, match="ends at byte 2048"):
        read(reader)
    with pytest.raises(PackCorruptError, match="ends at byte 560"):
        rows(reader, [1, 5])
    reader.inject(Fault(effect=Truncated(300), times=2))
    with pytest.raises(PackCorruptError, match="ends at byte 300"):
        rows(reader, [0, 1, 2, 3])
    assert len(rows(reader, [0, 1])) == 200
    for kind in (KeyboardInterrupt, MemoryError):
        reader.inject(Fault(effect=Raises(kind)))
        with pytest.raises(kind, match="injected"):
            read(reader)
    reader.close()


def expected_after(content: bytes) -> dict[str, tuple[Fault, bytes]]:
    other = bytes(reversed(content))
    flipped, zeroed = bytearray(content), bytearray(content)
    flipped[77] ^= 6
    zeroed[50:120] = bytes(70)
    return {
        "flipped": (Fault(effect=Flipped(77, mask=6), times=None), bytes(flipped)),
        "zeroed": (Fault(effect=Zeroed(ByteRange(50, 70)), times=None), bytes(zeroed)),
        "replaced": (Fault(effect=Replaced(other), times=None), other),
        "far away": (Fault(effect=Flipped(5 * SECTOR), times=None), content),
    }


@pytest.mark.parametrize("name", ["flipped", "zeroed", "replaced", "far away"])
def test_bytes_change_as_the_effect_says(path: Path, content: bytes, name: str) -> None:
    fault, changed = expected_after(content)[name]
    picked = (0, 1, 40)
    expected = b"".join(changed[10 + 100 * row : 110 + 100 * row] for row in picked)
    reader = FaultyReader(FileReader(path), fault)
    assert (read(reader), rows(reader, [*picked])) == (changed[:SECTOR], expected)
    reader.close()
    with FileReader(path) as own, faulty_file(path, fault):
        assert (read(own), rows(own, [*picked])) == (changed[:SECTOR], expected)


def test_a_stalled_read_goes_on_when_released_or_after_its_time(path: Path, content: bytes) -> None:
    reader = FaultyReader(FileReader(path), Fault(effect=Stalls()))
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(read(reader)))
    thread.start()
    thread.join(0.02)
    assert thread.is_alive() and reader.injected and not found
    assert read(reader) == content[:SECTOR]  # others go on meanwhile
    reader.release()
    thread.join(WAIT_S)
    assert found == [content[:SECTOR]]
    reader.inject(Fault(effect=Stalls(0.001)))
    assert read(reader) == content[:SECTOR]
    reader.close()


def test_a_faulty_file_is_faulty_for_every_reader_within_its_block(
    path: Path, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(content)
    before = os.pread, os.preadv
    with FileReader(path) as reader, FileReader(tmp_path / "other") as other:
        with faulty_file(path, Fault(effect=EIO, at=1)) as injector:
            assert read(reader) == read(other) == content[:SECTOR]
            with pytest.raises(StorageError, match=f"{path}: .* at 0 failed: Input"):
                read(reader)
            assert injector.calls == 2
            injector.inject(Fault(effect=EndsEarly(0.3)), Fault(effect=EndsEarly(0.6), at=1))
            assert read(reader) == content[:SECTOR]  # it asks for the rest
            assert len(injector.injected) == 3
            injector.inject(Fault(effect=Truncated(SECTOR + 5), times=None))
            with pytest.raises(PackCorruptError, match=f"ends at byte {SECTOR + 5}"):
                read(reader, ByteRange(0, 2 * SECTOR))
        assert read(reader, ByteRange(0, SIZE)) == content
    assert before == (os.pread, os.preadv)


def test_scattered_buffers_of_a_faulty_file_are_changed_too(path: Path, content: bytes) -> None:
    first, second = bytearray(10), bytearray(10)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with faulty_file(path, Fault(effect=Flipped(12, mask=255))):
            assert os.preadv(descriptor, [first, second], 0) == 20
        with faulty_file(path, Fault(effect=Truncated(5))):
            assert os.pread(descriptor, 9, 2) == content[2:5]
    finally:
        os.close(descriptor)
    assert first == content[:10]
    assert second[2] == content[12] ^ 255 and second[3:] == content[13:20]
