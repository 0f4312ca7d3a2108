"""Writing a file atomically: a draft beside it, then a rename.

In: what a file is to hold. Out: the file with all of it, or as it was before. Readers, in this
process or another, never see half of one. A writer that is killed leaves a draft, which the next
one of the same file removes. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sti.errors import InputError, StorageError
from sti.storage.drafts import new_draft, remove_abandoned_drafts
from sti.storage.plain_files import check_name

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FAILURES = {*_FULL, errno.EIO}
_STREAMS = tuple(Path(name) for name in ("/dev", "/dev/fd", "/proc/self/fd"))
_NEW = 0o666


@contextmanager
def replacing(
    path: Path, *, durable: bool = False, private: bool = False, needed_bytes: int = 0
) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the body ends, and is removed if it fails.

    Writers of the same path do not disturb one another, in one process or in several, on one
    machine or in several containers: the last one to end wins. (On a network file system that is
    mounted with locks of its own for each machine, one that begins takes the draft of another
    machine's for abandoned; that one then fails.) A link at ``path`` is replaced, and what it
    pointed to stays as it is. A file that takes the place of another one may be read and written by
    whom the old one might, a new one by whom the umask lets.

    Args:
        path: replaced as a whole; its directory must exist.
        durable: wait until the bytes are on storage before the old file is given up, so that not
            even a power cut leaves a file that is neither the old nor the new one.
        private: only the user may read and write it.
        needed_bytes: of the whole file, as far as they are known; where storage has fewer, it fails
            at once.

    Raises:
        OSError: the file cannot be written; nothing of it is left. Where storage is full, its
            ``strerror`` says how much is needed and how much is free.
    """
    check_name(path)
    remove_abandoned_drafts(path)
    full = _no_room(path, needed_bytes)
    if full is not None:
        raise full
    old = None if private else _rights_of(path)
    mode = 0o600 if private else _NEW if old is None else stat.S_IMODE(old.st_mode) & 0o777
    draft, lock = new_draft(path, mode)
    try:
        try:
            with _closed_either_way(os.fdopen(os.dup(lock), "wb")) as stream:
                yield stream
                if old is not None:
                    _give_rights(lock, old, mode)
                stream.flush()
                if durable:
                    os.fsync(lock)
            os.replace(draft, path)
        except BaseException as error:
            draft_file = os.fstat(lock)
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _FULL:
                # Its room is free again when the lock is let go of.
                room = getattr(draft_file, "st_blocks", 0) * 512
                needed = max(needed_bytes, draft_file.st_size)
                raise _full(error, path, needed, soon_free_bytes=room) from error
            raise
        if durable:
            with suppress(OSError):  # the new file is whole, whichever of the two is found
                sync_directory(path.parent)
    finally:
        os.close(lock)  # not before the draft has another name, or none


@contextmanager
def _closed_either_way(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Close a stream; after an error, what it still holds is not wanted and cannot hide the error.

    Raises:
        OSError: what was written does not reach the file.
    """
    try:
        yield stream
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    stream.close()


def write_file(name: str, text: str) -> None:
    """Write a text file whole; a pipe or a device is written to as it is.

    Raises:
        InputError: the file cannot be written there; no temporary file is left.
        StorageError: the disk is full or fails; no temporary file is left.
    """
    path = Path(name)
    try:
        if is_stream(path):
            path.write_text(text, encoding="utf-8")
            return
        raw = text.encode("utf-8")
        with replacing(path, needed_bytes=len(raw)) as stream:
            stream.write(raw)
    except OSError as error:
        kind = StorageError if error.errno in _FAILURES else InputError
        raise kind(f"{name}: cannot be written: {error.strerror}") from error


def is_stream(path: Path) -> bool:
    """Whether a path stands for something that is written to as it is, never replaced: a pipe, a
    device, or what the process has open already (``/dev/stdout``).
    """
    return path.parent in _STREAMS or (path.exists() and not path.is_file())


def check_room(path: Path, needed_bytes: int) -> None:
    """Refuse to begin what storage has no room for.

    Args:
        path: of the file to be written; its directory exists.
        needed_bytes: that it takes while the old file, if any, is still there.

    Raises:
        StorageError: says how much is needed and how much is free.
    """
    full = _no_room(path, needed_bytes)
    if full is not None:
        raise StorageError(f"{path}: cannot be written: {full.strerror}")


def sync_directory(directory: Path) -> None:
    """Wait until names in a directory are on storage.

    Raises:
        OSError: it cannot be opened, or storage fails.
    """
    descriptor = os.open(directory, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rights_of(path: Path) -> os.stat_result | None:
    """The file whose rights a new one takes over; None where there is none."""
    with suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode):
            return found
    return None


def _give_rights(descriptor: int, old: os.stat_result, mode: int) -> None:
    """Let those read and write a file whom the old one let.

    Where the group cannot be the same, groups get nothing; where the owner is not, nobody else may
    write. File systems without rights refuse all of it.
    """
    with suppress(OSError, AttributeError):
        own = os.fstat(descriptor)
        if own.st_uid != old.st_uid:
            mode &= 0o755
        if own.st_gid != old.st_gid:
            try:
                os.fchown(descriptor, -1, old.st_gid)
            except OSError:
                mode &= 0o707
        os.fchmod(descriptor, mode)


def _no_room(path: Path, needed_bytes: int) -> OSError | None:
    """What is raised where storage has fewer bytes free; None where it has not, or does not say."""
    free = _free_bytes(path.parent)
    if free is None or free >= needed_bytes:
        return None
    return _full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path, needed_bytes)


def _full(error: OSError, path: Path, needed_bytes: int, *, soon_free_bytes: int = 0) -> OSError:
    """The error with how much is needed, and how much there is."""
    told = f"{error.strerror}"
    if needed_bytes:
        told += f": {_size(needed_bytes)} or more are needed"
    free = _free_bytes(path.parent)
    if error.errno == errno.EFBIG:
        told += ", and the system limits files to fewer (`ulimit -f`)"
    elif error.errno == errno.ENOSPC and free is not None:
        told += f", {_size(free + soon_free_bytes)} are free; free some, or name another place"
    return OSError(error.errno, told, str(path))


def _free_bytes(directory: Path) -> int | None:
    try:
        found = os.statvfs(directory)
    except (OSError, AttributeError):  # a system that has no such call
        return None
    return found.f_bavail * found.f_frsize


def _size(count: int) -> str:
    # To the kilobyte: what is free and what is needed may differ by little.
    return f"{count / 1e6:.3f} MB" if count >= 100_000 else f"{count} bytes"
