"""A file whose reads go wrong, whoever reads it: engines with their own reader, and while opening.

In: a file, and faults (``sti.testing.faults``). Effect: within a ``with`` block, ``os.pread`` and
``os.preadv`` of this process inject them into reads of that file. Nothing else reads packs. Other
processes, such as the one that builds a graph, read it as it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sti.arrays import ByteArray
from sti.storage.byte_ranges import ByteRange
from sti.testing.faults import Call, Effect, Fault, Injector, arriving, refusal

Buffers = Any
"""What ``os.preadv`` fills: a sequence of writable buffers."""


@contextmanager
def faulty_file(path: str | Path, *faults: Fault, seed: int = 0) -> Iterator[Injector]:
    """Let reads of a file go wrong, by whatever name or descriptor, until the block is left.

    Faults are of the system's calls: one of them is at most one call of a reader, every kind is
    ``"read"``, and after ``EndsEarly`` the reader asks for the rest. Blocks may be nested, for one
    file or several, and must be left in the reverse order. What stalls is released at the end.

    Args:
        path: names the file as the block is entered.
        faults, seed: as of ``Injector``.

    Yields:
        What injects the faults, to have others, to release stalls and to see what happened.
    """
    found = os.stat(path)
    faulty = _FaultyCalls(Injector(faults, seed=seed), (found.st_dev, found.st_ino))
    before = os.pread, os.preadv
    os.pread, os.preadv = faulty.pread, faulty.preadv
    try:
        yield faulty.injector
    finally:
        os.pread, os.preadv = before
        faulty.injector.inject()
        faulty.injector.release()


class _FaultyCalls:
    """The two calls of the system that read packs, with faults for one file."""

    def __init__(self, injector: Injector, file: tuple[int, int]) -> None:
        self.injector, self._file = injector, file
        self._pread, self._preadv = os.pread, os.preadv

    def pread(self, descriptor: int, length: int, offset: int, /) -> bytes:
        """As ``os.pread``."""
        effects = self._meet(descriptor, ByteRange(offset, length))
        data = self._pread(descriptor, length, offset)
        if not effects:
            return data
        changed = np.frombuffer(bytearray(data), dtype=np.uint8)
        return changed[: arriving(effects, offset, changed, short=True)].tobytes()

    def preadv(self, descriptor: int, buffers: Buffers, offset: int, flags: int = 0, /) -> int:
        """As ``os.preadv``; nothing of the file seems to be in memory."""
        if flags & getattr(os, "RWF_NOWAIT", 0) and self._is_faulty(descriptor):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        length = sum(len(_bytes_of(buffer)) for buffer in buffers)
        effects = self._meet(descriptor, ByteRange(offset, length))
        got = self._preadv(descriptor, buffers, offset, flags)
        return got if not effects else _arriving(effects, offset, buffers, got)

    def _is_faulty(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == self._file

    def _meet(self, descriptor: int, place: ByteRange) -> tuple[Effect, ...]:
        if not self._is_faulty(descriptor):
            return ()
        effects = self.injector.meet(Call("read", place))
        error = refusal(effects)
        if error is not None:
            raise error
        return effects


def _arriving(effects: Sequence[Effect], offset: int, buffers: Buffers, got: int) -> int:
    """Change what was read into buffers, one after the other; how many bytes there are."""
    parts = [_bytes_of(buffer) for buffer in buffers]
    whole = np.concatenate(parts)[:got]
    size, done = arriving(effects, offset, whole, short=True), 0
    for part in parts:
        changed = whole[done : done + len(part)]
        part[: len(changed)] = changed
        done += len(changed)
    return size


def _bytes_of(buffer: Any) -> ByteArray:
    return np.frombuffer(buffer, dtype=np.uint8)
