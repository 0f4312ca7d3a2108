"""One measurement at a time: threads and processes that share a cache directory wait in turn.

In: the cache directory. Out: the right to measure, for as long as the body lasts. Two that measure
at once would disturb one another, and whoever comes second finds what the first one stored. The
lock is a file that the system lets go of when its process ends, however it ends. A lock that cannot
be had (a directory that may not be written, a system without ``flock``, an owner that hangs) stops
nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sti.notices import Notify
from sti.storage.file_lock import locked, patience
from sti.storage.own_files import make_directory

LONGEST_WAIT_S = 30.0
"""Seconds after which it is measured without the lock."""
_POLL_S = 0.02
_NAME = "measuring.lock"
_HERE = threading.Lock()
"""Held by the thread of this process that measures."""


@contextmanager
def one_at_a_time(directory: Path, *, notify: Notify) -> Iterator[bool]:
    """Hold the right to measure; interrupts end the wait.

    Args:
        directory: the cache directory; made where it does not exist.
        notify: told when another process, or thread, has to be waited for.

    Yields:
        Whether somebody else measured meanwhile, so that the cache is worth another look.
    """
    told = False
    patient = patience(LONGEST_WAIT_S, poll_s=_POLL_S)

    def wait() -> bool:
        """Wait a little; False when it has been long enough."""
        nonlocal told
        if not told:
            told = True
            notify("waiting for another process to measure")
        return patient()

    mine = _HERE.acquire(blocking=False)
    try:
        while not mine and wait():
            mine = _HERE.acquire(blocking=False)
        with ExitStack() as stack:
            with suppress(OSError):
                make_directory(directory)
                stack.enter_context(locked(directory / _NAME, wait))
            yield told
    finally:
        if mine:
            _HERE.release()
