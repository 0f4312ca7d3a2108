"""What it costs to check everything that a run reads.

    python -m benchmarks.checking models/*.sti.safetensors

Runs with checks and without take turns in one process, on two engines over the same pack, each run
read from storage; once with the decoder that this machine would use and once with the portable one.
The cost is the median over pairs of runs of the one with checks over the one without. Knows nothing
of how checks are made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import sti
from benchmarks import common
from benchmarks.common import Column, Report, Table
from sti.codec.decoder import PORTABLE
from sti.codec.decoders import VARIABLE, kernel_path
from sti.device.identity import instruction_set
from sti.engine.options import EngineOptions
from sti.pack.pack_reader import PackReader

TOKENS = (128, 16)
FIDELITY = 4
WARM_UP = 3
MOST_PERCENT = {False: 3.0, True: 5.0}
"""By whether the processor has int8 products of its own: they leave less time to check in."""
MOST_PERCENT_PORTABLE = 10.0
_COLUMNS = (
    Column("pack"),
    Column("decoder"),
    Column("tokens"),
    Column("ms", ".1f"),
    Column("ms, unchecked", ".1f"),
    Column("cost, %", ".1f"),
    Column("quartiles of the cost, %"),
)


def measure(packs: Sequence[Path], *, pairs: int) -> Report:
    """Time every pack at every length with every decoder."""
    table, limits = Table("Cost of checking", _COLUMNS), Table("Limits", common.LIMITS)
    for path in dict.fromkeys((kernel_path(), PORTABLE)):
        for pack in packs:
            for tokens in TOKENS:
                checked, unchecked = _times(pack, tokens, path, pairs)
                costs = [100 * (a / b - 1) for a, b in zip(checked, unchecked, strict=True)]
                low, middle, high = quantiles(costs, n=4)
                name = pack.name.partition(".")[0]
                times = (median(checked) * 1e3, median(unchecked) * 1e3)
                spread = f"{low:.1f} to {high:.1f}"
                table.rows.append((name, path, str(tokens), *times, middle, spread))
                native = MOST_PERCENT[_int8_products()]
                limit = MOST_PERCENT_PORTABLE if path == PORTABLE else native
                label = f"{name}, {path}, {tokens} tokens, %"
                limits.rows.append(common.at_most(label, middle, limit))
    about = [
        *common.about_machine(),
        f"{pairs} pairs of runs, every shard at {FIDELITY} bits, nothing preloaded",
    ]
    return Report("What checking costs", about, [table, limits])


def _int8_products() -> bool:
    return any(name in instruction_set() for name in ("vnni", "amx", "dotprod", "i8mm"))


def _times(pack: Path, tokens: int, path: str, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of runs with checks and without."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = path
    engines = []
    try:
        for check in (True, False):
            target, options = sti.TargetSpec(fidelity=FIDELITY), EngineOptions(check=check)
            engines.append(sti.Engine(PackReader.open(pack), target, options))
        text, _ = common.text_of(engines[0].reader, tokens)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(pairs + WARM_UP):
            for number in (0, 1) if turn % 2 else (1, 0):
                start = perf_counter()
                engines[number].run([text])
                if turn >= WARM_UP:
                    times[number].append(perf_counter() - start)
        return times
    finally:
        for engine in engines:
            engine.close()
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("checking", __doc__, "models/all-MiniLM-L6-v2.sti.safetensors")
    parser.add_argument("packs", nargs="+", type=Path, metavar="PACK")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of runs; default: 60")
    options = parser.parse_args(arguments)
    if options.pairs < 2:
        parser.error("--pairs must be at least 2")
    return common.print_report(parser, options, lambda: measure(options.packs, pairs=options.pairs))


if __name__ == "__main__":
    sys.exit(main())
