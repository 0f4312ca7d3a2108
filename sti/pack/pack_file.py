"""One open pack file, and whether it still is what was opened.

In: a path. Out: bytes at places, through a single descriptor that the storage lane reads through as
well; and, when asked, whether the file has been changed, replaced or deleted since. Knows nothing
of what the bytes mean.
"""

from __future__ import annotations

import os
import stat
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sti.errors import PackCorruptError, PackError, PackFormatError, StorageError
from sti.storage.file_reader import close_descriptor, no_read_ahead, read_cached
from sti.storage.plain_files import open_plain
from sti.storage.reader import aligned_buffer
from sti.storage.threads import in_time
from sti.storage.watched_reader import READ_TIMEOUT_S, too_long


class FileState(NamedTuple):
    """What tells one state of a file from another."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """The state that the system reports."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    @property
    def file_key(self) -> tuple[int, int]:
        """Which file it is, whatever it holds."""
        return self.device, self.inode


class PackFile:
    """An open pack. Reads may come from several threads at once; ``close`` must not overlap them.

    Args:
        path: of the file.
        timeout_s: how long opening it, and each read, may take. A thread that hangs longer is left
            to itself.

    Attributes:
        path: the name it was opened by.
        opened: its state when it was opened.

    Raises:
        PackError: there is no such file, or it may not be read.
        StorageError: the system refuses for another reason, or does not answer.
    """

    def __init__(self, path: Path, *, timeout_s: float = READ_TIMEOUT_S) -> None:
        self.path, self._timeout_s = path, timeout_s
        try:
            self._fd = in_time(lambda: open_plain(path), timeout_s, unwanted=os.close)
        except TimeoutError:
            raise too_long(str(path), "to open it", timeout_s) from None
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise PackError(f"{path}: cannot be opened: {error.strerror}") from error
        except OSError as error:
            raise StorageError(f"{path}: cannot be opened: {error.strerror}") from error
        self._close = weakref.finalize(self, close_descriptor, self._fd)
        self._close.atexit = False  # while daemon threads run; the process closes what is open
        try:
            self.opened = self._state()
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise PackError(f"{path}: cannot be opened: it is not a regular file")
        except BaseException:
            self.close()
            raise
        self._place = os.path.abspath(path)  # wherever the process goes from here
        self._named: tuple[int, int] | None = self.opened.file_key
        no_read_ahead(self._fd)

    @property
    def descriptor(self) -> int:
        """The open descriptor; it stays this object's.

        Raises:
            PackFormatError: the file was closed.
        """
        if not self._close.alive:
            raise PackFormatError(f"{self.path}: closed; open the pack again")
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``, which must be inside the file as its size says.

        Raises:
            PackCorruptError: the file ends before that.
            StorageError: reading failed, or does not return.
        """
        return bytes(self.read_view(offset, length))

    def read_view(self, offset: int, length: int) -> memoryview:
        """As ``read``; read-only, of memory of its own, which is given back with the last view.

        Not from the heap: an allocator that takes back blocks of a size keeps such blocks in the
        heap from then on, where what lies above them holds them.
        """
        fd, out = self.descriptor, memoryview(aligned_buffer(length))[:length]
        if read_cached(fd, out, offset) == length:  # no thread has to wait for it
            return out.toreadonly()
        del out
        parts: list[bytes] = []
        while length > 0:
            try:
                part = self._pread(length, offset)
            except TimeoutError:
                what = f"{length} bytes at {offset}"
                raise too_long(str(self.path), what, self._timeout_s) from None
            except OSError as error:
                raise StorageError(
                    f"{self.path}: reading at {offset} failed: {error.strerror}; check the storage "
                    "and the pack (`sti-shard verify`)"
                ) from error
            if not part:
                raise PackCorruptError(f"{self.path}: ends unexpectedly; fetch the pack again")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def _pread(self, length: int, offset: int) -> bytes:
        fd = self.descriptor
        return in_time(lambda: os.pread(fd, length, offset), self._timeout_s)

    def expect(self, offset: int, length: int) -> None:
        """Tell the system that these bytes are read soon: it fetches them meanwhile."""
        advise = getattr(os, "posix_fadvise", None)
        if advise is not None:
            with suppress(OSError):  # it is read all the same
                advise(self.descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self) -> str | None:
        """Compare the file's size and time of writing with those it was opened with.

        Bytes that were changed and their time put back are not seen here, but by the checksums of
        what is read. Not thread-safe.

        Returns:
            What to tell where the file was replaced or deleted, once for each change: it is still
            there behind the open descriptor. None where there is nothing to tell.

        Raises:
            PackCorruptError: the open file itself was changed.
            StorageError: the system does not tell.
        """
        now = self._state()
        if (now.size, now.mtime_ns) != (self.opened.size, self.opened.mtime_ns):
            raise PackCorruptError(f"{self.path}: was changed after it was opened; open it again")
        try:
            named = FileState.of(os.stat(self._place)).file_key
        except OSError:
            named = None
        before, self._named = self._named, named
        if named in (before, now.file_key):
            return None
        what = "deleted" if named is None else "replaced"
        return (
            f"{self.path}: was {what} after it was opened; answers still come from the file that "
            "was opened; open the engine again to use the new one"
        )

    def _state(self) -> FileState:
        try:
            return FileState.of(os.fstat(self.descriptor))
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be examined: {error.strerror}") from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._close()

    def __enter__(self) -> PackFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
