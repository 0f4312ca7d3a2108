"""The process of a device in ``benchmarks.devices_exchange``: does collectives when it is told to.

    python -m benchmarks.devices_exchange_child SPEC

In: a spec as JSON (``Spec``); then, on a Unix socket, which all network namespaces of a machine
share, commands of a line each: an operation, bytes, and when to begin. Out: a line for each, when
it began and ended. Times are of the machine's monotonic clock. Answers are checked against sums
made here.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.devices_exchange_engines import ENGINES, Place
from sti.arrays import Float32Array

RANK_OF_MPI = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""Where MPI libraries say which process this is."""


class Spec(NamedTuple):
    """What a child is told at its start. JSON-able."""

    control: str
    """Path of the socket."""
    engine: str
    rank: int | None
    """None: as MPI says."""
    addresses: tuple[str, ...]
    port: int
    keys: str

    def to_json(self) -> str:
        """The spec as one line."""
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """What ``to_json`` wrote."""
        control, engine, rank, addresses, *others = json.loads(text)
        return cls(control, engine, rank, tuple(addresses), *others)


def whole(rank: int, size_bytes: int) -> Float32Array:
    """What a device has to give: small integers, whose sums are exact in any order."""
    return (np.arange(size_bytes // 4) % 251 + rank).astype(np.float32)


def expected(operation: str, rank: int, devices: int, size_bytes: int) -> Float32Array:
    """What an operation gives."""
    every = [whole(other, size_bytes) for other in range(devices)]
    count = size_bytes // 4 // devices
    if operation == "all-gather":
        return np.concatenate([item[:count] for item in every])
    total: Float32Array = np.sum(every, axis=0, dtype=np.float32)
    return total[rank * count : (rank + 1) * count] if operation == "reduce-scatter" else total


def main(arguments: list[str]) -> int:
    """Serve until the socket is closed."""
    spec = Spec.from_json(arguments[0])
    rank = spec.rank
    if rank is None:
        rank = next(int(os.environ[name]) for name in RANK_OF_MPI if name in os.environ)
    devices = len(spec.addresses)
    engine = ENGINES[spec.engine](Place(rank, spec.addresses, spec.port, Path(spec.keys)))
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(spec.control)
        with control.makefile("rw", encoding="utf-8") as lines:
            print(json.dumps([spec.engine, rank]), file=lines, flush=True)
            for line in lines:
                operation, size_bytes, start = json.loads(line)
                values = whole(rank, size_bytes)
                if operation == "all-gather":
                    values = values[: values.size // devices]
                time.sleep(max(0.0, start - time.monotonic()))
                began = time.monotonic()
                found = engine.do(operation, values)
                ended = time.monotonic()
                right = np.array_equal(found, expected(operation, rank, devices, size_bytes))
                print(json.dumps([began, ended, right]), file=lines, flush=True)
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
