"""Files that are locked: by one thread of one process at a time, until it lets go or ends.

In: a path. Out: a descriptor, and whether it holds the lock. The system lets go of a lock when its
process ends, however it ends. Knows nothing of what is locked, or how long that is worth a wait.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_lock(path: Path) -> int | None:
    """A descriptor of the file, to be closed; made where it is missing, with its directory.

    None where it cannot be opened.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return None


def try_lock(descriptor: int) -> bool:
    """Whether the file is locked now, or cannot be; closing the descriptor unlocks it."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows; file systems without locks
        return True
    return True
