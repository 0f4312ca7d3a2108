"""Byte ranges of a file: merged, trimmed, and widened to whole sectors. Pure: performs no reads.

In: offsets and lengths. Out: the same as fewer or aligned ranges. Knows nothing of files, slices or
plans; which bytes of a slice group a plan reads is decided by ``sti.model.group_layout``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MERGE_GAP = 65536
"""Ranges closer than this many bytes become one read: the gap costs less than a request."""
HUGE_PAGE = 2 << 20
"""Bytes. Direct reads into so much contiguous memory are up to twice as fast as into small pages:
the system hands the device one address instead of hundreds.
"""


class ByteRange(NamedTuple):
    """``length`` bytes from ``offset``."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset of the first byte after the range."""
        return self.offset + self.length


def coalesce(ranges: Iterable[ByteRange], *, gap: int = MERGE_GAP) -> tuple[ByteRange, ...]:
    """Merge ranges that overlap, touch, or lie at most ``gap`` bytes apart.

    Returns ascending, disjoint ranges that cover every byte of the input; empty ranges are dropped.
    """
    merged: list[ByteRange] = []
    for item in sorted((r for r in ranges if r.length), key=lambda r: (r.offset, r.length)):
        if merged and item.offset - merged[-1].end <= gap:
            last = merged.pop()
            item = ByteRange(last.offset, max(last.end, item.end) - last.offset)
        merged.append(item)
    return tuple(merged)


def skip(ranges: Sequence[ByteRange], skipped: int) -> tuple[ByteRange, ...]:
    """What is left of ``ranges`` after their first ``skipped`` bytes, e.g. those preloaded."""
    if not skipped:
        return tuple(ranges)
    left: list[ByteRange] = []
    for item in ranges:
        taken = min(skipped, item.length)
        skipped -= taken
        if taken < item.length:
            left.append(ByteRange(item.offset + taken, item.length - taken))
    return tuple(left)


def total_bytes(ranges: Iterable[ByteRange]) -> int:
    """Sum of the lengths."""
    return sum(item.length for item in ranges)


SECTOR = 4096
"""Offsets, lengths and addresses of direct reads are multiples of this."""


def in_sectors(size: int) -> int:
    """``size`` bytes, rounded up to whole sectors."""
    return -(-size // SECTOR) * SECTOR


def cover(item: ByteRange) -> ByteRange:
    """The smallest sector-aligned range around ``item``."""
    start = item.offset // SECTOR * SECTOR
    return ByteRange(start, in_sectors(item.end) - start)
