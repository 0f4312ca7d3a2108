"""The interface that packs are read through during runs, and the memory they are read into.

In: byte ranges and rows. Out: their bytes, in memory that the caller owns. Knows nothing of files,
slices or plans: a reader may be a file or an emulated slower device.
"""

from __future__ import annotations

import errno
import mmap
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sti.storage.byte_ranges import HUGE_PAGE, SECTOR, ByteRange, in_sectors


def aligned_buffer(size: int) -> NDArray[np.uint8]:
    """A zeroed, page-aligned uint8 array of at least ``size`` bytes, freed with its last view.

    As much of it as fills huge pages is to lie in them, where the system has them; what is left
    over is not, so that no more memory is taken than was asked for, but up to 2 MiB of addresses.

    Raises:
        MemoryError: there is not so much.
    """
    rounded = max(SECTOR, in_sectors(size))
    huge_bytes = rounded // HUGE_PAGE * HUGE_PAGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared pages would be slower to touch
    try:
        mapped = mmap.mmap(-1, rounded + HUGE_PAGE if huge_bytes else rounded, flags=flags)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(f"a buffer of {size} bytes cannot be had") from error
    memory = np.frombuffer(mapped, dtype=np.uint8)
    if huge_bytes:
        start = -memory.ctypes.data % HUGE_PAGE
        memory = memory[start : start + rounded]
        advice = getattr(mmap, "MADV_HUGEPAGE", None)
        if advice is not None:
            with suppress(OSError):  # a system built without them
                mapped.madvise(advice, start, huge_bytes)
    return memory


class Reader(Protocol):
    """What the storage lane reads from. Reads may come from several threads at once.

    Reads raise ``StorageError`` where they fail, or after ``close``, and ``PackCorruptError`` where
    the data ends early; after either, other reads still work, and what is in ``out`` is not used.
    ``sti.testing.reader_contract`` checks a reader against all of this.
    """

    @property
    def direct(self) -> bool:
        """Whether reads bypass the page cache."""
        ...

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """Fill ``out[:item.length]`` with the range ``item``.

        ``item`` is sector-aligned; ``out`` is page-aligned uint8, owned by the caller.
        """
        ...

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Fill ``out``, uint8 ``[n, row_bytes]``, with ``rows`` of a table at byte ``base``.

        ``rows`` are int64 ``[n]``, ascending and distinct; ``out`` is owned by the caller.
        """
        ...

    def close(self) -> None:
        """Release what the reader holds. Idempotent."""
        ...
