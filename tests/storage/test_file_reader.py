"""Reading ranges and rows of a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.errors import PackCorruptError, StorageError
from sti.storage.byte_ranges import SECTOR, ByteRange, cover
from sti.storage.file_reader import FileReader, drop_cache
from sti.storage.reader import aligned_buffer

SIZE = 40 * SECTOR


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(0).bytes(SIZE)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Path:
    file = tmp_path_factory.mktemp("storage") / "data"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("direct", [None, False, True])
def test_ranges_read_as_they_were_written(path: Path, content: bytes, direct: bool | None) -> None:
    buffer = aligned_buffer(SIZE)
    with FileReader(path, direct=direct) as reader:
        assert direct is not False or not reader.direct
        for start, count in [(0, 1), (3, 7), (0, 40), (39, 1)]:
            reader.read(ByteRange(start * SECTOR, count * SECTOR), buffer)
            wanted = content[start * SECTOR : (start + count) * SECTOR]
            assert buffer[: count * SECTOR].tobytes() == wanted


@given(st.integers(0, SIZE), st.integers(1, SIZE))
def test_cover_is_aligned_and_as_small_as_can_be(offset: int, length: int) -> None:
    whole = cover(ByteRange(offset, length))
    assert whole.offset % SECTOR == 0 and whole.length % SECTOR == 0
    assert whole.offset <= offset < whole.offset + SECTOR
    assert whole.end - SECTOR < offset + length <= whole.end


@settings(max_examples=30)
@given(st.sets(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 300))
def test_rows_come_in_order_wherever_they_lie(
    path: Path, content: bytes, rows: set[int], row_bytes: int
) -> None:
    wanted = np.array(sorted(rows), dtype=np.int64)
    with FileReader(path) as reader:
        found = np.empty((len(wanted), row_bytes), dtype=np.uint8)
        reader.read_rows(17, wanted, found)
    for row, data in zip(wanted, found, strict=True):
        start = 17 + row * row_bytes
        assert data.tobytes() == content[start : start + row_bytes]


def test_a_file_that_ends_early_is_named_as_truncated(path: Path) -> None:
    with FileReader(path) as reader, pytest.raises(PackCorruptError, match="truncated"):
        reader.read(ByteRange(SIZE - SECTOR, 2 * SECTOR), aligned_buffer(2 * SECTOR))
    with FileReader(path) as reader, pytest.raises(PackCorruptError, match="ends at byte"):
        reader.read_rows(SIZE - 10, np.array([0]), np.empty((1, 20), dtype=np.uint8))


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        FileReader(tmp_path / "nothing")


def test_a_refused_direct_read_falls_back_to_buffered(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = os.preadv, []

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if not refusals:
            refusals.append(offset)
            raise OSError(errno.EINVAL, "refused")
        return real(fd, buffers, offset)

    # Any flag will do for the flag, so that the test holds on file systems without O_DIRECT too.
    monkeypatch.setattr(os, "O_DIRECT", os.O_CLOEXEC)
    with FileReader(path) as reader:
        assert reader.direct
        monkeypatch.setattr(os, "preadv", preadv)
        buffer = aligned_buffer(SECTOR)
        reader.read(ByteRange(SECTOR, SECTOR), buffer)
        assert buffer.tobytes() == content[SECTOR : 2 * SECTOR]
        assert refusals and not reader.direct


def test_an_io_error_names_file_offset_and_remedy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", preadv)
    with FileReader(path) as reader, pytest.raises(StorageError, match="verify") as caught:
        reader.read(ByteRange(SECTOR, SECTOR), aligned_buffer(SECTOR))
    assert str(path) in str(caught.value) and str(SECTOR) in str(caught.value)


def test_without_advice_from_the_system_everything_still_reads(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    drop_cache(path)
    with FileReader(path, direct=False) as reader:
        buffer = aligned_buffer(SECTOR)
        reader.read(ByteRange(0, SECTOR), buffer)
        assert buffer.tobytes() == content[:SECTOR]
        row = np.empty((1, 5), dtype=np.uint8)
        reader.read_rows(0, np.array([2]), row)
        assert row.tobytes() == content[10:15]


def test_closing_tells_nothing_where_somebody_closed_the_descriptor(path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    reader = FileReader(path)
    for name in set(os.listdir("/proc/self/fd")) - before:
        try:
            os.close(int(name))
        except OSError:
            continue  # the listing's own
    reader.close()
    reader.close()
