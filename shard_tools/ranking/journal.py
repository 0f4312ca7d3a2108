"""A file of finished steps, so that a long job that is killed continues where it stopped.

In: a key that names the job and all it depends on, and steps that each make one array. Out: the
arrays, each made once. The file is replaced as a whole every few seconds, so it is never half
written; a file that cannot be read, or that belongs to another job, is replaced by a new one. Knows
nothing of what the steps are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np

from sti.arrays import Float32Array
from sti.errors import StorageError
from sti.storage.atomic_file import replacing
from sti.storage.plain_files import regular

_KEY = "key"
_SAVE_S = 10.0


class Journal:
    """The finished steps of one job. Not thread-safe.

    Args:
        path: the file; it appears with the first save.
        key: what the steps depend on.

    Attributes:
        path: as given.
        notice: what to tell the user about the file that was found; empty for nothing.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.notice = ""
        self._key = key
        self._steps: dict[str, Float32Array] = {}
        self._saved = monotonic()
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
            if monotonic() - self._saved > _SAVE_S:
                self.save()
        return self._steps[name]

    def save(self) -> None:
        """Bring the file up to date, if there is anything new.

        Raises:
            StorageError: it cannot be written.
        """
        if len(self._steps) == self._kept:
            return
        arrays = {_KEY: np.array(self._key), **self._steps}
        try:
            with replacing(self.path) as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]  # of allow_pickle, which is not among them
        except OSError as error:
            raise StorageError(
                f"{self.path}: progress cannot be kept: {error.strerror or error}"
            ) from error
        self._saved, self._kept = monotonic(), len(self._steps)

    def remove(self) -> None:
        """The job is done: delete the file."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            with (
                open(self.path, "rb", opener=regular) as stream,
                np.load(stream, allow_pickle=False) as found,
            ):
                if str(found[_KEY]) != self._key:
                    self.notice = (
                        f"{self.path}: holds the progress of another job (another pack, other data "
                        "or options); starting again"
                    )
                    return
                self._steps = {name: found[name] for name in found.files if name != _KEY}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            self._steps = {}
            self.notice = f"{self.path}: cannot be read ({error}); starting again"
            return
        self.notice = f"{self.path}: continuing after {len(self._steps)} finished steps"
