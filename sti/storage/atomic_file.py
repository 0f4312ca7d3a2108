"""Writing a file atomically: a draft beside it, then a rename.

In: what a file is to hold. Out: the file with all of it, or as it was before. Readers, in this
process or another, never see half of one. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sti.errors import InputError, StorageError

_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_DRAFT = ".part"


@contextmanager
def replacing(path: Path, *, durable: bool = False, private: bool = False) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the body ends, and is removed if it fails.

    Writers of the same path do not disturb one another, in one process or in several: the last one
    to end wins.

    Args:
        path: replaced as a whole; its directory must exist.
        durable: wait until the bytes are on storage before the old file is given up, so that not
            even a power cut leaves a file that is neither the old nor the new one.
        private: only the user may read and write it; else whoever the umask lets.

    Raises:
        OSError: the file cannot be written; nothing of it is left.
    """
    draft = path.parent / f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{_DRAFT}"
    try:
        with open(draft, "xb", opener=_private if private else None) as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def remove_drafts(path: Path) -> None:
    """Remove what writers of ``path`` that were killed left beside it.

    Only for a path that no other process writes: the draft of one that does would be lost.

    Raises:
        OSError: the directory cannot be read, or a draft cannot be removed.
    """
    for draft, _ in _drafts(path):
        draft.unlink(missing_ok=True)


def remove_abandoned_drafts(path: Path) -> None:
    """Remove what writers of ``path`` left beside it whose processes have ended.

    For paths that others on this machine may be writing. What cannot be removed stays.
    """
    with suppress(OSError):
        for draft, writer in _drafts(path):
            if writer.isdecimal() and not _runs(int(writer)):
                draft.unlink(missing_ok=True)


def _drafts(path: Path) -> Iterator[tuple[Path, str]]:
    """Drafts of ``path``, each with the number of the process that wrote it, as its name says."""
    for name in os.listdir(path.parent):
        if name.startswith(f".{path.name}.") and name.endswith(_DRAFT):
            yield path.parent / name, name.removeprefix(f".{path.name}.").partition("-")[0]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it belongs to someone else, or is no process number: not ours to judge
    return True


def write_file(name: str, text: str) -> None:
    """Write a text file whole; a pipe or a device is written to as it is.

    Raises:
        InputError: the file cannot be written there; no temporary file is left.
        StorageError: the disk is full or fails; no temporary file is left.
    """
    path = Path(name)
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with replacing(path) as stream:
            stream.write(text.encode("utf-8"))
    except OSError as error:
        kind = StorageError if error.errno in _FAILURES else InputError
        raise kind(f"{name}: cannot be written: {error.strerror}") from error
