"""How long it takes to open a pack, in a process that has everything imported.

    python -m benchmarks.opening models/all-MiniLM-L6-v2.sti.safetensors

The engine: header, residents, sessions, tokenizer and a plan of one fidelity. The pack alone:
header, residents and index. The same of a pack as deep as BERT-large, but narrow. Everything is in
the page cache. Knows nothing of what opening does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import sti
from benchmarks import base_model, common
from benchmarks.common import Column, Report, Table, median, p95
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.pack.pack_reader import PackReader

DEEP = base_model.Shape(layers=24, hidden=64, heads=16, inner=256, vocabulary=30522, positions=512)
"""As many layers, slices and words as BERT-large; narrow, as widths are not in a header."""
DEEP_GROUP_BYTES = 256
"""Gives every block of it several groups: 24 layers of 2 times 4."""
MOST_MS, MOST_DEEP_MS = 15.0, 25.0
_COLUMNS = (Column("what"), Column("ms", ".1f"), Column("p95", ".1f"), Column("least", ".1f"))


def measure(pack: Path, *, repeats: int) -> Report:
    """Open the pack and a deep one, again and again."""
    table, limits = Table("Opening", _COLUMNS), Table("Limits", common.LIMITS)

    def engine() -> None:
        with sti.Engine.open(pack, fidelity=4, threads=1):
            pass

    def reader(path: Path) -> None:
        PackReader.open(path).close()

    def timed(name: str, work: Callable[[], None]) -> float:
        work()
        times = []
        for _ in range(repeats):
            start = perf_counter()
            work()
            times.append((perf_counter() - start) * 1e3)
        table.rows.append((name, median(times), p95(times), min(times)))
        return median(times)

    with tempfile.TemporaryDirectory() as place:
        deep = Path(place, "deep.sti.safetensors")
        checkpoint = Path(place, "checkpoint")
        base_model.write_checkpoint(checkpoint, DEEP, base_model.Planting(), seed=0)
        build(checkpoint, deep, BuildOptions(group_bytes=DEEP_GROUP_BYTES), progress=False)
        with PackReader.open(deep) as opened:
            groups = len(opened.manifest.groups)
        taken = timed(f"engine, {pack.name.partition('.')[0]}", engine)
        limits.rows.append(common.at_most("engine, ms", taken, MOST_MS))
        timed("pack alone", lambda: reader(pack))
        name = f"pack alone, {DEEP.layers} layers of {groups // DEEP.layers} slice groups"
        taken = timed(name, lambda: reader(deep))
        limits.rows.append(common.at_most("header of 24 layers, ms", taken, MOST_DEEP_MS))
    return Report("Opening", [*common.about_machine(), f"{repeats} times each"], [table, limits])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("opening", __doc__, "models/all-MiniLM-L6-v2.sti.safetensors")
    return common.repeat_on_pack(parser, arguments, measure, repeated="openings", default=40)


if __name__ == "__main__":
    sys.exit(main())
