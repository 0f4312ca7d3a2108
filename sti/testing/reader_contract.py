"""What every ``Reader`` has to keep, as a check to run against one's own.

    check_reader(lambda path: MyReader(path))

In: what makes a reader of a file. Out: nothing, or an ``AssertionError`` that says what is not
kept. Needs no test framework. ``sti.storage.reader`` is the contract.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sti.arrays import ByteArray, Int64Array
from sti.errors import PackCorruptError, StiError, StorageError
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.reader import Reader, aligned_buffer

_SECTORS = 61
_ODD = 1234
"""Bytes of the file beyond whole sectors."""
_THREADS = 4
_ROUNDS = 12
"""Reads of each kind by each of the threads."""
_PATIENCE_S = 60.0
_MARK = 0xA5
"""In memory that a read must leave alone."""
_TABLES = ((0, 1), (17, 33), (SECTOR - 1, 300), (3 * SECTOR, SECTOR))
"""Where tables begin, and how long their rows are."""

Make = Callable[[Path], Reader]


def check_reader(make: Make, *, place: Path | None = None) -> None:
    """Check that readers keep the contract: their bytes are those of the file, whichever range or
    rows are asked for, from several threads at once; memory beyond is left alone; what is not
    there is refused with a typed error, after which they still read; they can be closed twice, then
    refuse to read, and leave no descriptor open.

    Args:
        make: a reader of the file of this path, ready to read; called several times, one after
            the other.
        place: a directory for the file, on the storage that is of interest; None: where temporary
            files are. Nothing of it is left there.

    Raises:
        AssertionError: says what is not kept.
    """
    data = np.random.default_rng(0).integers(0, 256, _SECTORS * SECTOR + _ODD, dtype=np.uint8)
    with TemporaryDirectory(dir=place) as directory:
        path = Path(directory) / "data"
        path.write_bytes(data.tobytes())
        before = _descriptors()
        for check in (_check_ranges, _check_rows, _check_threads, _check_end, _check_close):
            with _made(make, path) as reader:
                check(reader, data)
        after = _descriptors()
    _require(after <= before, f"{len(after - before)} descriptors are open after readers closed")


@contextmanager
def _made(make: Make, path: Path) -> Iterator[Reader]:
    reader = make(path)
    try:
        yield reader
    finally:
        reader.close()


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(f"this reader does not keep the contract: {what}")


def _check_ranges(reader: Reader, data: ByteArray) -> None:
    """Ranges in any order, again and again, and nothing beyond them."""
    _require(isinstance(reader.direct, bool), "direct is not a bool")
    for first, count in ((0, 1), (3, 7), (_SECTORS - 1, 1), (0, _SECTORS), (3, 7), (1, 1)):
        _check_range(reader, data, first, count)
    _require(isinstance(reader.direct, bool), "direct is not a bool after reads")


def _check_range(reader: Reader, data: ByteArray, first: int, count: int) -> None:
    item = ByteRange(first * SECTOR, count * SECTOR)
    out = aligned_buffer(item.length + SECTOR)
    out[:] = _MARK
    reader.read(item, out)
    same = np.array_equal(out[: item.length], data[item.offset : item.end])
    _require(same, f"{item} is read as other bytes than the file's")
    _require(bool((out[item.length :] == _MARK).all()), f"reading {item} writes beyond it")


def _check_rows(reader: Reader, data: ByteArray) -> None:
    """Rows of any length, from any place; one, neighbours, far apart, all."""
    for base, row_bytes in _TABLES:
        count = (len(data) - base) // row_bytes
        for rows in ([0], [count - 1], [0, 1, 2], [0, count // 2, count - 1], [1, 3, 4, count - 2]):
            _check_table(reader, data, base, row_bytes, np.unique(np.array(rows, dtype=np.int64)))
        step = max(1, count // 500)
        _check_table(reader, data, base, row_bytes, np.arange(0, count, step, dtype=np.int64))


def _check_table(
    reader: Reader, data: ByteArray, base: int, row_bytes: int, rows: Int64Array
) -> None:
    room = np.full((len(rows) + 1, row_bytes), _MARK, dtype=np.uint8)
    asked = rows.copy()
    reader.read_rows(base, rows, room[:-1])
    what = f"rows {asked.tolist()[:8]} of {row_bytes} bytes at {base}"
    _require(np.array_equal(rows, asked), f"reading {what} changes the numbers that were given")
    _require(bool((room[-1] == _MARK).all()), f"reading {what} writes beyond them")
    for row, line in zip(asked.tolist(), room[:-1], strict=True):
        start = base + row * row_bytes
        same = np.array_equal(line, data[start : start + row_bytes])
        _require(same, f"row {row} of {what} is read as other bytes than the file's")


def _check_threads(reader: Reader, data: ByteArray) -> None:
    """Ranges and rows from several threads at once."""
    found: list[BaseException] = []
    begin = threading.Barrier(_THREADS)

    def work(number: int) -> None:
        draw = np.random.default_rng(number)
        try:
            begin.wait(_PATIENCE_S)
            for _ in range(_ROUNDS):
                first = int(draw.integers(0, _SECTORS - 9))
                _check_range(reader, data, first, int(draw.integers(1, 9)))
                rows = np.unique(draw.integers(0, 300, 40))
                _check_table(reader, data, 17, 333, rows)
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
        _require(not thread.is_alive(), f"reads of {_THREADS} threads take over {_PATIENCE_S} s")
    for error in found:
        raise error


def _check_end(reader: Reader, data: ByteArray) -> None:
    """What is not in the file is refused; what is still comes."""
    past = ByteRange(_SECTORS * SECTOR, 2 * SECTOR)
    beyond = ByteRange((_SECTORS + 9) * SECTOR, SECTOR)
    for item in (past, beyond):
        with _refused(f"{item}, beyond the end of the file", PackCorruptError):
            reader.read(item, aligned_buffer(item.length))
    count = len(data) // 300
    for rows in ([count], [0, count], [count + 9]):
        with _refused(f"rows {rows}, beyond the end of the file", PackCorruptError):
            out = np.empty((len(rows), 300), dtype=np.uint8)
            reader.read_rows(0, np.array(rows, dtype=np.int64), out)
    _check_range(reader, data, 3, 7)
    _check_table(reader, data, 17, 33, np.array([0, 5], dtype=np.int64))


def _check_close(reader: Reader, data: ByteArray) -> None:
    """Closed twice, a reader refuses, although its descriptor may be another file's by then."""
    _check_range(reader, data, 0, 2)
    reader.close()
    reader.close()
    others = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(4)]
    try:
        with _refused("a range after close", StorageError):
            reader.read(ByteRange(0, SECTOR), aligned_buffer(SECTOR))
        with _refused("rows after close", StorageError):
            out = np.empty((1, 33), dtype=np.uint8)
            reader.read_rows(17, np.zeros(1, dtype=np.int64), out)
        _require(isinstance(reader.direct, bool), "direct is not a bool after close")
        reader.close()
        for descriptor in others:
            os.fstat(descriptor)  # closing again did not close what is not the reader's
    finally:
        for descriptor in others:
            os.close(descriptor)


@contextmanager
def _refused(what: str, kind: type[StiError]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        _require("\n" not in str(error) and bool(str(error)), f"{what}: the error is not one line")
    except Exception as error:
        _require(False, f"{what}: must raise {kind.__name__}; raised {error!r}")
    else:
        _require(False, f"{what}: must raise {kind.__name__}; was read")


def _descriptors() -> set[str]:
    """The open descriptors; none where the system does not tell."""
    try:
        return set(os.listdir("/proc/self/fd"))
    except OSError:
        return set()
