"""How long devices take to add up and hand round hidden states, by what carries them.

    python -m benchmarks.devices_exchange [--devices 2,4] [--json]

Devices on an emulated network (``benchmarks.network``), a process each, do collectives of 128
tokens' hidden states of BERT-base, and of a few. Engines take turns. All devices begin at about the
same time; what counts is from the last beginning to the last end. Ideal: the bytes that each device
must send over the rate of its link, and the delay, without framing; for an all-reduce in one round
or two, whichever is faster. Libraries that are missing are said, and their engines left out. Needs
root (``benchmarks.network`` says what else).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from subprocess import Popen
from typing import IO, Any, NamedTuple

from benchmarks import common
from benchmarks.common import Column, Report, Table, median, p95
from benchmarks.devices_exchange_child import Spec
from benchmarks.devices_exchange_engines import (
    CURVE,
    ENGINES,
    MPI_ENGINES,
    NEEDS,
    OPERATIONS,
)
from benchmarks.network.namespaces import Network
from benchmarks.rows import tell

SIZES = (393_216, 4_096)
"""128 tokens of 768 float32; little enough for the delay to be all."""
LIMITED = (CURVE, "reduce-scatter", SIZES[0])
LIMITS = {2: 1.25, 4: 2.3}
"""Over ideal, by the number of devices."""
MBIT, DELAY_S = 125.0, 0.5e-3
FIRST_PORT = 7000
"""Of the first engine, on all devices."""
_AHEAD_S = 4e-3
"""From telling devices to when they begin."""
_PATIENCE_S = 60.0
_LOOK_S = 0.1
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
"""Beside the interpreter, where pip puts it, or anywhere; None where it is missing."""
_MOST_SAID = 2000
_IN_A_ROW = 5


class Setting(NamedTuple):
    """What is measured, how often."""

    mbit: float
    delay_s: float
    engines: tuple[str, ...]
    rounds: int


class Figure(NamedTuple):
    """An operation of an engine."""

    devices: int
    engine: str
    operation: str
    size_bytes: int
    seconds: tuple[float, ...]
    ideal_s: float


def ideal_s(operation: str, devices: int, size_bytes: int, setting: Setting) -> float:
    """Seconds that the bytes alone take; an all-reduce scatters sums, then gathers them, or sends
    everything to everybody.
    """

    def round_s(sent: float) -> float:
        return sent * 8 / (setting.mbit * 1e6) + setting.delay_s

    divided_s = round_s(size_bytes * (devices - 1) / devices)
    if operation == "all-reduce":
        return min(2 * divided_s, round_s(size_bytes * (devices - 1)))
    return divided_s


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


def measure_devices(count: int, setting: Setting) -> Iterator[Figure]:
    """All engines in turns on a network of so many devices."""
    cases = list(product(OPERATIONS, SIZES))
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = work / "keys"
        if CURVE in setting.engines:
            make_all_keys(keys, count)
        network = stack.enter_context(Network(count, mbit=setting.mbit, delay_s=setting.delay_s))
        running = []
        for number, engine in enumerate(setting.engines):
            tell(f"{count} devices: starting {engine}")
            folder = work / str(number)
            folder.mkdir()
            running.append(stack.enter_context(started(network, engine, folder, keys)))
        seconds: dict[tuple[str, str, int], list[float]] = {}
        for turn in range(setting.rounds):
            tell(f"{count} devices: round {turn + 1} of {setting.rounds}")
            for devices in running:
                for operation, size in cases:
                    devices.seconds(operation, size)  # after a wait
                    found = [devices.seconds(operation, size) for _ in range(_IN_A_ROW)]
                    seconds.setdefault((devices.engine, operation, size), []).extend(found)
    for (engine, operation, size), taken in seconds.items():
        ideal = ideal_s(operation, count, size, setting)
        yield Figure(count, engine, operation, size, tuple(taken), ideal)


def make_all_keys(folder: Path, count: int) -> None:
    """A folder of keys for each device."""
    from sti.exchange.zeromq.keys import make_keys

    make_keys(folder, [f"device{rank}" for rank in range(count)])


def table(count: int, figures: Sequence[Figure]) -> Table:
    """All engines, operation by operation."""
    columns = (
        *(Column("operation"), Column("bytes", ",d"), Column("engine")),
        *(Column("median ms", ".1f"), Column("p95 ms", ".1f"), Column("ideal ms", ".1f")),
        Column("median / ideal", ".2f"),
    )
    found = Table(f"{count} devices", columns)
    order = {name: number for number, name in enumerate(OPERATIONS)}
    for item in sorted(figures, key=lambda item: (order[item.operation], -item.size_bytes)):
        middle = median(item.seconds)
        figures_ms = (middle * 1e3, p95(item.seconds) * 1e3, item.ideal_s * 1e3)
        ratio = middle / item.ideal_s
        found.rows.append((item.operation, item.size_bytes, item.engine, *figures_ms, ratio))
    return found


def measure(counts: Sequence[int], setting: Setting) -> Report:
    """Every number of devices."""
    left_out = [why for engine in setting.engines if (why := missing(engine))]
    setting = setting._replace(
        engines=tuple(engine for engine in setting.engines if not missing(engine))
    )
    limits, tables = Table("Limits", common.LIMITS), []
    about = [
        *common.about_machine(),
        f"{setting.mbit:g} Mbit/s in each direction of each device, {setting.delay_s * 1e3:g} ms "
        f"one way; {setting.rounds * _IN_A_ROW} of each operation",
    ]
    for count in counts:
        figures = list(measure_devices(count, setting))
        tables.append(table(count, figures))
        for item in figures:
            limited = (item.engine, item.operation, item.size_bytes) == LIMITED
            if limited and count in LIMITS:
                name = f"{item.operation} / ideal, {item.engine}, {count} devices"
                ratio = median(item.seconds) / item.ideal_s
                limits.rows.append(common.at_most(name, ratio, LIMITS[count]))
    return Report("Devices: exchange", about, [limits, *tables], left_out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("devices_exchange", __doc__, "--devices 2,4 --json")
    parser.add_argument("--json", action="store_const", dest="output", const="json")

    def counts(text: str) -> tuple[int, ...]:
        return tuple(map(common.positive, text.split(",")))

    parser.add_argument("--devices", type=counts, default=(2, 4), help="how many; default: 2,4")
    parser.add_argument("--mbit", type=float, default=MBIT, help=f"default: {MBIT:g}")
    parser.add_argument(
        "--delay", type=float, default=DELAY_S, help=f"one way, seconds; default: {DELAY_S:g}"
    )
    parser.add_argument("--rounds", type=common.positive, default=8, help="default: 8")
    common.add_rows(parser, ENGINES)
    options = parser.parse_args(arguments)
    setting = Setting(options.mbit, options.delay, options.rows, options.rounds)
    return common.print_report(parser, options, lambda: measure(options.devices, setting))


if __name__ == "__main__":
    sys.exit(main())
