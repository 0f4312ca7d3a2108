"""Reading ranges of a file into memory that the caller owns.

In: byte ranges of a pack. Out: their bytes in aligned buffers. Reads bypass the page cache where
the file system allows it (``O_DIRECT``); elsewhere they go through it and the pages are dropped
after use, so that a streamed model does not push everything else out of a small machine's cache.
Knows nothing of slices, planes or plans. io_uring is not used: Android's seccomp filter kills a
process that probes for it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackCorruptError, StorageError
from sti.storage.byte_ranges import ByteRange

_ROW_GAP = 16384
"""Bytes between two rows that are read along rather than left out."""
_ROW_SPAN = 49152
"""Bytes of rows that are read together, at most: so much memory is taken for a moment."""
_WHOLE = ByteRange(0, 0)
"""A whole file, as advice names it."""
_DIRECT_REFUSED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class FileReader:
    """A ``Reader`` of one file.

    Args:
        path: the file, opened for reading; with a ``descriptor`` it is for messages.
        direct: False for buffered reads; otherwise ``O_DIRECT`` is tried, and the first refusal
            falls back to buffered reads.
        descriptor: an open descriptor of the file to read, whatever ``path`` names by now. It stays
            the caller's and may be closed afterwards.

    Raises:
        StorageError: the file cannot be opened.

    Reads may be issued from several threads at once; ``close`` must not overlap them.
    """

    def __init__(
        self, path: Path, *, direct: bool | None = None, descriptor: int | None = None
    ) -> None:
        self._path = path
        try:
            if descriptor is None:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            else:
                self._fd = os.dup(descriptor)
        except OSError as error:
            raise StorageError(f"{path}: cannot be opened: {error.strerror}") from error
        # Without it, on some file systems: buffered reads do the same work.
        self._direct_fd = -1 if direct is False else _opened_direct(self._fd, path)
        self._use_direct = self._direct_fd >= 0
        no_read_ahead(self._fd)

    @property
    def direct(self) -> bool:
        """Whether reads bypass the page cache."""
        return self._use_direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """Fill ``out[:item.length]`` with the file's bytes.

        Args:
            item: a sector-aligned range inside the file.
            out: page-aligned uint8 of at least ``item.length`` bytes, owned by the caller.

        Raises:
            PackCorruptError: the file ends before the range does.
            StorageError: the system refuses the read.
        """
        self._fill(item, out)
        if not self._use_direct:
            self._drop(item)

    def _fill(self, item: ByteRange, out: NDArray[np.uint8], *, buffered: bool = False) -> None:
        view, done = memoryview(out.data)[: item.length], 0
        while done < item.length:
            got = self._pread(view[done:], item.offset + done, buffered)
            if got == 0:
                raise PackCorruptError(
                    f"{self._path}: ends at byte {item.offset + done}, inside a read of "
                    f"{item.length} bytes at {item.offset}; the pack is truncated, fetch it again"
                )
            done += got

    def _pread(self, view: memoryview, offset: int, buffered: bool) -> int:
        if self._fd < 0:
            raise StorageError(f"{self._path}: was closed; open it again")
        try:
            if self._use_direct and not buffered:
                try:
                    return os.preadv(self._direct_fd, [view], offset)
                except OSError as error:
                    if error.errno not in _DIRECT_REFUSED:
                        raise
                    # The file system took the flag but refuses the read: buffered from now on.
                    self._use_direct = False
            return os.preadv(self._fd, [view], offset)
        except OSError as error:
            raise StorageError(
                f"{self._path}: reading {len(view)} bytes at {offset} failed: {error.strerror}; "
                "check the storage and the pack (`sti-shard verify`)"
            ) from error

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Read scattered rows of a table through the page cache, all requests in flight at once.

        A read-ahead hint for each range lets the device work on all of them together, which is
        several times faster than one direct read after another (see docs/experiments.md).

        Args:
            base: where row 0 starts in the file, in bytes.
            rows: int64 ``[n]``, ascending, distinct.
            out: uint8 ``[n, row_bytes]``, contiguous, overwritten; owned by the caller.

        Raises:
            PackCorruptError: the file ends before a row does.
            StorageError: the system refuses a read.
        """
        row_bytes = out.shape[1]
        numbers = rows.tolist()
        firsts = _span_starts(numbers, _ROW_GAP // row_bytes, _ROW_SPAN // row_bytes)
        stops = [*firsts[1:], len(rows)]
        spans = [
            ByteRange(
                base + numbers[first] * row_bytes,
                (numbers[stop - 1] - numbers[first] + 1) * row_bytes,
            )
            for first, stop in zip(firsts, stops, strict=False)
        ]
        for span in spans:
            _advise(self._fd, span, "POSIX_FADV_WILLNEED")
        for span, first, stop in zip(spans, firsts, stops, strict=False):
            wanted = out[first:stop]
            if span.length == wanted.nbytes:
                self._fill(span, wanted.reshape(-1), buffered=True)
            else:
                data = np.empty(span.length, dtype=np.uint8)
                self._fill(span, data, buffered=True)
                places = rows[first:stop] - numbers[first]
                np.take(data.reshape(-1, row_bytes), places, axis=0, out=wanted, mode="clip")
            self._drop(span)

    def _drop(self, span: ByteRange) -> None:
        _advise(self._fd, span, "POSIX_FADV_DONTNEED")

    def close(self) -> None:
        """Close the file. Idempotent."""
        descriptors, self._fd, self._direct_fd = (self._fd, self._direct_fd), -1, -1
        for fd in descriptors:
            if fd >= 0:
                close_descriptor(fd)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened_direct(fd: int, path: Path) -> int:
    """A descriptor with ``O_DIRECT`` of the file behind ``fd``; -1 where there can be none.

    Linux opens the very file again. Elsewhere it is opened by its name, and given up if that names
    another file by now.
    """
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return -1
    for name in (f"/proc/self/fd/{fd}", path):
        try:
            found = os.open(name, os.O_RDONLY | os.O_CLOEXEC | flag)
        except OSError:
            continue
        with suppress(OSError):
            if os.path.sameopenfile(fd, found):
                return found
        os.close(found)
    return -1


def _span_starts(rows: Sequence[int], gap: int, most: int) -> list[int]:
    """Places in ``rows`` where a span begins: after more than ``gap`` rows that are left out, and
    before it would have more than ``most``.
    """
    starts: list[int] = []
    for place, row in enumerate(rows):
        if not starts or row - rows[place - 1] > gap + 1 or row - rows[starts[-1]] >= most:
            starts.append(place)
    return starts


def close_descriptor(fd: int) -> None:
    """Close a descriptor; nothing is told where somebody closed it, which was not theirs."""
    with suppress(OSError):
        os.close(fd)


def no_read_ahead(fd: int) -> None:
    """Tell the system to read only what is asked for.

    The kernel's own read-ahead, megabytes on some machines, helps programs that do not know what
    they will read next; here the plan knows.
    """
    _advise(fd, _WHOLE, "POSIX_FADV_RANDOM")


def _advise(fd: int, span: ByteRange, advice: str) -> None:
    """Tell the system how bytes are read; where it does not listen, they are read all the same."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        with suppress(OSError):
            advise(fd, span.offset, span.length, getattr(os, advice))


def read_cached(fd: int, out: memoryview, offset: int) -> int:
    """Fill ``out`` with what the system has in memory, without waiting for storage.

    Returns:
        How many bytes that are, from ``offset`` on; 0 as well where the system or the file system
        cannot tell, or refuses: reading as usual tells why.
    """
    flag = getattr(os, "RWF_NOWAIT", 0)
    if not flag:
        return 0
    try:
        return os.preadv(fd, [out], offset, flag)
    except OSError:
        return 0


def drop_cache(path: Path) -> None:
    """Ask the system to drop the file's cached pages, after writing out dirty ones."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        _advise(fd, _WHOLE, "POSIX_FADV_DONTNEED")
    finally:
        os.close(fd)
