"""The files of a graph: whether they are still as they were, and how they come and go.

In: paths, descriptors. Out: states and digests. Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

_PIECE = 1 << 20


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
