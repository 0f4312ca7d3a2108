"""Memory for reads."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from sti.storage.byte_ranges import HUGE_PAGE, SECTOR
from sti.storage.reader import aligned_buffer

SMAPS = Path("/proc/self/smaps")


def _advised() -> Iterator[tuple[int, int]]:
    """Start and end of this process's mappings that are to lie in huge pages."""
    start = end = 0
    for line in SMAPS.read_text().splitlines():
        head, _, rest = line.partition(" ")
        if head == "VmFlags:":
            if "hg" in rest.split():
                yield start, end
        elif not head.endswith(":"):
            first, _, last = head.partition("-")
            start, end = int(first, 16), int(last, 16)


@pytest.mark.parametrize("size", [0, 1, SECTOR + 1, HUGE_PAGE - 1, HUGE_PAGE, 5 * HUGE_PAGE // 2])
def test_buffers_are_zeroed_and_aligned(size: int) -> None:
    buffer = aligned_buffer(size)
    assert size <= buffer.size < size + SECTOR or buffer.size == SECTOR
    assert buffer.ctypes.data % (HUGE_PAGE if buffer.size >= HUGE_PAGE else SECTOR) == 0
    assert buffer.flags.writeable and not buffer.any()


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists() or not SMAPS.exists(),
    reason="this system has no huge pages to ask for",
)
def test_what_fills_huge_pages_lies_in_them_and_no_more() -> None:
    buffer = aligned_buffer(2 * HUGE_PAGE + SECTOR)
    start = buffer.ctypes.data
    end = start + buffer.size
    held = [(max(first, start), min(last, end)) for first, last in _advised()]
    assert [pair for pair in held if pair[0] < pair[1]] == [(start, start + 2 * HUGE_PAGE)]


def test_a_view_keeps_the_memory() -> None:
    view = aligned_buffer(2 * HUGE_PAGE)[HUGE_PAGE:]
    view[...] = 7
    assert view.min() == 7


def test_a_system_without_huge_pages_gives_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)  # the system refuses what it does not know
    assert aligned_buffer(HUGE_PAGE).size == HUGE_PAGE
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert aligned_buffer(HUGE_PAGE).size == HUGE_PAGE
