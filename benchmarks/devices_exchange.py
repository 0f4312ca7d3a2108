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

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.common import Column, Report, Table, median, p95
from benchmarks.devices_exchange_engines import CURVE, ENGINES, OPERATIONS
from benchmarks.devices_exchange_processes import missing, started
from benchmarks.network.namespaces import Network
from benchmarks.rows import tell

SIZES = (393_216, 4_096)
"""128 tokens of 768 float32; little enough for the delay to be all."""
LIMITED = (CURVE, "reduce-scatter", SIZES[0])
LIMITS = {2: 1.25, 4: 2.3}
"""Over ideal, by the number of devices."""
MBIT, DELAY_S = 125.0, 0.5e-3
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
