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
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import (
    common,
    memory_budgets,
    memory_latency,
    memory_least,
    memory_placement,
    memory_release,
    memory_whole,
)
from benchmarks.common import Report, Table
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import Setting, Summary, pack_of, tell, threads_of_machine
from benchmarks.targets_cache import own_cache
from sti.calibration.cache import cache_directory
from sti.errors import StiError
from sti.storage.atomic_file import write_file


class Row(NamedTuple):
    """A part of the benchmark that can be chosen."""

    measure: Callable[[Setting], Iterator[Any]]
    """Gives what it found bit by bit: ``NamedTuple``s."""
    summarize: Callable[[Sequence[Any]], Summary]


ROWS: dict[str, Row] = {
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
    limits = Table("Memory", common.LIMITS)
    report = Report("Memory", about, [limits])
    records: dict[str, list[Any]] = {}
    stopped = _calibrate(setting)
    with own_cache(cache_directory()):
        for name, row in ROWS.items():
            if name not in rows or stopped:
                continue
            tell(f"{name} ...")
            found: list[Any] = records.setdefault(name, [])
            try:
                with closing(row.measure(setting)) as items:
                    found.extend(items)
            except KeyboardInterrupt:
                stopped = True
                report.notes.append(f"{name}: ended early, by the keyboard")
            except (OSError, RuntimeError, ValueError, StiError) as error:
                report.notes.append(f"{name}: failed: {error}")
                limits.rows.append((f"{name}: complete", None, "yes", "SHORT: failed"))
            _add(report, limits, name, row.summarize(found))
            if place is not None:
                _save(report, records, place)
    if stopped:
        left = [name for name in rows if name not in records]
        report.notes.append(f"not measured: {', '.join(left) or 'nothing else'}")
    return report


def _add(report: Report, limits: Table, name: str, summary: Summary) -> None:
    for what, *others in summary.limits:
        limits.rows.append((f"{name}: {what}", *others))
        figure, wanted, verdict = others
        shown = f"{figure:.3f}" if isinstance(figure, float) else str(figure)
        tell(f"{name}: {what}: {shown}; wanted: {wanted}; {verdict}")
    report.tables += [table for table in summary.tables if table.rows]
    report.notes += [f"{name}: {note}" for note in summary.notes]


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


def _save(report: Report, records: dict[str, list[Any]], place: Path) -> None:
    body = {**report.to_json(), "records": _plain(records)}
    write_file(str(place), json.dumps(body, indent=1) + "\n")


def _plain(value: Any) -> Any:
    """As JSON: named tuples as objects."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


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
    parser.add_argument("--runs", type=_positive, default=1000, help="of budget; default: 1000")
    parser.add_argument(
        "--turns", type=_positive, default=20, help="of whole, latency, placement; default: 20"
    )
    parser.add_argument(
        "--tokens", type=_lengths, help="instead of the rows' own, such as 16,128; not for budget"
    )
    parser.add_argument(
        "--jobs", type=_positive, default=1, help="processes of budget at a time; default: 1"
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
    return tuple(_positive(part) for part in text.split(","))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
