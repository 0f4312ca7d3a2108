"""Are latency targets kept, and are misses told? On this machine, quiet and busy.

    python -m benchmarks.targets SENTENCES [--rows grid,busy] [--runs 2400] [--save FILE]

SENTENCES is a file of texts, one a line after a header (``.tsv`` or ``.jsonl``, gzipped or not),
such as the validation texts of CLINC150 (github.com/clinc/oos-eval, CC BY 3.0); longer texts are
made by joining them. The packs are those that ship, unless ``--packs`` names others, a classifier
first.

Rows, each with a time budget that ``--runs`` scales:

- grid: 20 targets of 20 to 120 ms, tighter ones, 3 preload buffers, texts of 4 to 400 words
- busy: beside one busy process more than there are cores, plans that adapt and plans that do not
- predicted: a plan's prediction against the median of ten runs
- calibrations: ten processes, each measuring the machine anew
- disturbed-first: the very first run beside busy processes, and what is accepted afterwards
- least: the least target offered, against the fastest plan as it really runs
- slow-storage: storage ten times slower from run 100 on, and fast again
- clinc150: five targets and three preload buffers of the intents pack's evaluation
- planning: what planning takes of a run's own time, in the rows before it
- opening: what opening takes, with and without remembered plans
- told: whether each miss was told, in the rows before it and in one that is provoked

A target is kept in a run that ends in time with a plan above the quality floor, 95 % of the full
model's metric; shares are held against their lower 95 % confidence bound. Where a row is quiet,
runs during which the machine took the processor away are counted apart. Each row starts with a copy
of the cache, as its disturbances are not for the next one to learn from. ``--save`` writes what
there is after every row, as JSON or Markdown by the file's name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks import (
    common,
    targets_busy,
    targets_calibrations,
    targets_grid,
    targets_offers,
    targets_planning,
    targets_storage,
)
from benchmarks.common import ROOT, Report, Table
from benchmarks.targets_cache import own_cache
from benchmarks.targets_runs import open_engine
from benchmarks.targets_setting import Budget, Case, Found, Setting, sentences_of
from sti.calibration.cache import cache_directory
from sti.errors import StiError
from sti.storage.atomic_file import write_file

USUAL_RUNS = 2400
PACKS = tuple(
    ROOT / "models" / f"{name}.sti.safetensors" for name in ("clinc150-intents", "all-MiniLM-L6-v2")
)


class Row(NamedTuple):
    """A part of the benchmark that can be chosen."""

    measure: Callable[[Setting], Found]
    seconds: float
    """At most, with the usual number of runs; a run that has begun is ended."""


ROWS: Mapping[str, Row] = {
    "grid": Row(targets_grid.grid, 250.0),
    "busy": Row(targets_busy.beside_busy, 110.0),
    "predicted": Row(targets_offers.predicted, 50.0),
    "calibrations": Row(targets_calibrations.calibrations, 75.0),
    "disturbed-first": Row(targets_calibrations.disturbed_first, 50.0),
    "least": Row(targets_offers.least, 25.0),
    "slow-storage": Row(targets_storage.slow_storage, 60.0),
    "clinc150": Row(targets_offers.card, 40.0),
    "planning": Row(targets_planning.planning, 15.0),
    "opening": Row(targets_planning.opening, 15.0),
    "told": Row(targets_busy.told, 15.0),
}
"""In the order in which they are run."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured."""

    data: Path
    packs: tuple[Path, ...] = PACKS
    rows: tuple[str, ...] = tuple(ROWS)
    runs: int = USUAL_RUNS
    seed: int = 0
    save: Path | None = None


def measure(asked: Asked) -> Report:
    """Row after row; each is saved as soon as it has ended, and one that fails is told."""
    about = common.about_machine()
    about.append(f"{asked.runs} runs of the grid (usual: {USUAL_RUNS}), seed {asked.seed}")
    limits = Table("Limits", common.LIMITS)
    report = Report("Targets", about, [limits])
    setting = Setting(
        packs=asked.packs,
        sentences=sentences_of(asked.data),
        data=asked.data,
        runs=asked.runs,
        usual_runs=USUAL_RUNS,
        seed=asked.seed,
        budget=Budget(0.0),
    )
    for pack in asked.packs:
        with open_engine(Case(pack), None) as engine:  # measures the machine, where it has to be
            about.append(f"{Case(pack).name}: {engine.profile.threads} compute threads")
    for name, row in ROWS.items():
        if name not in asked.rows:
            continue
        _tell(f"{name} ...")
        setting.budget = Budget(row.seconds * max(1.0, asked.runs / USUAL_RUNS))
        start = perf_counter()
        try:
            with own_cache(cache_directory()):
                found = row.measure(setting)
        except (OSError, RuntimeError, ValueError, StiError) as error:
            report.notes.append(f"{name}: failed: {error}")
            limits.rows.append((name, None, None, "SHORT: failed"))
        else:
            setting.sessions += found.sessions
            limits.rows.extend((f"{name}: {limit}", *others) for limit, *others in found.limits)
            report.tables += found.tables
            report.notes += [f"{name}: {note}" for note in found.notes]
        taken_s = perf_counter() - start
        early = ", cut short by its budget" if setting.budget.over() else ""
        report.notes.append(f"{name}: took {taken_s:.0f} s{early}")
        if asked.save is not None:
            save(report, asked.save)
    return report


def save(report: Report, path: Path) -> None:
    """Write a report, in the form that the file's name asks for."""
    text = report.markdown()
    if path.suffix == ".json":
        text = json.dumps(report.to_json(), indent=1) + "\n"
    write_file(str(path), text)


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    example = "val.tsv.gz --rows grid,told --save targets.json"
    parser = common.parser("targets", __doc__, example)
    parser.add_argument("data", type=Path, metavar="SENTENCES")
    parser.add_argument("--packs", type=Path, nargs="+", default=PACKS, metavar="PACK")
    common.add_rows(parser, ROWS)
    parser.add_argument(
        "--runs", type=int, default=USUAL_RUNS, help=f"of the grid; default: {USUAL_RUNS}"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--save", type=Path, metavar="FILE", help=".json or .md")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.seed < 0:
        parser.error("--runs must be at least 1, and --seed at least 0")
    if options.save is not None and options.save.suffix not in (".json", ".md"):
        parser.error(f"--save must end with .json or .md; found {options.save.name}")
    asked = Asked(
        data=options.data,
        packs=tuple(options.packs),
        rows=options.rows,
        runs=options.runs,
        seed=options.seed,
        save=options.save,
    )
    return common.print_report(parser, options, lambda: measure(asked))


if __name__ == "__main__":
    sys.exit(main())
