"""What blocks are read from, as an interface, and the memory they are read into.

Knows nothing of files, blocks or plans: a reader may be a file, a slower device that is emulated,
later a peer's memory or a pack that is still arriving.
"""

from __future__ import annotations

import mmap
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sti.storage.byte_ranges import SECTOR, ByteRange


def aligned_buffer(size: int) -> NDArray[np.uint8]:
    """A zeroed, page-aligned uint8 array of at least ``size`` bytes, given back when collected."""
    rounded = max(SECTOR, -(-size // SECTOR) * SECTOR)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared pages would be slower to touch
    return np.frombuffer(mmap.mmap(-1, rounded, flags=flags), dtype=np.uint8)


class Reader(Protocol):
    """What the stream reads from: a file, later a peer's memory or a pack still arriving."""

    @property
    def direct(self) -> bool:
        """Whether reads bypass the page cache."""
        ...

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` with the sector-aligned range ``item``; ``out`` is page-aligned."""
        ...

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Fill ``out [n, row_bytes]`` with ascending, distinct ``rows`` of a table at ``base``."""
        ...

    def close(self) -> None:
        """Give back what the reader holds. Idempotent."""
        ...
