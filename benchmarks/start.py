"""From exec to answer: `sti run` compared with an interpreter that imports its two libraries.

    python -m benchmarks.start models/all-MiniLM-L6-v2.sti.safetensors

A text of 16 tokens; the commands take turns. Warm: the pack is dropped from the page cache before
every start, interpreter and libraries are not. Cold: nothing is in the page cache, as after
switching on; only root may empty it, so others see this table left out. Plans and profiles are
remembered from a start that does not count, as on any machine that ran the pack before. Knows
nothing of what happens inside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from benchmarks import common
from benchmarks.common import Column, Report, Table, median, p95
from sti.calibration.sample_texts import SampleTexts
from sti.pack.pack_reader import PackReader
from sti.storage.file_reader import drop_cache

LIMIT, COLD_LIMIT = 1.3, 1.5
TOKENS = 16
PAGE_CACHE = Path("/proc/sys/vm/drop_caches")
"""Writing here empties the page cache."""
_IMPORTS = "import onnxruntime, numpy"
_COLUMNS = (Column("command"), Column("ms", ".1f"), Column("p95", ".1f"), Column("ratio", ".2f"))


def commands(pack: Path, text: str) -> dict[str, list[str]]:
    """What is started, by a name for people; the first is what the others are compared with."""
    run = [sys.executable, "-m", "sti", "run", str(pack), text]
    return {
        f'python -c "{_IMPORTS}"': [sys.executable, "-c", _IMPORTS],
        "sti run --fidelity 4": [*run, "--fidelity", "4"],
        "sti run --latency 1s": [*run, "--latency", "1s"],
    }


def measure(pack: Path, *, repeats: int) -> Report:
    """Start every command in turns, warm, and cold where that is allowed.

    Raises:
        RuntimeError: a command failed; carries what it wrote.
    """
    with PackReader.open(pack) as reader:
        (text,) = SampleTexts(reader).texts(1, TOKENS)
    started = commands(pack, text)
    cold = os.access(PAGE_CACHE, os.W_OK)
    limits = Table("Limits", common.LIMITS)
    tables = [_compared("warm", LIMIT, limits, _times(started, pack, repeats, drop_cache))]
    if cold:
        times = _times(started, pack, repeats, _drop_everything)
        tables.append(_compared("cold", COLD_LIMIT, limits, times))
    about = [*common.about_machine(), f"{pack.name}, {TOKENS} tokens; {repeats} starts of each"]
    if not cold:
        about.append("cold starts were not measured: only root may empty the page cache")
    return Report("Start", about, [*tables, limits])


def _times(
    started: dict[str, list[str]], pack: Path, repeats: int, before: Callable[[Path], None]
) -> dict[str, list[float]]:
    """Seconds that each command took, ``before`` called in front of every start."""
    times: dict[str, list[float]] = {name: [] for name in started}
    for turn in range(repeats + 1):
        for name, command in started.items():
            before(pack)
            taken = _start(command)
            if turn:  # the first start measures the machine, plans, and writes byte code
                times[name].append(taken)
    return times


def _compared(state: str, limit: float, limits: Table, times: dict[str, list[float]]) -> Table:
    """The table of what was measured in one state of the page cache; adds to the limits."""
    table = Table(f"From exec to exit, {state}", _COLUMNS)
    first, *ours = times
    for name, taken in times.items():
        ratio = median(taken) / median(times[first])
        table.rows.append((name, median(taken) * 1e3, p95(taken) * 1e3, ratio))
        if name in ours:
            limits.rows.append(common.at_most(f"{name} over the imports, {state}", ratio, limit))
    return table


def _drop_everything(_: Path) -> None:
    """Empty the page cache; pages that a running process uses stay."""
    os.sync()
    PAGE_CACHE.write_text("3")


def _start(command: Sequence[str]) -> float:
    """Seconds from starting a command to its end."""
    # Byte code is kept, as wherever nobody forbids it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    taken = perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("start", __doc__, "models/all-MiniLM-L6-v2.sti.safetensors")
    return common.repeat_on_pack(parser, arguments, measure, repeated="starts", default=15)


if __name__ == "__main__":
    sys.exit(main())
