"""Reads that do not return: a card that died, a network that is gone.

In: a reader, and how long a read may take. Out: the same reads, and, for whoever waits for the
thread that reads, an error when one takes longer. That thread cannot be freed: whoever gets the
error leaves it, and the memory it reads into, to itself. Only time in which somebody could look
counts. Knows nothing of threads otherwise.
"""

from __future__ import annotations

from time import monotonic

import numpy as np
from numpy.typing import NDArray

from sti.errors import StorageError
from sti.storage.byte_ranges import ByteRange
from sti.storage.reader import Reader
from sti.storage.threads import older

READ_TIMEOUT_S = 30.0
"""By default; a read that succeeds takes less even where a card has to be reset meanwhile."""


class _Read:
    """One read; the same object is the same read."""

    __slots__ = ("begun_s", "what")

    def __init__(self, what: str, begun_s: float) -> None:
        self.what, self.begun_s = what, begun_s


class WatchedReader:
    """A ``Reader`` for one thread at a time, whose reads others can look at.

    Args:
        inner: reads; stays the caller's.
        timeout_s: how long a read may take.
        where: the file, for messages.
    """

    def __init__(self, inner: Reader, timeout_s: float, *, where: str) -> None:
        self._inner, self._timeout_s, self._where = inner, timeout_s, where
        self._now: _Read | None = None
        """What is being read."""
        self._seen: tuple[_Read, float, float] | None = None
        """What was found at the last look: what was read, its age, and when that was."""
        self.given_up = False
        """Whether a read took too long; nothing is read any more, should that one return."""

    @property
    def direct(self) -> bool:
        """Whether reads bypass the page cache."""
        return self._inner.direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """As ``Reader.read``, and raises what the inner reader raises."""
        self._begin(f"{item.length} bytes at {item.offset}")
        try:
            self._inner.read(item, out)
        finally:
            self._now = None

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """As ``Reader.read_rows``, and raises what the inner reader raises."""
        self._begin(f"{len(rows)} token embeddings at {base} and behind")
        try:
            self._inner.read_rows(base, rows, out)
        finally:
            self._now = None

    def check(self) -> None:
        """Look at what is being read. Any thread.

        Raises:
            StorageError: it takes too long.
        """
        now, seen, now_s = self._now, self._seen, monotonic()
        if now is None:
            return
        if seen is None or seen[0] is not now:
            seen = (now, 0.0, now.begun_s)
        age_s = older(seen[1], seen[2], now_s)
        self._seen = (now, age_s, now_s)
        if age_s > self._timeout_s:
            self.given_up = True
            raise too_long(self._where, now.what, self._timeout_s)

    def _begin(self, what: str) -> None:
        if self.given_up:
            raise too_long(self._where, what, self._timeout_s)
        self._now = _Read(what, monotonic())

    def close(self) -> None:
        """The inner reader is closed by whoever has it."""


def too_long(where: str, what: str, timeout_s: float) -> StorageError:
    """What is told of a read that does not return."""
    return StorageError(
        f"{where}: reading {what} did not end within {timeout_s:g} s; check that the storage is "
        "still there, or allow more (read_timeout)"
    )
