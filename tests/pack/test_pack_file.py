"""One descriptor for all reads, and noticing that the file is not what it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sti.errors import PackCorruptError, PackFormatError
from sti.pack.pack_reader import PackReader
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer
from tests.support.packs import tiny_pack

HOUR_NS = 3600 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "pack"
    found.write_bytes(tiny_pack().read_bytes())
    os.utime(found, ns=(0, found.stat().st_mtime_ns - HOUR_NS))
    return found


@pytest.fixture
def reader(path: Path) -> Iterator[PackReader]:
    with PackReader.open(path) as opened:
        yield opened


def test_a_file_that_is_left_alone_is_unchanged(path: Path, reader: PackReader) -> None:
    for _ in range(3):
        assert reader.check_unchanged() is None
    path.read_bytes()
    assert reader.check_unchanged() is None


def overwrite(path: Path) -> None:
    data = path.read_bytes()
    with path.open("r+b") as stream:
        stream.write(data)


def overwrite_and_put_the_time_back(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_a_byte(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"x")


CHANGES: dict[str, Callable[[Path], object]] = {
    "the same bytes again": overwrite,
    "one byte": write_a_byte,
    "cut": lambda path: os.truncate(path, 100_000),
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "written in place": lambda path: path.write_bytes(path.read_bytes()),
    "touched": os.utime,
}

HARMLESS: dict[str, Callable[[Path], object]] = {
    "time put back": overwrite_and_put_the_time_back,
    "mode": lambda path: path.chmod(0o600),
    "another name": lambda path: os.link(path, path.with_name("another")),
}
"""What is read has checksums: they find other bytes of the old time."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_changed_is_refused(path: Path, reader: PackReader, change: str) -> None:
    CHANGES[change](path)
    for _ in range(2):
        with pytest.raises(PackCorruptError, match=r"was changed after it was opened; open it"):
            reader.check_unchanged()


@pytest.mark.parametrize("change", HARMLESS)
def test_rights_and_names_are_no_change(path: Path, reader: PackReader, change: str) -> None:
    HARMLESS[change](path)
    assert reader.check_unchanged() is None


def test_a_relative_path_is_meant_from_where_it_was_opened(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with PackReader.open(path.name) as reader:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert reader.check_unchanged() is None


def replace_with(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    os.replace(other, path)


def test_a_file_that_was_replaced_or_deleted_is_told_once_for_each_change(
    path: Path, reader: PackReader
) -> None:
    steps: list[tuple[str, Callable[[], object]]] = [
        ("replaced", lambda: replace_with(path, b"another")),
        ("replaced", lambda: replace_with(path, b"a third")),
        ("deleted", path.unlink),
        ("replaced", lambda: path.write_bytes(b"a fourth")),
    ]
    for word, change in steps:
        change()
        notice = reader.check_unchanged()
        assert notice is not None and f"{path}: was {word} after it was opened" in notice
        assert reader.check_unchanged() is None


def test_a_replaced_file_is_still_read_and_still_watched(
    path: Path, reader: PackReader, tmp_path: Path
) -> None:
    os.link(path, tmp_path / "second name")
    offset = reader.embeddings_offset
    expected = reader.read(offset, 100)
    replace_with(path, b"another")
    assert reader.check_unchanged() is not None
    assert reader.read(offset, 100) == expected
    overwrite(tmp_path / "second name")
    with pytest.raises(PackCorruptError, match="was changed"):
        reader.check_unchanged()


@pytest.mark.parametrize("direct", [None, False])
def test_storage_reads_through_the_open_descriptor(
    path: Path, reader: PackReader, direct: bool | None
) -> None:
    expected = reader.read(SECTOR, SECTOR)
    path.unlink()
    with FileReader(path, direct=direct, descriptor=reader.descriptor) as storage:
        buffer = aligned_buffer(SECTOR)
        storage.read(ByteRange(SECTOR, SECTOR), buffer)
        assert buffer.tobytes() == expected
        rows = np.empty((1, SECTOR), np.uint8)
        storage.read_rows(0, np.array([1]), rows)
        assert rows.tobytes() == expected
        if direct is False:
            assert not storage.direct
    assert reader.read(SECTOR, SECTOR) == expected  # the descriptor is still the reader's


def test_direct_reads_never_come_from_another_file_of_the_same_name(
    path: Path, reader: PackReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def no_proc(name: str | Path, flags: int) -> int:
        if str(name).startswith("/proc/"):
            raise FileNotFoundError(name)
        return real(name, flags)

    monkeypatch.setattr(os, "open", no_proc)
    expected = reader.read(SECTOR, SECTOR)
    replace_with(path, b"x" * 4 * SECTOR)
    with FileReader(path, descriptor=reader.descriptor) as storage:
        assert not storage.direct
        buffer = aligned_buffer(SECTOR)
        storage.read(ByteRange(SECTOR, SECTOR), buffer)
        assert buffer.tobytes() == expected


def test_an_open_reader_has_one_descriptor(path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    with PackReader.open(path) as reader:
        assert count() == before + 1
        assert os.fstat(reader.descriptor).st_ino == path.stat().st_ino
    assert count() == before
    path.write_bytes(b"short")
    with pytest.raises(PackFormatError, match="too short"):
        PackReader.open(path)
    assert count() == before
