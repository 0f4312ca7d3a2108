"""Timing single reads of a file, by size.

In: an open file and a time budget. Out: seconds of each read. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from time import perf_counter

import numpy as np

from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import HUGE_PAGE, aligned_buffer

REQUEST_SIZES = tuple(2**power for power in range(16, 21))
"""Sizes of the reads that storage is timed with, in bytes: 64 KiB to 1 MiB."""


def time_reads(
    reader: FileReader, file_bytes: int, *, budget_s: float, sizes: Sequence[int] = REQUEST_SIZES
) -> list[tuple[int, float]]:
    """Time single reads at random places of a file, each size at least three times.

    Args:
        reader: the open file.
        file_bytes: its size.
        budget_s: seconds to spend; exceeded only where three reads of each size take longer.
        sizes: bytes of the reads, ascending multiples of ``SECTOR``; those beyond the file's size
            are left out.

    Returns:
        Bytes and seconds of each read.

    Raises:
        StorageError, PackCorruptError: a read failed.
    """
    fitting = [size for size in sizes if size <= file_bytes]
    if not fitting:
        return []
    buffer = aligned_buffer(max(fitting[-1], HUGE_PAGE))  # as the ring is
    places = np.random.default_rng(0)
    times: list[tuple[int, float]] = []
    deadline = perf_counter() + budget_s
    reader.read(ByteRange(0, fitting[0]), buffer)  # a disk that sleeps wakes up here
    for count, size in enumerate(cycle(fitting)):
        if count >= 3 * len(fitting) and perf_counter() >= deadline:
            return times
        sectors = (file_bytes - size) // SECTOR + 1
        item = ByteRange(int(places.integers(sectors)) * SECTOR, size)
        start = perf_counter()
        reader.read(item, buffer)
        times.append((size, perf_counter() - start))
    raise AssertionError("cycle ended")
