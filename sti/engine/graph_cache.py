"""Graphs of plans, kept as files from one engine to the next.

In: the name of a graph, and what writes its files. Out: directories with a model, its weights and
their digests, which are compared when one is opened. Several processes may use a cache at once: one
builds at a time, a graph appears as a whole or not at all, and one that is removed stays usable for
those who have it open. A cache trusts nothing that another user could have written. Knows nothing
of what graphs compute.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sti.engine.graph_files import (
    RECORD,
    CachedGraph,
    delete,
    open_graph,
    write_record,
)
from sti.errors import GraphError
from sti.storage.atomic_file import sync_directory
from sti.storage.drafts import draft_path, is_draft
from sti.storage.file_lock import locked, patience
from sti.storage.own_files import check_directory
from sti.units import format_size

GRAPHS = "graphs"
"""The directory's name inside of STI's cache directory."""
MOST_BYTES = 2 << 30
"""Of all graphs together; beyond that, those that were not used for longest are removed."""
LONGEST_WAIT_S = 600.0
"""Seconds for which another process that builds is waited for."""

_LOCK = "lock"
_POLL_S = 0.05

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR)
"""Errors that say nothing of a file."""


class GraphCache:
    """A directory of graphs. Safe to use from several processes and threads at once.

    Args:
        directory: made where it does not exist; nobody else may write to it.
        most_bytes: of all graphs together.
    """

    def __init__(self, directory: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.directory = directory
        self._most_bytes = most_bytes

    def find(self, name: str) -> CachedGraph | None:
        """A graph whose files match their digests; None where there is none.

        Reads its files once, in pieces.

        Raises:
            GraphError: there is one, but not as it was written; it was removed.
        """
        place = self.directory / name
        try:
            check_directory(self.directory)
            if any(map(is_draft, os.listdir(self.directory))):
                self.clean()
            if not os.path.lexists(place):
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return open_graph(place)
        except OSError as error:
            if error.errno in _PASSING:
                raise self._unusable(error) from error
            found = error.strerror or str(error)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            found = str(error)
        self.remove(name)
        raise GraphError(f"{place}: a kept graph cannot be used, and is removed: {found}")

    def keeps(self, name: str) -> bool:
        """Whether there is a graph of this name, sound or not."""
        return os.path.lexists(self.directory / name)

    def remove(self, name: str) -> None:
        """Remove a graph, if it is there and can be removed; nobody sees part of it."""
        draft = self._draft(name)
        with suppress(OSError):
            os.rename(self.directory / name, draft)
            delete(draft)

    def check_room(self, weights_bytes: int) -> None:
        """Whether a graph could be built here.

        Args:
            weights_bytes: of its packed weights.

        Raises:
            GraphError: the directory cannot be written, or storage has too little room.
        """
        try:
            self._make_directory()
            free = shutil.disk_usage(self.directory).free
        except OSError as error:
            raise self._unusable(error) from error
        # As they are and packed, once more for a layer that is being packed; and some to spare.
        needed = 4 * weights_bytes
        if 2 * weights_bytes > self._most_bytes:
            raise GraphError(
                f"{self.directory}: a graph of {2 * weights_bytes} bytes is more than the "
                f"{self._most_bytes} that are kept"
            )
        if free < needed:
            raise GraphError(
                f"{self.directory}: a graph needs {format_size(needed)} of storage while it is "
                f"built, and {format_size(free)} are free; free some, or set XDG_CACHE_HOME to a "
                "directory with more"
            )

    def build(self, name: str, write: Callable[[Path], int]) -> bool:
        """Have a graph written, unless it is there by the time that others have finished theirs.

        Args:
            write: writes files into an empty directory, and returns the bytes of packed weights.

        Returns:
            Whether it was written now.

        Raises:
            GraphError: the directory cannot be used, or another process builds for too long.
            What ``write`` raises; nothing of the graph is left then.
        """
        try:
            self._make_directory()
            with self._locked(LONGEST_WAIT_S):
                self._remove_drafts()
                if os.path.lexists(self.directory / name):
                    return False
                self._build(name, write)
                self._keep_within(name)
                return True
        except OSError as error:
            raise self._unusable(error) from error

    def used(self, graph: CachedGraph) -> None:
        """Note that a graph is in use: it is removed later than others."""
        with suppress(OSError):
            os.utime(graph.directory / RECORD)

    def _build(self, name: str, write: Callable[[Path], int]) -> None:
        draft = self._draft(name)
        draft.mkdir(mode=0o700)
        try:
            write_record(draft, name, packed_bytes=write(draft))
            os.rename(draft, self.directory / name)
            sync_directory(self.directory)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _keep_within(self, name: str) -> None:
        """Remove the graphs that were not used for longest, but not this one."""
        found = []
        for place in self.directory.iterdir():
            if place.name.startswith(".") or not place.is_dir():
                continue
            with suppress(OSError):
                used = os.lstat(place / RECORD).st_mtime_ns
                found.append((used, sum(p.stat().st_size for p in place.iterdir()), place))
        total = sum(size for _, size, _ in found)
        for _, size, place in sorted(found):
            if total > self._most_bytes and place.name != name:
                self.remove(place.name)
                total -= size

    def clean(self) -> None:
        """Remove what builders that were ended have left, unless one is at work."""
        with suppress(OSError, GraphError):
            check_directory(self.directory)
            with self._locked(0.0):
                self._remove_drafts()

    @contextmanager
    def _locked(self, longest_s: float) -> Iterator[None]:
        """While nobody else builds.

        Raises:
            GraphError: another process does for so many seconds.
            OSError: the lock cannot be used.
        """
        path = self.directory / _LOCK
        with locked(path, patience(longest_s, poll_s=_POLL_S)) as held:
            if not held:
                raise GraphError(
                    f"{path}: another process has been building a graph for {longest_s:.0f} seconds"
                )
            yield

    def _remove_drafts(self) -> None:
        """Remove what those who built or removed before and were killed have left."""
        for place in self.directory.iterdir():
            if is_draft(place.name):
                delete(place)

    def _draft(self, name: str) -> Path:
        return draft_path(self.directory / name)

    def _make_directory(self) -> None:
        if not hasattr(os, "geteuid"):
            raise OSError(0, "this system does not tell whose files they are")
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self.directory.mkdir(mode=0o700)
        check_directory(self.directory)
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise PermissionError(0, "it may not be written", str(self.directory))

    def _unusable(self, error: OSError) -> GraphError:
        return GraphError(
            f"{self.directory}: graphs cannot be kept there: {error.strerror or error}; set "
            "XDG_CACHE_HOME to a directory that you may write and nobody else"
        )
