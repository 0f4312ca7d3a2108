"""Files that nobody else could have written, and whether they are still as they were.

In: paths. Out: descriptors of regular files of the user's own, their states and digests. Knows
nothing of what the files hold.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from sti.errors import GraphError

_PIECE = 1 << 20
_POLL_S = 0.05
_OTHERS_MAY_WRITE = 0o022
_READ = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class OpenFile(NamedTuple):
    """A file of a graph, held open so that it is known whether it is still what was read."""

    descriptor: int
    state: tuple[int, ...]

    def unchanged(self) -> bool:
        """Whether nothing was written to it since it was opened; that it was removed is fine."""
        try:
            now = os.fstat(self.descriptor)
        except OSError:
            return False
        state = state_of(now)
        # Removing it changes the last of them, too.
        return state == self.state or (now.st_nlink == 0 and state[:-1] == self.state[:-1])


def open_own(path: Path) -> int:
    """A descriptor of a file that is regular and nobody else's to write."""
    descriptor = os.open(path, _READ)
    try:
        check_own(os.fstat(descriptor), stat.S_ISREG)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_own(path: Path, most: int) -> bytes:
    """The first ``most`` bytes of such a file."""
    descriptor = open_own(path)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def check_directory(place: Path) -> None:
    """Refuse what is no directory of the user's own.

    Raises:
        OSError: it is so, or not there.
    """
    check_own(os.lstat(place), stat.S_ISDIR)


def check_own(found: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Refuse what is of another kind, or may be written by others.

    Raises:
        PermissionError: it is so.
    """
    if not is_kind(found.st_mode):
        raise PermissionError(0, "it is not of the kind that STI made")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & _OTHERS_MAY_WRITE:
        raise PermissionError(0, "others than the user may write to it")


def state_of(found: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def digest_of(descriptor: int) -> str:
    """SHA-256 of a file, read in pieces."""
    digest, place = sha256(), 0
    while piece := os.pread(descriptor, _PIECE, place):
        digest.update(piece)
        place += len(piece)
    return digest.hexdigest()


def sync_directory(directory: Path) -> None:
    """Wait until names in a directory are on storage."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete(place: Path) -> None:
    """Remove a directory with all that is in it, or whatever else has its name."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, longest_s: float) -> Iterator[None]:
    """Hold a lock, which the system gives back when the process ends.

    Args:
        path: of the lock's file; made where it does not exist.
        longest_s: seconds for which another process that holds it is waited for.

    Raises:
        GraphError: another process holds it for longer.
        OSError: the file cannot be used.
    """
    import fcntl  # not on Windows

    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    lock = os.open(path, flags, 0o600)
    try:
        check_own(os.fstat(lock), stat.S_ISREG)
        deadline = time.monotonic() + longest_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise GraphError(
                        f"{path}: another process has been building a graph for "
                        f"{longest_s:.0f} seconds"
                    ) from None
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(lock)
