"""Drafts: what a file is to hold, under another name beside it, until it takes the file's place.

In: the path of a file. Out: a draft that is open and locked; or the removal of drafts whose writers
were killed. A writer holds the lock of its draft for as long as it lives, so a draft that can be
locked has none any more: that is true across namespaces of processes and after a reboot, where
numbers of processes say nothing. Knows nothing of what files hold.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sti.storage.digest import sha256
from sti.storage.file_lock import lock_open

_END = ".part"
_LONGEST_NAME = 200
"""Bytes of a file's name that its drafts' names begin with as it is: names end at 255."""
_TRIES = 10
_UNLOCKABLE_S = 86_400.0
"""Where files cannot be locked, a draft that nobody wrote to for so long has no writer."""
_STEM_OF = re.compile(r"\.(.+)\.[0-9a-f]{16}" + re.escape(_END), re.DOTALL).fullmatch
"""One pattern for all files: Python keeps hundreds of patterns, one for each file that was ever
written."""
_FLAGS = os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_LOOK = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def draft_path(path: Path) -> Path:
    """A name for a draft of ``path`` that nobody can foresee; in its directory."""
    return path.parent / f".{_stem(path.name)}.{os.urandom(8).hex()}{_END}"


def is_draft(name: str) -> bool:
    """Whether a name is one that ``draft_path`` gives."""
    return _STEM_OF(name) is not None


def new_draft(path: Path, mode: int) -> tuple[Path, int]:
    """An empty draft of ``path``, and a descriptor that holds its lock until it is closed.

    The descriptor and its copies are for writing; all of them hold the lock, in forked processes,
    too. Where files cannot be locked, the draft is not.

    Args:
        mode: who may do what, less what the umask takes away; the owner may always read and write.

    Raises:
        OSError: it cannot be made. Whatever else has its name is neither followed nor changed.
    """
    for _ in range(_TRIES):
        draft = draft_path(path)
        descriptor = os.open(draft, os.O_WRONLY | _FLAGS, mode | 0o600)
        try:
            # Whoever removes drafts may have locked this one first, and removes it then.
            if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
                return draft, descriptor
        except BaseException:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        os.close(descriptor)
        draft.unlink(missing_ok=True)
    raise OSError(0, "somebody else locks whatever is made there", str(path.parent))


def remove_abandoned_drafts(path: Path) -> None:
    """Remove what writers of ``path`` that were killed left beside it. What cannot be, stays."""
    _remove(path.parent, _stem(path.name))


def remove_all_abandoned_drafts(directory: Path) -> None:
    """The same for all files of a directory."""
    _remove(directory, None)


def _remove(directory: Path, stem: str | None) -> None:
    with suppress(OSError):
        for name in _names(directory):
            found = _STEM_OF(name)
            if found is not None and stem in (None, found[1]):
                with suppress(OSError):
                    _remove_if_abandoned(directory / name)


def _names(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry.name


def _remove_if_abandoned(draft: Path) -> None:
    descriptor = os.open(draft, _LOOK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return
        held = _lock(descriptor)
        if held is None:
            held = time.time() - found.st_mtime > _UNLOCKABLE_S
        if held:  # and until it is gone: its name is used only once
            draft.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is held; None where files are not locked there."""
    try:
        return lock_open(descriptor)
    except OSError:
        return None


def _stem(name: str) -> str:
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST_NAME:
        return name
    return sha256(raw).hexdigest()
