"""Is a budget of memory kept, and what does it buy?

    python -m benchmarks.memory PACK [PACK ...] [--rows budget,least] [--runs 1000] [--json FILE]

Growth is anonymous memory of a process (resident and backed by no file) since its imports, sampled
from outside every half millisecond. Rows:

- budget: random packs, budgets, targets and texts, each in a fresh process: growth over the budget
- least: the least budget offered, over what is then taken
- whole: with room for the whole as a graph, beside ONNX Runtime's int8 model (``--against``), warm
- latency: 8 budgets from the least to the whole
- placement: leading bytes held or whole groups spread over the run, at storage of 100 MB/s
- release: how soon and how much ``Engine.release`` gives back

A pack of the shape of BERT-base, and its int8 model (which needs ``onnx``):

    python -m benchmarks.base_model CHECKPOINT
    sti-shard build CHECKPOINT -o base.sti.safetensors
    python -m benchmarks.ort_models CHECKPOINT MODELS

Progress and a line for each figure go to standard error, the report to standard output. Ctrl-C ends
the row that is being measured; what is known until then is reported. What engines learn and build
meanwhile is kept in a copy of the cache, and forgotten.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    common,
    memory_budgets,
    memory_latency,
    memory_least,
    memory_placement,
    memory_release,
    memory_whole,
)
from benchmarks.common import Report
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import Setting, pack_of, threads_of_machine
from benchmarks.rows import Row, measure_rows, tell
from benchmarks.targets_cache import own_cache
from sti.calibration.cache import cache_directory

ROWS: dict[str, Row[Setting]] = {
    "budget": Row(memory_budgets.measure, memory_budgets.summarize),
    "least": Row(memory_least.measure, memory_least.summarize),
    "whole": Row(memory_whole.measure, memory_whole.summarize),
    "latency": Row(memory_latency.measure, memory_latency.summarize),
    "placement": Row(memory_placement.measure, memory_placement.summarize),
    "release": Row(memory_release.measure, memory_release.summarize),
}
"""In the order in which they are run."""


def measure(setting: Setting, rows: Sequence[str], place: Path | None) -> Report:
    """Row after row; each is saved as soon as it has ended, and one that fails is told."""
    about = common.about_machine()
    about.append(f"{setting.runs} processes of the row budget, seed {setting.seed}")
    report = Report("Memory", about)
    if _calibrate(setting):
        report.notes.append(f"not measured: {', '.join(rows)}")
        return report
    with own_cache(cache_directory()):
        chosen = {name: row for name, row in ROWS.items() if name in rows}
        for _ in measure_rows(report, chosen, setting, place):
            pass
    return report


def _calibrate(setting: Setting) -> bool:
    """Measure the machine now instead of in a run that counts; whether that was ended early."""
    try:
        for pack in setting.packs:
            for threads in threads_of_machine():
                tell(f"opening {pack.name}, {threads} threads")
                with MeasuredProcess([]) as process:
                    given = {"latency": "100s"}
                    reply = process.ask("open", pack=str(pack.path), target=given, threads=threads)
                if "open_s" not in reply:
                    raise RuntimeError(f"{pack.path}: {reply.get('said') or reply.get('error')}")
    except KeyboardInterrupt:
        return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    example = "models/all-MiniLM-L6-v2.sti.safetensors --rows budget,least --json memory.json"
    parser = common.parser("memory", __doc__, example)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK")
    common.add_rows(parser, ROWS)
    parser.add_argument(
        "--against",
        type=_pair,
        nargs="+",
        action="extend",
        default=[],
        metavar="PACK=INT8.onnx",
        help="models for the row whole",
    )
    parser.add_argument(
        "--runs", type=common.positive, default=1000, help="of budget; default: 1000"
    )
    parser.add_argument(
        "--turns",
        type=common.positive,
        default=20,
        help="of whole, latency, placement; default: 20",
    )
    parser.add_argument(
        "--tokens", type=_lengths, help="instead of the rows' own, such as 16,128; not for budget"
    )
    parser.add_argument(
        "--jobs", type=common.positive, default=1, help="processes of budget at a time; default: 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with what each row measured")
    options = parser.parse_args(arguments)

    def measured() -> Report:
        setting = Setting(
            packs=tuple(pack_of(path.resolve()) for path in options.packs),
            against=dict(options.against),
            runs=options.runs,
            turns=options.turns,
            tokens=options.tokens,
            jobs=options.jobs,
            seed=options.seed,
        )
        names = [pack.name for pack in setting.packs]
        if len(set(names)) < len(names):
            raise ValueError(f"packs need different names: {', '.join(names)}")
        strangers = set(setting.against) - {pack.path for pack in setting.packs}
        if strangers:
            raise ValueError(f"--against names no pack that is measured: {strangers.pop()}")
        return measure(setting, options.rows, options.json)

    return common.print_report(parser, options, measured)


def _pair(text: str) -> tuple[Path, Path]:
    pack, equals, model = text.partition("=")
    if not equals or not Path(model).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not PACK=INT8.onnx with a file")
    return Path(pack).resolve(), Path(model).resolve()


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(common.positive(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
