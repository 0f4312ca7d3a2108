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
    descriptor = open_plain(path)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise _other_kind(mode)
        return read_all(descriptor, most, wait=stat.S_ISFIFO(mode))
    finally:
        os.close(descriptor)


def open_plain(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """``os.open``, without waiting for whoever would write to a pipe.

    Raises:
        OSError: it cannot be opened; ``FileNotFoundError`` for what no file can be called.
    """
    check_name(path)
    return os.open(path, flags | PLAIN, mode)


def check_name(path: str | Path) -> None:
    """Refuse what no file can be called: the system's calls raise ``ValueError`` for it.

    Raises:
        FileNotFoundError: it is so.
    """
    try:
        named = os.fsencode(path)
    except UnicodeEncodeError:
        named = b"\0"
    if b"\0" in named:
        raise FileNotFoundError(errno.ENOENT, "no file can have this name")


def regular(path: str, flags: int) -> int:
    """An ``opener`` of ``open`` for regular files alone.

    Raises:
        OSError: it is of another kind, or cannot be opened.
    """
    descriptor = open_plain(path, flags)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise _other_kind(mode)


def _other_kind(mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return OSError(errno.EINVAL, "it is no regular file")


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
