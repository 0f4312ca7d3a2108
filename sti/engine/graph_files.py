"""The files of one graph: written with a record of their digests, opened if they still match.

In: a directory with files. Out: a ``CachedGraph``, which holds them open and knows whether they are
still as they were. Knows nothing of other graphs, or of what the files hold.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sti.storage.atomic_file import sync_directory
from sti.storage.json_input import SMALL, parse_json
from sti.storage.own_files import check_directory, open_own, read_own

RECORD = "graph.json"
"""The file that names a graph's files and their digests."""
_VERSION = 1
_PIECE = 1 << 20


class OpenFile(NamedTuple):
    """A file of a graph, held open so that it is known whether it is still what was read."""

    descriptor: int
    state: tuple[int, ...]

    def unchanged(self) -> bool:
        """Whether nothing was written to it since it was opened; that it was removed is fine."""
        try:
            now = os.fstat(self.descriptor)
        except OSError:
            return False
        state = _state_of(now)
        # Removing it changes the last of them, too.
        return state == self.state or (now.st_nlink == 0 and state[:-1] == self.state[:-1])


class CachedGraph:
    """A graph whose files were found to be as they were written. Not thread-safe.

    Attributes:
        directory: with the files.
        packed_bytes: of packed weights, as whoever built it said.
    """

    def __init__(self, directory: Path, packed_bytes: int, files: Mapping[str, OpenFile]) -> None:
        self.directory, self.packed_bytes = directory, packed_bytes
        self._files = dict(files)

    def unchanged(self) -> bool:
        """Whether the files are those that were checked, and nothing was written to them."""
        return bool(self._files) and all(file.unchanged() for file in self._files.values())

    def is_in_place(self) -> bool:
        """Whether the files' names still stand for what was checked."""
        try:
            return bool(self._files) and all(
                _state_of(os.lstat(self.directory / name)) == file.state
                for name, file in self._files.items()
            )
        except OSError:
            return False

    def close(self) -> None:
        """Close the files. Idempotent."""
        for file in self._files.values():
            os.close(file.descriptor)
        self._files.clear()


def write_record(place: Path, name: str, *, packed_bytes: int) -> None:
    """Note the digests of all files in a directory, and wait until the note is on storage.

    Args:
        name: of the graph; the directory is to have it when it is opened.
        packed_bytes: of its packed weights.

    Raises:
        OSError: the record cannot be written.
    """
    files = {}
    for path in sorted(place.iterdir()):
        path.chmod(0o600)
        with path.open("rb") as file:
            files[path.name] = {
                "bytes": path.stat().st_size,
                "sha256": _digest_of(file.fileno()),
            }
    record = {"graph": _VERSION, "name": name, "packed_bytes": packed_bytes, "files": files}
    with (place / RECORD).open("xb") as stream:
        stream.write(json.dumps(record).encode())
        stream.flush()
        os.fsync(stream.fileno())
    (place / RECORD).chmod(0o600)
    sync_directory(place)


def open_graph(place: Path) -> CachedGraph:
    """The graph in a directory. Reads its files once, in pieces.

    Raises:
        OSError: the directory or a file cannot be read, or others than the user may write to it.
        ValueError, KeyError, TypeError, AttributeError, RecursionError: it is not as it was
            written.
    """
    check_directory(place)
    record = _read_record(place / RECORD)
    if (record.get("graph"), record.get("name")) != (_VERSION, place.name):
        raise ValueError("it is of another version or plan")
    packed_bytes = record["packed_bytes"]
    if type(packed_bytes) is not int or packed_bytes < 0:
        raise ValueError("its record says nothing of packed weights")
    opened: dict[str, OpenFile] = {}
    try:
        for name, said in record["files"].items():
            if Path(name).name != name:
                raise ValueError("its record names a file elsewhere")
            descriptor = open_own(place / name)
            opened[name] = OpenFile(descriptor, _state_of(os.fstat(descriptor)))
            if os.fstat(descriptor).st_size != said["bytes"]:
                raise ValueError(f"{name} has another size")
            if _digest_of(descriptor) != said["sha256"]:
                raise ValueError(f"{name} does not match its digest")
        if not opened:
            raise ValueError("its record names no files")
    except BaseException:
        for file in opened.values():
            os.close(file.descriptor)
        raise
    return CachedGraph(place, packed_bytes, opened)


def delete(place: Path) -> None:
    """Remove a directory with all that is in it, or whatever else has its name."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink(missing_ok=True)


def _read_record(path: Path) -> dict[str, Any]:
    found = parse_json(read_own(path, SMALL.most_bytes), SMALL)
    if not isinstance(found, dict):
        raise ValueError("its record is no object")
    return found


def _state_of(found: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest_of(descriptor: int) -> str:
    """SHA-256 of a file, read in pieces."""
    digest, place = sha256(), 0
    while piece := os.pread(descriptor, _PIECE, place):
        digest.update(piece)
        place += len(piece)
    return digest.hexdigest()
