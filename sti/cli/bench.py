"""``sti bench``: how fast a pack runs here, cold and warm, beside what would be ideal.

In: parsed arguments. Out: a Markdown table, CSV or JSON, with a line that names the machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sti.benchmark.roofline import Roofline, measure_roofline
from sti.benchmark.runs import BenchCase, Measurement, aim, measure_cold, measure_warm
from sti.calibration.sample_texts import SampleTexts
from sti.cli.opening import show_notice, target_of
from sti.device import host
from sti.device.emulated_storage import SlowReader, parse_storage, with_storage
from sti.device.lanes import LANES
from sti.device.profile import StorageProfile
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.model.manifest import Manifest
from sti.report.measured import figure, megabytes, print_rows, software
from sti.report.tables import markdown
from sti.report.wording import describe_plan, workload_tokens
from sti.storage.file_reader import FileReader
from sti.storage.reader import Reader
from sti.units import format_size, format_time

HEADER = (
    "setting",
    "run",
    "total ms",
    "p95 ms",
    "open ms",
    "storage ms",
    "decode ms",
    "compute ms",
)
ROOFLINE = (
    "setting",
    *("storage roof ms", "share", "decode roof ms", "share", "compute roof ms", "share"),
    *("highest roof ms", "share of the run"),
)
MORE = ("stall ms", "largest lane ms", "total / lane", "read", "peak memory", "growth")


def execute(args: argparse.Namespace) -> None:
    """Measure the planned run and every uniform fidelity, cold and warm.

    On emulated storage only warm runs are measured.
    """
    if args.against:
        from sti.cli import against

        against.execute(args)
        return
    asked = target_of(args)
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
                aim(engine, item.target)
                engine.plan_for(tokens=tokens, batch=args.batch)
            found += [
                measure_cold(pack, item, texts, threads=args.threads, repeats=args.cold_repeat)
                for item in settings
            ]
        found += measure_warm(engine, settings, texts, repeats=args.repeat)
        aim(engine, settings[0].target)
        plan = engine.plan_for(tokens=tokens, batch=args.batch)
        storage = _storage(pack, emulated)
        try:
            roofline = measure_roofline(engine.reader, storage, threads=engine.threads)
        finally:
            storage.close()
        rows = [_figures(item, roofline, engine.manifest) for item in found]
        facts = {
            "machine": host.describe(),
            "software": software(),
            "pack": f"{engine.manifest.name} ({format_size(pack.stat().st_size)})",
            "workload": f"{args.batch} x {tokens} tokens, {engine.threads} compute threads, "
            f"{'direct' if engine.direct else 'buffered'} reads",
            "storage": _describe(emulated),
            "roofline": f"reads {roofline.read_bytes / 1e9:.2f} GB/s, memory "
            f"{roofline.moved_bytes / 1e9:.1f} GB/s, "
            f"{roofline.products / 1e9:.0f} G int8 products/s",
            settings[0].name: describe_plan(plan),
        }
    _print(facts, rows, "json" if args.json else args.output)


def _engine(pack: Path, threads: int | None, emulated: StorageProfile | None) -> Engine:
    """The engine to measure, on the pack's own storage or on a slower one."""
    if emulated is None:
        return Engine.open(pack, threads=threads, notify=show_notice)
    with Engine.open(pack, threads=threads, notify=show_notice) as engine:
        profile, chosen = engine.profile, engine.threads
    return Engine.open(
        pack,
        threads=chosen,
        profile=with_storage(profile, emulated),
        storage=_storage(pack, emulated),
    )


def _storage(pack: Path, emulated: StorageProfile | None) -> Reader:
    """What the pack's blocks are read from."""
    reader = FileReader(pack)
    return reader if emulated is None else SlowReader(reader, emulated)


def _figures(item: Measurement, roofline: Roofline, manifest: Manifest) -> dict[str, Any]:
    """A measurement as a JSON object, with the least each lane can take for the same work."""
    figures = item.to_json()
    if item.plan is None:
        return figures | {f"{lane}_roof_ms": None for lane in LANES}
    least = roofline.seconds(item.plan, manifest, figures["bytes_read"])
    return figures | {f"{lane}_roof_ms": round(least[lane] * 1e3, 3) for lane in LANES}


def _describe(emulated: StorageProfile | None) -> str:
    if emulated is None:
        return "the pack's own"
    pace = f"{format_size(round(emulated.bytes_per_s))}/s"
    if emulated.request_s:
        pace += f" and {format_time(emulated.request_s)} a request"
    return f"emulated: real reads, none sooner than at {pace}"


def _settings(asked: TargetSpec, ladder: tuple[int, ...]) -> list[BenchCase]:
    """What to compare: a pinned plan or fidelity alone, else planning and every fidelity."""
    if asked.plan is not None:
        return [BenchCase("pinned", asked)]
    if asked.fidelity is not None:
        return [BenchCase(f"{asked.fidelity} bits", asked)]
    uniform = [
        BenchCase(f"{bits} bits", TargetSpec(preload=asked.preload, fidelity=bits))
        for bits in ladder
    ]
    return [BenchCase("planned", asked), *uniform]


def _print(facts: dict[str, str], rows: list[dict[str, Any]], form: str) -> None:
    if not print_rows(facts, rows, form):
        return
    print("\n" + markdown([*HEADER, *MORE], [_row(row) for row in rows]), end="")
    print(
        "\nlargest lane: what a perfect pipeline would take. cold: a fresh process, opening and "
        "the first run; growth: of its memory from the start."
    )
    below = [_roof_row(row) for row in rows if row["kind"] == "pipelined"]
    print("\n" + markdown(ROOFLINE, below), end="")
    print(
        "\nroof: the same work at the best rates of this machine, one thing at a time; share: of "
        "the roof's speed that the lane reached while the others were at work."
    )


def _row(figures: dict[str, Any]) -> list[str]:
    ratio = "-"
    if figures["kind"] != "sequential" and figures["ideal_ms"]:
        ratio = f"{figures['run_ms'] / figures['ideal_ms']:.2f}"
    return [
        figures["setting"],
        figures["kind"],
        *(figure(figures[name]) for name in ("total_ms", "p95_ms", "open_ms")),
        *(figure(figures[f"{lane}_ms"]) for lane in LANES),
        *(figure(figures[name]) for name in ("stall_ms", "ideal_ms")),
        ratio,
        *(megabytes(figures[name]) for name in ("bytes_read", "peak_bytes", "growth_bytes")),
    ]


def _roof_row(figures: dict[str, Any]) -> list[str]:
    cells = [figures["setting"]]
    for lane in LANES:
        roof, took = figures[f"{lane}_roof_ms"], figures[f"{lane}_ms"]
        cells += [f"{roof:.1f}", f"{roof / took:.0%}" if took else "-"]
    roof = max(figures[f"{lane}_roof_ms"] for lane in LANES)
    return [*cells, f"{roof:.1f}", f"{roof / figures['run_ms']:.0%}"]
