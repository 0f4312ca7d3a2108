"""``sti bench --devices``: runs by this machine alone and over the chain of devices, by turns.

In: parsed arguments. Out: a report as Markdown, CSV or JSON: what each takes and was predicted to,
what each device reads, what is sent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

from sti.calibration.sample_texts import SampleTexts
from sti.cli.arguments import FORMATS, workload_tokens
from sti.cli.opening import open_engine
from sti.cli.program import notice
from sti.cli.reports import deliver, destinations
from sti.device.identity import machine_line
from sti.engine.device_options import AUTO
from sti.engine.engine import Engine
from sti.engine.results import Result
from sti.errors import InputError
from sti.planning.plan import LOCAL
from sti.planning.stages import CHAIN
from sti.planning.strategies import Strategy
from sti.report.tables import figure, markdown, megabytes, rows_report
from sti.report.wording import counted, software
from sti.units import format_size

_HEADER = (
    "strategy",
    "total ms",
    "best ms",
    "predicted ms",
    "measured / predicted",
    "read",
    "sent",
)
_WARM_RUNS = 3
"""That do not count: devices make ready, and corrections of what was predicted settle."""


def execute(args: argparse.Namespace) -> int:
    """Measure both strategies, run by run in turn."""
    if args.storage is not None or args.against:
        raise InputError("--storage and --against are for this machine alone; leave --devices out")
    if args.strategy != AUTO:
        raise InputError(f"--strategy {args.strategy}: bench measures both; leave it out")
    wanted = destinations(args, FORMATS)
    with open_engine(args, history=False, tokens=None) as engine:
        tokens = workload_tokens(args.tokens, engine.manifest)
        texts = SampleTexts(engine.reader).texts(args.batch, tokens)
        results = _runs(engine, texts, args.repeat)
        found, _ = engine.strategies(tokens=tokens, batch=args.batch)
        # A device may have been lost by now: then there are runs of a chain that is none any more.
        now = {strategy.name: strategy for strategy in reversed(found)}
        rows = [_row(now[name], runs) for name, runs in results.items() if runs and name in now]
        if all(row["strategy"] == LOCAL for row in rows):
            notice("no chain is shown: there is none now, or no run was over one")
        facts = {
            "machine": machine_line(),
            "software": software(),
            "pack": f"{engine.manifest.name} ({format_size(engine.reader.file_bytes)})",
            "workload": f"{args.batch} x {counted(tokens, 'token')}",
        }
    deliver(wanted, lambda form: rows_report(form, facts, rows, lambda: _table(rows)))
    return 0


def _runs(engine: Engine, texts: Sequence[str], repeat: int) -> dict[str, list[Result]]:
    """The runs of each strategy that was really taken."""
    results: dict[str, list[Result]] = {LOCAL: [], CHAIN: []}
    for number in range(_WARM_RUNS + repeat):
        for name in (LOCAL, CHAIN):
            engine.set_strategy(name)
            result = engine.run(texts)
            if number >= _WARM_RUNS and bool(result.stages) == (name == CHAIN):
                results[name].append(result)
    return results


def _row(strategy: Strategy, results: Sequence[Result]) -> dict[str, Any]:
    """What the runs of a strategy took, as a JSON object."""
    totals_ms = sorted(result.timing.total_s * 1e3 for result in results)
    stages = results[-1].stages
    spans = ", ".join(f"{item.device} {item.first}-{item.last}" for item in stages)
    return {
        "strategy": f"{strategy.name}: {spans}" if stages else strategy.name,
        "total_ms": round(median(totals_ms), 3),
        "best_ms": round(totals_ms[0], 3),
        "predicted_ms": round(strategy.total_s * 1e3, 3),
        "bytes_read": results[-1].bytes_read,
        "bytes_sent": strategy.sent_bytes,
        "runs": len(results),
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            row["strategy"],
            *(figure(row[name]) for name in ("total_ms", "best_ms", "predicted_ms")),
            f"{row['total_ms'] / row['predicted_ms']:.2f}",
            *(megabytes(row[name]) for name in ("bytes_read", "bytes_sent")),
        ]
        for row in rows
    ]
    return (
        "\n" + markdown(_HEADER, cells) + "\n"
        "total: median of runs that took turns. predicted: as it is now, corrected by runs. read: "
        "by all devices together.\n"
    )
