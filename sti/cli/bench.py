"""``sti bench``: how fast a pack runs here, cold and warm, beside what would be ideal.

In: parsed arguments. Out: a Markdown table, CSV or JSON, with a line that names the machine.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sti import __version__, machine
from sti.backend import ort_version
from sti.cli.output import describe_plan, workload_tokens
from sti.cli.tables import comma_separated, markdown
from sti.config import Settings, resolve
from sti.emulated import SlowReader, parse_storage, with_storage
from sti.engine import Engine
from sti.measure import LANES, Measurement, Setting, aim, measure_cold, measure_warm
from sti.profile import StorageProfile
from sti.samples import SampleTexts
from sti.storage import FileReader
from sti.units import format_size, format_time

HEADER = ("setting", "run", "total ms", "p95 ms", "open ms", "io ms", "decode ms", "compute ms")
MORE = ("stall ms", "largest lane ms", "total / lane", "read", "peak memory", "growth")


def execute(args: argparse.Namespace) -> None:
    """Measure the planned run and every uniform fidelity, cold and warm.

    On emulated storage only warm runs are measured.
    """
    asked = resolve(
        latency=args.latency,
        preload=args.preload,
        fidelity=args.fidelity,
        plan=args.plan,
        config=args.config,
        target=args.target,
    )
    pack = Path(args.pack)
    emulated = None if args.storage is None else parse_storage(args.storage)
    with _engine(pack, args.threads, emulated) as engine:
        settings = _settings(asked, engine.manifest.ladder)
        tokens = workload_tokens(args.tokens, engine.manifest)
        texts = SampleTexts(engine.reader).texts(args.batch, tokens)
        if asked.fidelity is None and asked.plan is None:
            _ = engine.profile  # measured and cached now, not in the first cold run
        found = []
        if emulated is None:  # a process of its own would read from the real storage
            for item in settings:  # planned and remembered now, for the same reason
                aim(engine, item.settings)
                engine.plan_for(tokens=tokens, batch=args.batch)
            found += [
                measure_cold(pack, item, texts, threads=args.threads, repeats=args.cold_repeat)
                for item in settings
            ]
        found += measure_warm(engine, settings, texts, repeats=args.repeat)
        aim(engine, settings[0].settings)
        plan = engine.plan_for(tokens=tokens, batch=args.batch)
        facts = {
            "machine": machine.describe(),
            "software": f"sti {__version__}, Python {platform.python_version()}, onnxruntime "
            f"{ort_version()}, numpy {np.__version__}",
            "pack": f"{engine.manifest.name} ({format_size(pack.stat().st_size)})",
            "workload": f"{args.batch} x {tokens} tokens, {engine.threads} compute threads, "
            f"{'direct' if engine.direct else 'buffered'} reads",
            "storage": _describe(emulated),
            settings[0].name: describe_plan(plan),
        }
    _print(facts, found, "json" if args.json else args.output)


def _engine(pack: Path, threads: int | None, emulated: StorageProfile | None) -> Engine:
    """The engine to measure, on the pack's own storage or on a slower one."""
    if emulated is None:
        return Engine.open(pack, threads=threads)
    with Engine.open(pack, threads=threads) as engine:
        profile, chosen = engine.profile, engine.threads
    return Engine.open(
        pack,
        threads=chosen,
        profile=with_storage(profile, emulated),
        storage=SlowReader(FileReader(pack), emulated),
    )


def _describe(emulated: StorageProfile | None) -> str:
    if emulated is None:
        return "the pack's own"
    pace = f"{format_size(round(emulated.bytes_per_s))}/s"
    if emulated.request_s:
        pace += f" and {format_time(emulated.request_s)} a request"
    return f"emulated: real reads, none sooner than at {pace}"


def _settings(asked: Settings, ladder: tuple[int, ...]) -> list[Setting]:
    """What to compare: a pinned plan or fidelity alone, else planning and every fidelity."""
    if asked.plan is not None:
        return [Setting("pinned", asked)]
    if asked.fidelity is not None:
        return [Setting(f"{asked.fidelity} bits", asked)]
    uniform = [
        Setting(f"{bits} bits", replace(asked, latency_s=None, fidelity=bits)) for bits in ladder
    ]
    return [Setting("planned", asked), *uniform]


def _print(facts: dict[str, str], found: list[Measurement], form: str) -> None:
    if form == "json":
        rows: list[dict[str, Any]] = [item.to_json() for item in found]
        print(json.dumps({**facts, "rows": rows}))
        return
    if form == "csv":
        documents = [item.to_json() for item in found]
        cells = [["" if v is None else str(v) for v in row.values()] for row in documents]
        print(comma_separated(list(documents[0]), cells), end="")
        return
    for name, value in facts.items():
        print(f"{name}: {value}")
    print("\n" + markdown([*HEADER, *MORE], [_row(item) for item in found]), end="")
    print(
        "\nlargest lane: what a perfect pipeline would take. cold: a fresh process, opening and "
        "the first run; growth: of its memory from the start."
    )


def _row(item: Measurement) -> list[str]:
    figures = item.to_json()

    def time(name: str) -> str:
        return "-" if figures[name] is None else f"{figures[name]:.1f}"

    def size(name: str) -> str:
        return "-" if figures[name] is None else f"{figures[name] / 1e6:.1f} MB"

    ratio = "-"
    if item.kind != "sequential" and item.ideal_ms:
        ratio = f"{figures['run_ms'] / item.ideal_ms:.2f}"
    return [
        item.setting,
        item.kind,
        *(time(name) for name in ("total_ms", "p95_ms", "open_ms")),
        *(time(f"{lane}_ms") for lane in LANES),
        *(time(name) for name in ("stall_ms", "ideal_ms")),
        ratio,
        *(size(name) for name in ("bytes_read", "peak_bytes", "growth_bytes")),
    ]
