"""Reading whole files that the user named: never a device, never more than there may be, no hang.

In: paths. Out: bytes. A pipe is read as well, as a shell makes one for ``<(command)``; one that
nobody writes to for a while is given up. Knows nothing of what the files hold.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

PATIENCE_S = 10.0
"""Seconds without a byte after which a pipe is given up."""
_PIECE = 1 << 20
PLAIN = os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
"""How files are opened that may be anything: a pipe is not waited for."""


def read_plain(path: Path, most: int) -> bytes:
    """All bytes of a regular file or a pipe.

    Raises:
        OSError: it is not there or cannot be read; it is of another kind, has more than ``most``
            bytes, or is a pipe that is silent.
    """
    descriptor = os.open(path, os.O_RDONLY | PLAIN)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(errno.EINVAL, "it is no regular file")
        return read_all(descriptor, most, wait=stat.S_ISFIFO(mode))
    finally:
        os.close(descriptor)


def read_all(descriptor: int, most: int, *, wait: bool = False) -> bytes:
    """What is left to read of an open file.

    Args:
        wait: for whoever writes; else all is there already.

    Raises:
        OSError: it is more than ``most`` bytes, cannot be read, or nothing came for a while.
    """
    pieces: list[bytes] = []
    left = most + 1
    while left > 0:
        if wait:
            _await(descriptor)
        piece = os.read(descriptor, min(left, _PIECE))
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        left -= len(piece)
    raise OSError(errno.EFBIG, f"it has more than the {most} bytes that are read of it")


def _await(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(PATIENCE_S * 1e3):
        raise TimeoutError(errno.ETIMEDOUT, f"nobody wrote to it for {PATIENCE_S:g} s")
