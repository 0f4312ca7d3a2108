"""The interface that packs are read through during runs, and the memory they are read into.

In: byte ranges and rows. Out: their bytes, in memory that the caller owns. Knows nothing of files,
slices or plans: a reader may be a file or an emulated slower device.
"""

from __future__ import annotations

import mmap
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sti.storage.byte_ranges import SECTOR, ByteRange


def aligned_buffer(size: int) -> NDArray[np.uint8]:
    """A zeroed, page-aligned uint8 array of at least ``size`` bytes, freed with its last view."""
    rounded = max(SECTOR, -(-size // SECTOR) * SECTOR)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared pages would be slower to touch
    return np.frombuffer(mmap.mmap(-1, rounded, flags=flags), dtype=np.uint8)


class Reader(Protocol):
    """What the storage lane reads from. Reads may come from several threads at once.

    Reads raise ``StorageError`` where they fail and ``PackCorruptError`` where the data ends early.
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
