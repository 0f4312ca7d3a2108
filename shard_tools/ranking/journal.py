"""A file of finished steps, so that a long job that is killed continues where it stopped.

In: a key that names the job and all it depends on, and steps that each make one array. Out: the
arrays, each made once. The file is replaced as a whole, after the first step and then every few
seconds, so it is never half written. It begins with a digest of the rest; a file that does not
match it, that others may write, or that belongs to another job is told and not used. Knows nothing
of what the steps are.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

import numpy as np

from sti.arrays import Float32Array
from sti.errors import StorageError
from sti.storage.atomic_file import replacing
from sti.storage.own_files import open_own
from sti.storage.plain_files import read_all

_KEY = "key"
_SAVE_S = 1.0
_SHARE = 20.0
"""Saving takes at most one part in so many of the time."""
_MOST_BYTES = 1 << 30
_DIGEST_BYTES = 32
_UNREADABLE = (
    *(ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
    *(RuntimeError, MemoryError, SyntaxError, TypeError, AttributeError),
)
"""What NumPy raises for archives that it did not write: kinds it lacks, or absurd sizes."""


class Journal:
    """The finished steps of one job. Not thread-safe.

    Args:
        path: the file; it appears with the first step.
        key: what the steps depend on.
        shape: of the array of each step.

    Attributes:
        path: as given.
        notice: what to tell the user about the file that was found; empty for nothing.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        self.path = path
        self.notice = ""
        self._key, self._shape = key, shape
        self._steps: dict[str, Float32Array] = {}
        self._due = monotonic()
        self._read()
        self._kept = len(self._steps)

    def __contains__(self, name: str) -> bool:
        return name in self._steps

    def step(self, name: str, make: Callable[[], Float32Array]) -> Float32Array:
        """The array of a step: from the file, or made and kept.

        Raises:
            StorageError: the file cannot be written.
        """
        if name not in self._steps:
            self._steps[name] = make()
            if monotonic() >= self._due:
                self.save()
        return self._steps[name]

    def save(self) -> None:
        """Bring the file up to date, if there is anything new.

        Raises:
            StorageError: it cannot be written.
        """
        if len(self._steps) == self._kept:
            return
        begun = monotonic()
        arrays = {_KEY: np.array(self._key), **self._steps}
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]  # of allow_pickle, which is not among them
        content = packed.getbuffer()
        try:
            with replacing(self.path, private=True, needed_bytes=len(content)) as stream:
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)
        except OSError as error:
            raise StorageError(
                f"{self.path}: progress cannot be kept: {error.strerror or error}"
            ) from error
        ended = monotonic()
        self._due = ended + max(_SAVE_S, _SHARE * (ended - begun))
        self._kept = len(self._steps)

    def remove(self) -> None:
        """The job is done: delete the file. What cannot be deleted is found to be another job's."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            content = self._content()
            if content is None:
                return
            _check_members(content)
            with np.load(content, allow_pickle=False) as found:
                if str(found[_KEY]) != self._key:
                    self.notice = (
                        f"{self.path}: holds the progress of another job (another pack, other data "
                        "or options); starting again"
                    )
                    return
                self._steps = {name: self._array(found, name) for name in found.files}
                del self._steps[_KEY]
        except (OSError, *_UNREADABLE) as error:
            self._steps = {}
            told = error.strerror if isinstance(error, OSError) else error
            self.notice = f"{self.path}: cannot be used ({told}); starting again"
            return
        self.notice = f"{self.path}: continuing after {len(self._steps)} finished steps"

    def _array(self, found: Mapping[str, Float32Array], name: str) -> Float32Array:
        """A member; raises ``ValueError`` where it is not what a step makes."""
        array = found[name]
        if name != _KEY and (array.dtype != np.float32 or array.shape != self._shape):
            raise ValueError(f"{name!r:.60} is not what a step makes")
        return array

    def _content(self) -> io.BytesIO | None:
        """What the file holds behind its digest; None where there is no file.

        Raises:
            OSError: it cannot be read, or others than the user may write to it.
            ValueError: it is not as it was written.
        """
        try:
            descriptor = open_own(self.path)
        except FileNotFoundError:
            return None
        try:
            digest = os.read(descriptor, _DIGEST_BYTES)
            content = read_all(descriptor, _MOST_BYTES)
        finally:
            os.close(descriptor)
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("it is damaged")
        return io.BytesIO(content)


def _check_members(content: io.BytesIO) -> None:
    """Refuse an archive that holds more than it is long: journals are not compressed.

    Raises:
        ValueError, zipfile.BadZipFile: it does, or it is no archive.
    """
    with zipfile.ZipFile(content) as archive:
        members = archive.infolist()
    plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not plain or sum(member.file_size for member in members) > len(content.getbuffer()):
        raise ValueError("it holds more than it is long")
    content.seek(0)
