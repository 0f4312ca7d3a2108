"""Does STI withstand packs, files and processes that mean harm or die at the wrong time?

    python -m benchmarks.security PACK [PACK ...] [--rows hostile,kills] [--write SECURITY.md]

Rows:

- hostile: packs that mean harm, of every kind: refused, in time and little memory
- kills: writers killed at any moment: files whole, and nothing left over by the next run
- matrix: reads that go wrong, by kind, stage and way to run: each ends as specified
- processes: forks, ends, signals and threads at bad moments
- limits: commands under limits of the system
- fuzz: readers of bytes from outside, led by coverage (needs the extra ``fuzz``)
- soak: 100,000 runs with changing targets: memory, descriptors, threads, a fixed answer
- opening: what the checks cost an opening, beside another revision (``--before CHECKOUT``)

A row's cases run in processes of their own, each within a time: what hangs or crashes is counted,
and the rest goes on. ``--write`` puts what was measured into a document, in the place that it marks
for each row (``<!-- row NAME -->`` to ``<!-- end of row -->``).

Progress and a line for each figure go to standard error, the report to standard output. Ctrl-C ends
the row that is being measured; what is known until then is reported. What engines learn meanwhile
is kept in a copy of the cache, and forgotten. The exit code is 1 where a limit is not met.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks import (
    common,
    security_fuzz,
    security_hostile,
    security_kills,
    security_limits,
    security_matrix,
    security_opening,
    security_processes,
    security_soak,
)
from benchmarks.common import Report
from benchmarks.rows import Measured, Row, measure_rows
from benchmarks.security_setting import Setting
from benchmarks.targets_cache import own_cache
from sti.calibration.cache import cache_directory
from sti.errors import InputError
from sti.storage.atomic_file import write_file

ROWS: dict[str, Row[Setting]] = {
    "hostile": Row(security_hostile.measure, security_hostile.summarize),
    "kills": Row(security_kills.measure, security_kills.summarize),
    "matrix": Row(security_matrix.measure, security_matrix.summarize),
    "processes": Row(security_processes.measure, security_processes.summarize),
    "limits": Row(security_limits.measure, security_limits.summarize),
    "fuzz": Row(security_fuzz.measure, security_fuzz.summarize),
    "soak": Row(security_soak.measure, security_soak.summarize),
    "opening": Row(security_opening.measure, security_opening.summarize),
}
"""In the order in which they are run."""


def measure(
    setting: Setting, rows: Sequence[str], *, save: Path | None, write: Path | None
) -> Report:
    """Row after row; each is saved, and written into the document, as soon as it has ended."""
    about = [*common.about_machine(), f"seed {setting.seed}"]
    report = Report("Security", about)
    with own_cache(cache_directory()):
        chosen = {name: row for name, row in ROWS.items() if name in rows}
        for measured in measure_rows(report, chosen, setting, save):
            if write is not None and not measured.ended_early:
                write_row(write, measured, about)
    return report


def write_row(document: Path, measured: Measured, about: Sequence[str]) -> None:
    """Put the tables of a row into the place that a document marks for it.

    Raises:
        InputError: the document has no such place.
    """
    text = document.read_text(encoding="utf-8")
    start, end = f"<!-- row {measured.name} -->\n", "<!-- end of row -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise InputError(f"{document}: has no place for the row {measured.name}: {start.strip()}")
    summary = measured.summary
    limits = common.Table("Limits", common.LIMITS, list(summary.limits))
    tables = [table.markdown().partition("\n\n")[2] for table in (limits, *summary.tables)]
    machine = f"{date.today()}; {'; '.join(about[:2])}\n"
    notes = "".join(f"- {note}\n" for note in summary.notes)
    body = "\n".join(filter(None, [machine, *tables, notes]))
    write_file(str(document), f"{before}{start}{body}{closed}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    example = "models/clinc150-intents.sti.safetensors --rows hostile --cases 20"
    parser = common.parser("security", __doc__, example)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK")
    common.add_rows(parser, ROWS)
    parser.add_argument(
        "--cases", type=common.positive, help="or runs, instead of the rows' own number"
    )
    parser.add_argument("--seconds", type=common.positive, help="of processor time, of fuzz")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="for the row opening")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with what each row measured")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="to put the figures into")
    options = parser.parse_args(arguments)
    report = Report("", [])

    def measured() -> Report:
        nonlocal report
        with tempfile.TemporaryDirectory() as place:
            setting = Setting(
                packs=tuple(path.resolve(strict=True) for path in options.packs),
                cases=options.cases,
                seconds=options.seconds,
                seed=options.seed,
                before=options.before and options.before.resolve(strict=True),
                place=Path(place),
            )
            report = measure(setting, options.rows, save=options.json, write=options.write)
        return report

    code = common.print_report(parser, options, measured)
    short = any(str(row[-1]).startswith("SHORT") for row in report.tables[0].rows)
    return code or int(short)


if __name__ == "__main__":
    sys.exit(main())
