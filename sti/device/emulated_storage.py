"""Emulating slower storage: real reads that end no sooner than a slower device's would.

In: a reader of the real file, and the device to emulate (``StorageProfile``). Out: a ``Reader``
that returns the same bytes later. So one machine shows what a microSD card or a phone's flash would
do to a run; nothing gets faster than the real storage. Knows nothing of packs or plans.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray

from sti.device.lane_profiles import StorageProfile
from sti.device.lanes import STORAGE
from sti.device.profile import DeviceProfile
from sti.errors import InputError
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.reader import Reader
from sti.units import format_size, parse_size, parse_time

LEAST_RATE = 10**6
"""Bytes per second; with less, a run would seem to hang."""
_ROWS_AT_ONCE = 8
"""Scattered rows that the emulated device serves in parallel."""
_LATE_S = 2e-4
"""A request that comes within this time after the end of the previous one follows it without a gap:
``sleep`` wakes up late, which must not count against the emulated device."""

DEVICES = {
    "microsd": StorageProfile(True, request_s=1e-3, bytes_per_s=0.05e9, row_s=0.0),
    "emmc": StorageProfile(True, request_s=2e-4, bytes_per_s=0.3e9, row_s=0.0),
    "ufs3": StorageProfile(True, request_s=1e-4, bytes_per_s=2e9, row_s=0.0),
    "ufs4": StorageProfile(True, request_s=5e-5, bytes_per_s=4e9, row_s=0.0),
}
"""Round figures for sequential reads from common kinds of storage."""


def parse_storage(text: str, *, name: str = "--storage") -> StorageProfile:
    """A device by its name, or as ``RATE`` or ``RATE:LATENCY``: ``100MB/s``, ``300MB/s:0.2ms``.

    Raises:
        InputError: it is neither.
    """
    found = DEVICES.get(text.lower())
    if found is None:
        rate, colon, latency = text.partition(":")
        size, per, second = rate.partition("/")
        if not per or second.strip().lower() != "s":
            raise InputError(
                f"{name} must be one of {', '.join(DEVICES)}, or a rate such as 100MB/s or "
                f"300MB/s:0.2ms (with the latency of a request); found {text!r:.60}"
            )
        bytes_per_s = parse_size(size, name=f"the rate of {name}")
        if bytes_per_s < LEAST_RATE:
            least = format_size(LEAST_RATE)
            raise InputError(f"the rate of {name} must be at least {least}/s; found {text!r:.60}")
        request_s = parse_time(latency, name=f"the latency of {name}") if colon else 0.0
        found = StorageProfile(True, request_s=request_s, bytes_per_s=bytes_per_s, row_s=0.0)
    return replace(found, row_s=SECTOR / found.bytes_per_s + found.request_s / _ROWS_AT_ONCE)


def with_storage(profile: DeviceProfile, storage: StorageProfile) -> DeviceProfile:
    """The profile, each figure of its storage the slower of its own and that of ``storage``."""
    own = profile.storage
    slower = StorageProfile(
        direct=own.direct,
        request_s=max(own.request_s, storage.request_s),
        bytes_per_s=min(own.bytes_per_s, storage.bytes_per_s),
        row_s=max(own.row_s, storage.row_s),
    )
    return profile.with_lanes({STORAGE: slower})


class SlowReader:
    """A ``Reader`` that delays another one's answers to the pace of a slower device.

    The device serves one request at a time, each in ``request_s`` plus its bytes over the rate;
    rows of a table take ``row_s`` each. Where the real read takes longer, nothing is added.

    Args:
        inner: reads the bytes; owned, closed with this one.
        storage: the device to emulate.

    Safe to share between threads: their requests queue up, as they would at the device.
    """

    def __init__(self, inner: Reader, storage: StorageProfile) -> None:
        self._inner, self._storage = inner, storage
        self._lock = threading.Lock()
        self._free = 0.0

    @property
    def direct(self) -> bool:
        """Whether reads bypass the page cache."""
        return self._inner.direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """As ``Reader.read``, and raises what the inner reader raises."""
        with self._lock:
            start = perf_counter()
            self._inner.read(item, out)
            self._wait(start, self._storage.read_s(1, item.length))

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """As ``Reader.read_rows``, and raises what the inner reader raises."""
        with self._lock:
            start = perf_counter()
            self._inner.read_rows(base, rows, out)
            self._wait(start, self._storage.row_s * len(rows))

    def close(self) -> None:
        """Close the inner reader. Idempotent."""
        self._inner.close()

    def _wait(self, start: float, busy_s: float) -> None:
        """Return when the device, asked at ``start``, would finish after ``busy_s`` seconds."""
        if start - self._free < _LATE_S:
            start = self._free
        self._free = start + busy_s
        left = self._free - perf_counter()
        if left > 0.0:
            sleep(left)
        else:
            self._free = perf_counter()
