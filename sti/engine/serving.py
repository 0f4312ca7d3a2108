"""A pack, or a part of one, open and ready to serve: a worker and all that it owns.

In: a path, what the device may take. Out: a ``Worker`` to be served with. The device is measured
first where it was not before, as controllers plan with its profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from sti.backend.interface import Backend
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import best_threads, load_or_measure
from sti.device import host
from sti.device.profile import DeviceProfile
from sti.devices.facts import Facts, own_facts
from sti.devices.neighbours import Connect
from sti.devices.worker import Worker
from sti.errors import InputError
from sti.exchange.interface import Exchange
from sti.notices import Notify, log_notice
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.storage.reader import Reader
from sti.storage.watched_reader import READ_TIMEOUT_S
from sti.units import format_size

_ROOM_SHARE = 4
"""What part of the available memory weights may take, unless the caller says otherwise."""
_LEAST_ROOM = 1 << 20
_UNKNOWN_ROOM = 1 << 28
"""Where the system does not say how much memory there is."""


def _as_it_is(backend: Backend) -> Backend:
    return backend


class WorkerOptions(NamedTuple):
    """What a worker may take of its device."""

    threads: int | None = None
    """That compute; None: what suits the device."""
    memory_bytes: int | None = None
    """For weights that are held and read ahead; None: a quarter of what is available."""
    preload_bytes: int = 0
    """Of that, what is held between runs."""
    read_timeout_s: float = READ_TIMEOUT_S
    notify: Notify = log_notice
    profile: DeviceProfile | None = None
    """None: as measured."""
    storage: Reader | None = None
    """What weights are read from, closed with the worker; None: the pack's own file."""
    wrap: Callable[[Backend], Backend] = _as_it_is
    """Stands in for slower devices in benchmarks."""


class Serving(NamedTuple):
    """A worker, and what it says of its device."""

    worker: Worker
    facts: Facts


@contextmanager
def open_worker(
    pack: Path, exchange: Exchange, connect: Connect, options: WorkerOptions
) -> Iterator[Serving]:
    """Open a pack to serve it.

    Args:
        exchange: reaches the others; stays the caller's.
        connect: makes the peer of a name reachable at an address.

    Raises:
        PackError: it is no pack.
        InputError: options that cannot be used.
    """
    host.check_threads(options.threads)
    room_bytes = _room(options)
    with ExitStack() as closed:
        reader = closed.enter_context(PackReader.open(pack, timeout_s=options.read_timeout_s))
        threads = options.threads or best_threads(reader)
        own = OrtBackend(reader, lanes=threads)
        reader.check_graphs(own.forms, masked=False)
        profile = options.profile or load_or_measure(
            reader, own, threads=threads, notify=options.notify
        )
        backend = options.wrap(own)
        runner = Runner(reader, backend, storage=options.storage, timeout_s=options.read_timeout_s)
        closed.callback(runner.close)
        facts = own_facts(
            reader,
            profile,
            threads=threads,
            room_bytes=room_bytes,
            preload_bytes=options.preload_bytes,
        )
        worker = Worker(
            exchange,
            reader,
            runner,
            backend,
            facts,
            connect=connect,
            notify=options.notify,
        )
        yield Serving(worker, facts)


def _room(options: WorkerOptions) -> int:
    """Bytes that weights may take.

    Raises:
        InputError: less than a worker can do with, or than is to be held.
    """
    if options.memory_bytes is None:
        available = host.memory().available_bytes
        room = _UNKNOWN_ROOM if available is None else available // _ROOM_SHARE
        room = max(room, options.preload_bytes + _LEAST_ROOM)
    else:
        room = options.memory_bytes
    least = options.preload_bytes + _LEAST_ROOM
    if room < least:
        raise InputError(
            f"memory {format_size(room)} (--memory) is too little for a preload of "
            f"{format_size(options.preload_bytes)} and {format_size(_LEAST_ROOM)} to read into; "
            f"ask for at least {format_size(least)}"
        )
    return room
