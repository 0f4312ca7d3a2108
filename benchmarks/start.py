"""From exec to answer: `sti run` compared with an interpreter that imports its two libraries.

    python -m benchmarks.start models/all-MiniLM-L6-v2.sti.safetensors

A text of 16 tokens, the pack dropped from the page cache before every start, interpreter and
libraries warm; the commands take turns. Plans and profiles are remembered from a start that does
not count, as on any machine that ran the pack before. Knows nothing of what happens inside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from benchmarks import common
from benchmarks.common import Column, Report, Table, median, p95
from sti.calibration.sample_texts import SampleTexts
from sti.pack.pack_reader import PackReader
from sti.storage.file_reader import drop_cache

LIMIT = 1.3
TOKENS = 16
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
    """Start every command in turns.

    Raises:
        RuntimeError: a command failed; carries what it wrote.
    """
    with PackReader.open(pack) as reader:
        (text,) = SampleTexts(reader).texts(1, TOKENS)
    started = commands(pack, text)
    times: dict[str, list[float]] = {name: [] for name in started}
    for turn in range(repeats + 1):
        for name, command in started.items():
            taken = _start(command, pack)
            if turn:  # the first start measures the machine, plans, and writes byte code
                times[name].append(taken)
    table, limits = Table("From exec to exit", _COLUMNS), Table("Limits", common.LIMITS)
    first, *ours = times
    for name, taken in times.items():
        ratio = median(taken) / median(times[first])
        table.rows.append((name, median(taken) * 1e3, p95(taken) * 1e3, ratio))
        if name in ours:
            limits.rows.append(common.at_most(f"{name} over the imports", ratio, LIMIT))
    about = [*common.about_machine(), f"{pack.name}, {TOKENS} tokens; {repeats} starts of each"]
    return Report("Start", about, [table, limits])


def _start(command: Sequence[str], pack: Path) -> float:
    """Seconds from starting a command to its end."""
    drop_cache(pack)
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
