"""Files that are locked: by one thread of one process at a time, until it lets go or ends.

In: a path, and how long to wait. Out: the lock, or that somebody else has it. The system lets go of
a lock when its process ends, however it ends. Knows nothing of what is locked, or whether it may be
done without the lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sti.storage.own_files import open_own


@contextmanager
def locked(path: Path, wait: Callable[[], bool]) -> Iterator[bool]:
    """Hold the lock of a file, which is made where it is missing.

    Args:
        wait: called while somebody else has the lock; waits a little, and says whether to go on.

    Yields:
        Whether the lock is held: False where ``wait`` gave up.

    Raises:
        OSError: the file cannot be opened or locked here, or others than the user may write to it.
    """
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)

    try:
        held = lock_open(descriptor)
        while not held and wait():
            held = lock_open(descriptor)
        yield held
    finally:
        os.close(descriptor)  # which lets go of the lock


def lock_open(descriptor: int) -> bool:
    """Lock an open file, until the descriptor and all copies of it are closed; never waits.

    Args:
        descriptor: for writing: network file systems want that.

    Returns:
        Whether the lock is held; else somebody else has it.

    Raises:
        OSError: the system or the file system does not lock files.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError(0, "this system does not lock files") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def patience(longest_s: float, *, poll_s: float) -> Callable[[], bool]:
    """A wait for ``locked`` that gives up ``longest_s`` seconds from now.

    Args:
        poll_s: seconds after which it is tried again.
    """
    deadline = time.monotonic() + longest_s

    def wait() -> bool:
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
        return True

    return wait
