"""What carries sums between devices, one engine each, as ``benchmarks.devices_exchange`` times it.

In: who this device is among the others, and where they are. Out: the three collectives. Runs in the
process of a device; libraries are imported by the engine that takes them. Knows nothing of time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sti.arrays import Float32Array
from sti.exchange import collectives
from sti.exchange.interface import FOUND, Exchange

CURVE = "zeromq-curve"
OPERATIONS = ("all-gather", "reduce-scatter", "all-reduce")
NETWORK_DEVICE = "net0"
_PATIENCE_S = 60.0


class Place(NamedTuple):
    """A device among the others."""

    rank: int
    addresses: tuple[str, ...]
    port: int
    """Of the engine, on all devices."""
    keys: Path
    """Folder with a folder of keys for each device, by its name."""

    @property
    def names(self) -> tuple[str, ...]:
        """All devices', in order."""
        return tuple(f"device{rank}" for rank in range(len(self.addresses)))


class Engine(Protocol):
    """Collectives of all devices, each called by all of them at about the same time."""

    def do(self, operation: str, values: Float32Array) -> Float32Array:
        """One of ``OPERATIONS``; evenly divided, in the order of ranks.

        Args:
            values: all-gather: this device's part; else what is summed.

        Returns:
            All parts; this device's part of the sum; the sum.
        """
        ...

    def close(self) -> None:
        """Leave."""
        ...


class _Sti:
    """Collectives of ``sti.exchange``."""

    def __init__(self, exchange: Exchange, names: tuple[str, ...]) -> None:
        self._exchange, self._names = exchange, names

    def do(self, operation: str, values: Float32Array) -> Float32Array:
        where, names = self._exchange, self._names
        given: dict[str, Any] = {"key": "sum", "deadline": time.monotonic() + _PATIENCE_S}
        if operation == "all-gather":
            return collectives.all_gather(where, names, values, **given)
        if operation == "reduce-scatter":
            shares = [len(values) // len(names)] * len(names)
            return collectives.reduce_scatter(where, names, values, shares, **given)
        return collectives.all_reduce(where, names, values, **given)

    def close(self) -> None:
        self._exchange.close()


def _zeromq(place: Place, *, curve: bool) -> Engine:
    from sti.exchange.zeromq import addresses
    from sti.exchange.zeromq.exchange import ZmqExchange
    from sti.exchange.zeromq.keys import Keys

    name = place.names[place.rank]
    listed = [f"{address}:{place.port}" for address in place.addresses]
    if not curve:
        # Beyond one machine the engine refuses to go without; here nothing leaves it.
        setattr(addresses.Address, "is_local", property(lambda _: True))  # noqa: B010
    exchange = ZmqExchange(
        name,
        listen=listed[place.rank],
        peers=dict(zip(place.names[: place.rank], listed, strict=False)),
        keys=Keys.load(place.keys / name) if curve else None,
        notify=print,
    )
    _await_found(exchange, set(place.names) - {name})
    return _Sti(exchange, place.names)


def _await_found(exchange: Exchange, others: set[str]) -> None:
    """Wait until all others are there."""
    deadline = time.monotonic() + _PATIENCE_S
    while others:
        others.discard(exchange.receive(key=FOUND, deadline=deadline).peer)


def _mpi(place: Place) -> Engine:
    from sti.exchange.mpi import MpiExchange, name_of

    return _Sti(MpiExchange(), tuple(map(name_of, range(len(place.addresses)))))


class _MpiItself:
    """The collectives that the MPI library has."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._world = MPI.COMM_WORLD

    def do(self, operation: str, values: Float32Array) -> Float32Array:
        size = self._world.size
        if operation == "all-gather":
            found = np.empty(values.size * size, values.dtype)
            self._world.Allgather(values, found)
        elif operation == "reduce-scatter":
            found = np.empty(values.size // size, values.dtype)
            self._world.Reduce_scatter_block(values, found)
        else:
            found = np.empty_like(values)
            self._world.Allreduce(values, found)
        return found

    def close(self) -> None:
        """Left to the end of the process."""


class _Gloo:
    """PyTorch's collectives for processors."""

    def __init__(self, place: Place) -> None:
        import torch
        from torch import distributed

        os.environ["GLOO_SOCKET_IFNAME"] = NETWORK_DEVICE
        torch.set_num_threads(1)
        self._torch, self._distributed = torch, distributed
        self._size = len(place.addresses)
        distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{place.addresses[0]}:{place.port}",
            rank=place.rank,
            world_size=self._size,
        )

    def do(self, operation: str, values: Float32Array) -> Float32Array:
        given = self._torch.from_numpy(values)
        if operation == "all-gather":
            found = self._torch.empty(values.size * self._size)
            self._distributed.all_gather_into_tensor(found, given)
        elif operation == "reduce-scatter":
            found = self._torch.empty(values.size // self._size)
            self._distributed.reduce_scatter_tensor(found, given)
        else:
            found = given.clone()
            self._distributed.all_reduce(found)
        done: Float32Array = found.numpy()
        return done

    def close(self) -> None:
        with suppress(RuntimeError):  # of those who leave last
            self._distributed.destroy_process_group()


ENGINES: dict[str, Callable[[Place], Engine]] = {
    CURVE: lambda place: _zeromq(place, curve=True),
    "zeromq-plain": lambda place: _zeromq(place, curve=False),
    "mpi": _mpi,
    "mpi-own": lambda _: _MpiItself(),
    "gloo": _Gloo,
}
"""By name: our collectives over ZeroMQ with and without encryption, and over MPI; then those of an
MPI library and of PyTorch."""
MPI_ENGINES = ("mpi", "mpi-own")
"""Those that an MPI library starts."""
NEEDS = {
    CURVE: "zmq",
    "zeromq-plain": "zmq",
    "mpi": "mpi4py",
    "mpi-own": "mpi4py",
    "gloo": "torch",
}
"""The library of each."""
