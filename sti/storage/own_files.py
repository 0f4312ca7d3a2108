"""Files and directories of the user's own, which nobody else could have written.

In: paths. Out: descriptors and bytes of what is so; all else is refused. Knows nothing of what the
files hold.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sti.storage.plain_files import open_plain, read_all

_OTHERS_MAY_WRITE = 0o022
_OWN = getattr(os, "O_NOFOLLOW", 0)


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file that is regular and nobody else's to write.

    Args:
        flags: as ``os.open`` takes them; a file that they make is the user's alone.

    Raises:
        OSError: it is not so, not there, or cannot be opened.
    """
    descriptor = open_plain(path, flags | _OWN, 0o600)
    try:
        check_own(os.fstat(descriptor), stat.S_ISREG)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_own(path: Path, most: int) -> bytes:
    """All bytes of such a file.

    Raises:
        OSError: as ``open_own``; or it has more than ``most`` bytes.
    """
    descriptor = open_own(path)
    try:
        return read_all(descriptor, most)
    finally:
        os.close(descriptor)


def check_directory(place: Path) -> None:
    """Refuse what is no directory of the user's own.

    Raises:
        OSError: it is so, or not there.
    """
    check_own(os.lstat(place), stat.S_ISDIR)


def make_directory(place: Path) -> None:
    """Make a directory that is the user's alone, or make one that is the user's so.

    Its name may be a link of the user's own.

    Raises:
        OSError: it cannot be made, is no directory, or is someone else's.
    """
    with suppress(FileExistsError):
        place.mkdir(mode=0o700, parents=True)
    if others_may_write(_directory_behind(place)):
        place.chmod(0o700)


def check_private(place: Path) -> None:
    """Refuse a directory that ``make_directory`` would have to make, or make the user's alone.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        PermissionError: it, or the link of its name, is someone else's, or others may write there.
        OSError: it cannot be looked at.
    """
    if others_may_write(_directory_behind(place)):
        raise PermissionError(errno.EPERM, "others than the user may write there")


def _directory_behind(place: Path) -> os.stat_result:
    """A directory of the user's own, which a link of the user's own may stand for."""
    check_owner(os.lstat(place))
    found = place.stat()
    check_owner(found)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return found


def check_owner(found: os.stat_result) -> None:
    """Refuse what belongs to someone else.

    Raises:
        PermissionError: it does.
    """
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to someone else")


def others_may_write(found: os.stat_result) -> bool:
    """Whether the group or everyone has the right to."""
    return bool(stat.S_IMODE(found.st_mode) & _OTHERS_MAY_WRITE)


def check_own(found: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Refuse what is of another kind, or may be written by others.

    Raises:
        PermissionError: it is so.
    """
    if not is_kind(found.st_mode):
        raise PermissionError(0, "it is not of the kind that STI made")
    if found.st_uid != os.geteuid() or others_may_write(found):
        raise PermissionError(0, "others than the user may write to it")
