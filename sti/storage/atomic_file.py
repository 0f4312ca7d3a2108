"""Writing a file whole or not at all: a temporary file beside it, then a rename."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sti.errors import InputError, StorageError

_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def write_file(name: str, text: str) -> None:
    """Write a file whole: to a sibling that is then renamed.

    Raises:
        InputError: the file cannot be written there; nothing of it is left.
        StorageError: the disk is full or fails; nothing of the file is left.
    """
    import tempfile  # most commands write no file

    path = Path(name)
    temporary = None
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device
            return
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        kind = StorageError if error.errno in _FAILURES else InputError
        raise kind(f"{name}: cannot be written: {error.strerror}") from error
