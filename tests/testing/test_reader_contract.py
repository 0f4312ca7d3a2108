"""The contract of readers: ours keep it, and a reader that breaks it in one way is told so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from sti.device.emulated_storage import DEVICES, SlowReader
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import Reader
from sti.testing.faulty_reader import FaultyReader
from sti.testing.reader_contract import check_reader

OURS: dict[str, Callable[[Path], Reader]] = {
    "direct": FileReader,
    "buffered": lambda path: FileReader(path, direct=False),
    "emulated": lambda path: SlowReader(FileReader(path), DEVICES["ufs4"]),
    "faulty, without a fault": lambda path: FaultyReader(FileReader(path)),
}


@pytest.mark.parametrize("name", OURS)
def test_our_readers_keep_the_contract(name: str, tmp_path: Path) -> None:
    check_reader(OURS[name], place=tmp_path)
    assert not list(tmp_path.iterdir())


class WritesBeyond(FileReader):
    def read(self, item: ByteRange, out: np.ndarray) -> None:
        super().read(item, out)
        out[item.length :] = 0


class WrongBytes(FileReader):
    def read(self, item: ByteRange, out: np.ndarray) -> None:
        super().read(item, out)
        out[item.length - 1] ^= 1


class WrongRow(FileReader):
    def read_rows(self, base: int, rows: np.ndarray, out: np.ndarray) -> None:
        super().read_rows(base, rows, out)
        if len(rows) > 2:
            out[1] = out[2]


class ChangesRows(FileReader):
    def read_rows(self, base: int, rows: np.ndarray, out: np.ndarray) -> None:
        super().read_rows(base, rows, out)
        rows += 1


class Untyped(FileReader):
    def read(self, item: ByteRange, out: np.ndarray) -> None:
        try:
            super().read(item, out)
        except Exception as error:
            raise OSError(str(error)) from error


class PadsTheEnd(FileReader):
    def read(self, item: ByteRange, out: np.ndarray) -> None:
        try:
            super().read(item, out)
        except Exception:
            out[: item.length] = 0


class SharedBuffer(FileReader):
    """Reads through memory of its own, which threads do not have to themselves."""

    room = np.zeros(1 << 20, dtype=np.uint8)

    def read(self, item: ByteRange, out: np.ndarray) -> None:
        first = item.length // 2 // 4096 * 4096
        super().read(item, self.room)
        out[:first] = self.room[:first]
        sleep(1e-4)  # others read meanwhile
        out[first : item.length] = self.room[first : item.length]


class StaysOpen(FileReader):
    def close(self) -> None:
        pass


class ClosesOnce(FileReader):
    def close(self) -> None:
        if self._fd < 0:
            raise ValueError("closed already")
        super().close()


BROKEN = {
    WritesBeyond: "writes beyond it",
    WrongBytes: "other bytes than the file's",
    WrongRow: "row .* is read as other bytes",
    ChangesRows: "changes the numbers",
    Untyped: "must raise PackCorruptError; raised OSError",
    PadsTheEnd: "must raise PackCorruptError; was read",
    SharedBuffer: "other bytes than the file's",
    StaysOpen: "after close: must raise StorageError; was read",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_reader_that_breaks_the_contract_is_told_how(
    broken: type[FileReader], tmp_path: Path
) -> None:
    made: list[FileReader] = []

    def make(path: Path) -> FileReader:
        made.append(broken(path, direct=False))
        return made[-1]

    try:
        with pytest.raises(AssertionError, match=BROKEN[broken]):
            check_reader(make, place=tmp_path)
    finally:
        for reader in made:
            FileReader.close(reader)


def test_a_reader_that_cannot_be_closed_twice_is_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="closed already"):
        check_reader(ClosesOnce, place=tmp_path)
