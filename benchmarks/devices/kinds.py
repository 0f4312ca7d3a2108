"""What a device of the benchmark is, and how both kinds of child processes open a pack on it.

In: how many times slower it is than this machine, which storage it has, its profile. Out: options
of an engine or of a worker, and a reader that counts. Knows nothing of networks.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.slow_device import emulated, slowed
from sti.device.emulated_storage import SlowReader, parse_storage
from sti.device.lane_profiles import StorageProfile
from sti.device.profile import DeviceProfile
from sti.engine.device_options import DeviceOptions
from sti.engine.options import EngineOptions
from sti.engine.serving import WorkerOptions
from sti.notices import Notify
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import Reader


class Kind(NamedTuple):
    """A kind of device: this machine's processor, so many times slower, with another storage."""

    times: float = 1.0
    storage: str | None = None
    """A name or a rate (``sti.device.emulated_storage``); None: as it is."""

    @property
    def words(self) -> str:
        """For tables: ``4x microsd``."""
        return f"{self.times:g}x {self.storage or 'own disk'}"


class Counted(NamedTuple):
    """What a device has read since it was asked last to begin anew."""

    read_bytes: int
    """Of slice groups, without token embeddings."""
    held_bytes: int
    """Of the memory that they were read into."""


class CountingReader:
    """A ``Reader`` that counts what another one reads, and the memory that it reads into.

    Args:
        inner: reads; closed with this one.
    """

    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._read_bytes = 0
        self._filled: dict[int, int] = {}
        """Address to the most bytes that were read to it."""

    @property
    def direct(self) -> bool:
        """As of the other one."""
        return self._inner.direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """As ``Reader.read``."""
        self._inner.read(item, out)
        address = out.__array_interface__["data"][0]
        with self._lock:
            self._read_bytes += item.length
            self._filled[address] = max(self._filled.get(address, 0), item.length)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """As ``Reader.read_rows``; not counted."""
        self._inner.read_rows(base, rows, out)

    def close(self) -> None:
        """Close the other one."""
        self._inner.close()

    def begin_anew(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self._read_bytes, self._filled = 0, {}

    @property
    def counted(self) -> Counted:
        """What was read so far."""
        with self._lock:
            return Counted(self._read_bytes, covered_bytes(self._filled))


def covered_bytes(pieces: dict[int, int]) -> int:
    """Bytes of memory that pieces cover, which may overlap: address to size."""
    total = end = 0
    for start in sorted(pieces):
        after = start + pieces[start]
        total += max(0, after - max(start, end))
        end = max(end, after)
    return total


def loaded(path: Path) -> DeviceProfile:
    """The profile in a file."""
    return DeviceProfile.from_json(json.loads(path.read_text(encoding="utf-8")), where=str(path))


def emulated_kind(machine: DeviceProfile, kind: Kind) -> DeviceProfile:
    """The profile of a device, by that of this machine."""
    return emulated(machine, times=kind.times, storage=_storage(kind))


def reader_of(pack: Path, kind: Kind) -> CountingReader:
    """The storage of a device."""
    storage, file = _storage(kind), FileReader(pack)
    return CountingReader(file if storage is None else SlowReader(file, storage))


def engine_options(
    pack: Path,
    profile: DeviceProfile,
    kind: Kind,
    devices: DeviceOptions | None,
    notify: Notify,
) -> EngineOptions:
    """How an engine on such a device is opened, with one compute thread.

    Args:
        profile: of the device.
    """
    return EngineOptions(
        threads=1,
        profile=profile,
        storage=reader_of(pack, kind),
        wrap_backend=lambda backend: slowed(backend, kind.times),
        devices=devices,
        history=False,
        notify=notify,
    )


def worker_options(
    pack: Path, profile: DeviceProfile, kind: Kind, notify: Notify, *, preload_bytes: int = 0
) -> tuple[WorkerOptions, CountingReader]:
    """How a worker on such a device is opened, with one compute thread; and what it reads with."""
    reader = reader_of(pack, kind)
    options = WorkerOptions(
        threads=1,
        preload_bytes=preload_bytes,
        notify=notify,
        profile=profile,
        storage=reader,
        wrap=lambda backend: slowed(backend, kind.times),
    )
    return options, reader


def _storage(kind: Kind) -> StorageProfile | None:
    return None if kind.storage is None else parse_storage(kind.storage)
