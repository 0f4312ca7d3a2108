"""Several devices against one, on emulated networks of emulated devices.

    python -m benchmarks.devices PACK [--rows latency,cells] [--stsb FILE] [--json FILE]

PACK is what speed is measured on: one of BERT-base's shape, made by `python -m
benchmarks.base_model DIR` and `sti-shard build DIR -o PACK`, is what the limits are for. Answers
are compared, and starts are timed, on a trained pack (--trained, default: the one that ships).

- equal: chains of two to four devices, texts of all lengths, alone and in batches: the same bits
- links: what is lost where numbers on links are rounded, on the development set of STS-B
- latency: two devices with slow storage on one medium, against one of them
- throughput: two and four slow processors, batches in parts that follow one another
- cells: 60 cells of devices, links and lengths: the chosen plan against one device, and predictions
- bytes: what each device reads and holds, against its planned share
- start: from starting two workers to the first answer

Each device is a process in a network namespace of its own (`benchmarks.network`: root, Linux, a C
compiler), as much slower than this machine as is said (`benchmarks.slow_device`), with one compute
thread; messages are encrypted. Whatever is compared takes turns in one run. Real work of all
devices together has to fit on this machine's cores: others who use them blur the figures.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import ROOT, Report
from benchmarks.devices import cells, equal, links, shares, speed, start
from benchmarks.devices.packed import Packed
from benchmarks.devices.setting import Setting
from benchmarks.rows import Row, measure_rows
from sti.storage.atomic_file import write_file

TRAINED = ROOT / "models" / "all-MiniLM-L6-v2.sti.safetensors"
ROWS: Mapping[str, Row[Setting]] = {
    "equal": Row(equal.measure, equal.summarize),
    "links": Row(links.measure, links.summarize),
    "latency": Row(speed.latency, speed.summarize_latency),
    "throughput": Row(speed.throughput, speed.summarize_throughput),
    "cells": Row(cells.measure, cells.summarize),
    "bytes": Row(shares.measure, shares.summarize),
    "start": Row(start.measure, start.summarize),
}
"""In the order in which they are run."""
_REPEATS, _QUICK_REPEATS = 6, 2


def measure(options: Any) -> Report:
    """Row after row."""
    report = Report("Several devices", common.about_machine())
    with tempfile.TemporaryDirectory(prefix="sti-profiles-") as place:
        paths = dict.fromkeys([options.pack, options.trained])
        packs = {path: Packed.measured(path, Path(place)) for path in paths}
        for pack in packs.values():
            waited = f"{pack.machine.disturbed:.1%} of the time waited for a core"
            report.about.append(f"{pack.name}: {pack.layers} layers; profile: {waited}")
        repeats = options.repeats or (_QUICK_REPEATS if options.quick else _REPEATS)
        setting = Setting(
            packs[options.pack], packs[options.trained], options.stsb, repeats, options.quick
        )
        rows = {name: ROWS[name] for name in ROWS if name in options.rows}
        for row in measure_rows(report, rows, setting, options.json):
            report.notes.append(f"{row.name}: load of the machine: {os.getloadavg()[0]:.2f}")
        for pack in packs.values():
            report.about += [
                f"{pack.name} on {kind.words}: {words(cold)} over what {kind.times:g} times is"
                for kind, cold in pack.cold.items()
            ]
    if options.write is not None:
        write_file(str(options.write), report.markdown())
    return report


def words(factors: Mapping[str, float]) -> str:
    """Factors of lanes in words."""
    return ", ".join(f"{lane} {factor:.2f}" for lane, factor in factors.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("devices", __doc__, "base.sti.safetensors --rows latency,bytes")
    parser.add_argument("pack", type=Path, metavar="PACK", help="what speed is measured on")
    common.add_rows(parser, ROWS)
    parser.add_argument(
        "--trained", type=Path, metavar="PACK", default=TRAINED, help="what answers are compared on"
    )
    parser.add_argument("--stsb", type=Path, metavar="FILE", help="for links: its dev.tsv")
    parser.add_argument("--repeats", type=common.positive, help=f"turns; default: {_REPEATS}")
    parser.add_argument("--quick", action="store_true", help="a little of each: means nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after each row")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the report, as Markdown")
    options = parser.parse_args(arguments)
    return common.print_report(parser, options, lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
