"""The processes of ``benchmarks.devices_exchange``: started on all devices, told what to do.

In: an emulated network, the name of an engine. Out: seconds of what its devices do together. MPI's
are started by its own command. Knows nothing of what is compared.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import IO, Any

from benchmarks import common
from benchmarks.devices_exchange_child import Spec
from benchmarks.devices_exchange_engines import ENGINES, MPI_ENGINES, NEEDS
from benchmarks.network.namespaces import Network

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
"""Beside the interpreter, where pip puts it, or anywhere; None where it is missing."""
FIRST_PORT = 7000
"""Of the first engine, on all devices."""
_AHEAD_S = 4e-3
"""From telling devices to when they begin."""
_PATIENCE_S = 60.0
_LOOK_S = 0.1
_MOST_SAID = 2000


class Devices:
    """The processes of one engine, ready."""

    def __init__(self, engine: str, lines: dict[int, IO[str]], errors: Path) -> None:
        self.engine, self._lines, self._errors = engine, lines, errors

    def seconds(self, operation: str, size_bytes: int) -> float:
        """From when the last device begins to when the last one ends.

        Raises:
            RuntimeError: a device failed, or an answer is wrong.
        """
        start = time.monotonic() + _AHEAD_S
        what = f"{self.engine}, {operation} of {size_bytes} bytes"
        try:
            for lines in self._lines.values():
                print(json.dumps([operation, size_bytes, start]), file=lines, flush=True)
            answers = [json.loads(lines.readline()) for lines in self._lines.values()]
        except (OSError, ValueError) as error:
            raise RuntimeError(f"{what}: a device failed: {_written(self._errors)}") from error
        if not all(right for *_, right in answers):
            raise RuntimeError(f"{what}: wrong answer")
        return float(max(end for _, end, _ in answers) - max(began for began, *_ in answers))


@contextmanager
def started(network: Network, engine: str, folder: Path, keys: Path) -> Iterator[Devices]:
    """The devices of an engine, connected.

    Raises:
        RuntimeError: one of them did not start; carries what it wrote.
    """
    place = folder / "control"
    errors = folder / "errors"
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(place))
        stack.callback(place.unlink)
        server.listen()
        server.settimeout(_LOOK_S)
        said = stack.enter_context(errors.open("w", encoding="utf-8"))
        addresses = tuple(map(network.address, network.devices))
        processes: list[Popen[Any]] = []
        child = [sys.executable, "-m", "benchmarks.devices_exchange_child"]
        for rank in (None,) if engine in MPI_ENGINES else network.devices:
            port = FIRST_PORT + list(ENGINES).index(engine)
            spec = Spec(str(place), engine, rank, addresses, port, str(keys))
            command = [*child, spec.to_json()]
            if rank is None:
                command = [*_mpiexec(network, folder), *command]
            processes.append(
                network.run(rank or 0, command, stdout=said, stderr=said, cwd=common.ROOT)
            )
            stack.callback(processes[-1].wait, _PATIENCE_S)
        lines: dict[int, IO[str]] = {}
        try:
            for _ in network.devices:
                connection = stack.enter_context(_accepted(server, processes))
                connection.settimeout(_PATIENCE_S)
                file = stack.enter_context(connection.makefile("rw", encoding="utf-8"))
                _, rank = json.loads(file.readline())
                lines[rank] = file
        except (OSError, ValueError) as error:
            raise RuntimeError(f"{engine}: a device did not start: {_written(errors)}") from error
        yield Devices(engine, lines, errors)


def _written(errors: Path) -> str:
    """The end of what devices wrote."""
    return errors.read_text(encoding="utf-8", errors="replace").strip()[-_MOST_SAID:]


def _accepted(server: socket.socket, processes: Sequence[Popen[Any]]) -> socket.socket:
    """The connection of a device.

    Raises:
        OSError: there is none in time, or a process ended.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return server.accept()[0]
        except TimeoutError:
            if time.monotonic() > end or any(item.poll() is not None for item in processes):
                raise


def _mpiexec(network: Network, folder: Path) -> list[str]:
    """Open MPI's command that starts a process on each device; a script takes the place of ssh."""
    agent = folder / "agent"
    cases = [
        f'*{network.address(device)}) exec {" ".join(network.command(device, ["sh", "-c"]))} "$*";;'
        for device in network.devices
    ]
    script = ["#!/bin/sh", "host=$1", "shift", "case $host in", *cases, "esac"]
    agent.write_text("\n".join(script) + "\n", encoding="utf-8")
    agent.chmod(0o700)
    subnet = network.address(0).rpartition(".")[0] + ".0/24"
    hosts = ",".join(f"{network.address(device)}:1" for device in network.devices)
    return [
        *(
            MPIEXEC or "mpiexec",
            "--allow-run-as-root",
            "--host",
            hosts,
            "-n",
            str(len(network.devices)),
        ),
        *("--map-by", "node", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"),
        *("--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "plm_ssh_no_tree_spawn", "1"),
        *("--prtemca", "prte_if_include", subnet, "--mca", "btl_tcp_if_include", subnet),
        # All on one machine: without this, memory would be shared instead of sent.
        *("--mca", "pml", "ob1", "--mca", "btl", "self,tcp", "--mca", "coll", "^han"),
    ]


def missing(engine: str) -> str:
    """Why an engine cannot be measured here; empty where it can."""
    if importlib.util.find_spec(NEEDS[engine]) is None:
        return f"{engine}: the Python package {NEEDS[engine]} is missing"
    if engine in MPI_ENGINES and MPIEXEC is None:
        return f"{engine}: mpiexec is missing"
    return ""
