"""Timing single reads of a file, by size.

In: an open file and a time budget. Out: seconds of each read, and what share of it the thread
waited for a core. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from sti.calibration.disturbance import Watch
from sti.calibration.observations import Sized
from sti.storage.byte_ranges import HUGE_PAGE, SECTOR, ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer

REQUEST_SIZES = tuple(2**power for power in range(16, 21))
"""Sizes of the reads that storage is timed with, in bytes: 64 KiB to 1 MiB."""
LEAST_ROUNDS = 3
"""How often each size is read at least."""


class ReadTimer:
    """Reads at random places of a file, each size in turn. For one thread.

    Args:
        reader: the open file.
        file_bytes: its size.
        sizes: bytes of the reads, ascending multiples of ``SECTOR``; those beyond the file's size
            are left out; where all of them are, as much as there is is read.
    """

    def __init__(
        self, reader: FileReader, file_bytes: int, *, sizes: Sequence[int] = REQUEST_SIZES
    ) -> None:
        self._reader, self._file_bytes = reader, file_bytes
        whole = file_bytes // SECTOR * SECTOR
        self._sizes = [size for size in sizes if size <= file_bytes] or [whole]
        self._places = np.random.default_rng(0)
        self._watch = Watch()
        self._buffer = aligned_buffer(max(self._sizes[-1], HUGE_PAGE))  # as the ring is
        reader.read(ByteRange(0, self._sizes[0]), self._buffer)  # a disk that sleeps wakes up here

    def once(self) -> list[Sized]:
        """Time one read of each size.

        Raises:
            StorageError, PackCorruptError: a read failed.
        """
        return [self._time(size) for size in self._sizes]

    def _time(self, size: int) -> Sized:
        sectors = (self._file_bytes - size) // SECTOR + 1
        item = ByteRange(int(self._places.integers(sectors)) * SECTOR, size)
        self._watch.start()
        start = perf_counter()
        self._reader.read(item, self._buffer)
        seconds = perf_counter() - start
        return Sized(size, seconds, self._watch.share())


def time_reads(reader: FileReader, file_bytes: int, *, budget_s: float) -> list[Sized]:
    """Time single reads at random places of a file, each size ``LEAST_ROUNDS`` times at least.

    Args:
        reader, file_bytes: as of ``ReadTimer``.
        budget_s: seconds to spend; exceeded only where those few take longer.

    Raises:
        StorageError, PackCorruptError: a read failed.
    """
    timer = ReadTimer(reader, file_bytes)
    deadline = perf_counter() + budget_s
    times = [found for _ in range(LEAST_ROUNDS) for found in timer.once()]
    while perf_counter() < deadline:
        times += timer.once()
    return times
