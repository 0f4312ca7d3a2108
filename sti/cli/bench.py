"""``sti bench``: how fast a pack runs here, cold and warm, compared with the ideal.

In: parsed arguments. Out: a report as Markdown, CSV or JSON, with the machine it was measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sti.benchmark.roofline import Roofline, measure_roofline
from sti.benchmark.runs import BenchCase, Measurement, aim, measure_cold, measure_warm
from sti.calibration.sample_texts import SampleTexts
from sti.cli.arguments import FORMATS, workload_tokens
from sti.cli.opening import devices_of, target_of
from sti.cli.program import notice
from sti.cli.reports import deliver, destinations
from sti.device.emulated_storage import SlowReader, parse_storage, with_storage
from sti.device.identity import machine_line
from sti.device.lane_profiles import StorageProfile
from sti.device.lanes import LANES
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.model.manifest import Manifest
from sti.report.tables import figure, markdown, megabytes, rows_report
from sti.report.wording import counted, describe_plan, software
from sti.storage.file_reader import FileReader
from sti.storage.reader import Reader
from sti.units import format_size, format_time

HEADER = (
    *("case", "run", "total ms", "p95 ms", "open ms"),
    *(f"{lane} ms" for lane in LANES),
    *("stall ms", "ideal ms", "total / ideal", "read", "peak memory", "growth"),
)
ROOFLINE = (
    "case",
    *(heading for lane in LANES for heading in (f"{lane} roofline ms", "share")),
    *("roofline of the run ms", "share of the run"),
)


def execute(args: argparse.Namespace) -> int:
    """Measure the planned run and every uniform fidelity, cold and warm.

    On emulated storage only warm runs are measured.
    """
    if devices_of(args) is not None:
        from sti.cli import bench_devices  # few have other devices

        return bench_devices.execute(args)
    if args.against:
        from sti.cli import against

        return against.execute(args)
    wanted = destinations(args, FORMATS)
    asked = target_of(args)
    emulated = None if args.storage is None else parse_storage(args.storage)
    with _engine(Path(args.pack), args.threads, emulated) as engine:
        cases = _cases(asked, engine.manifest.ladder)
        tokens = workload_tokens(args.tokens, engine.manifest)
        found = _measure(engine, cases, tokens, args)
        aim(engine, cases[0].target)
        plan = engine.plan_for(tokens=tokens, batch=args.batch)
        roofline = _roofline(engine, Path(args.pack), emulated)
        rows = [_figures(item, roofline, engine.manifest) for item in found]
        facts = {
            **_facts(engine, roofline, emulated, f"{args.batch} x {counted(tokens, 'token')}"),
            "plan": f"{cases[0].name}: {describe_plan(plan)}",
        }
    deliver(wanted, lambda form: rows_report(form, facts, rows, lambda: _tables(rows)))
    return 0


def _measure(
    engine: Engine, cases: list[BenchCase], tokens: int, args: argparse.Namespace
) -> list[Measurement]:
    """Cold runs of every case, where the storage is the pack's own, then warm ones."""
    texts = SampleTexts(engine.reader).texts(args.batch, tokens)
    if cases[0].target.fidelity is None and cases[0].target.plan is None:
        _ = engine.profile  # measured and cached now, not in the first cold run
    found = []
    if args.storage is None:  # a process of its own would read from the real storage
        for item in cases:  # planned and remembered now, for the same reason
            aim(engine, item.target)
            engine.plan_for(tokens=tokens, batch=args.batch)
        pack, repeats = Path(args.pack), args.cold_repeat
        found += [
            measure_cold(pack, item, texts, threads=args.threads, repeats=repeats) for item in cases
        ]
    return found + measure_warm(engine, cases, texts, repeats=args.repeat)


def _roofline(engine: Engine, pack: Path, emulated: StorageProfile | None) -> Roofline:
    storage = _storage(pack, emulated)
    try:
        return measure_roofline(engine.reader, storage)
    finally:
        storage.close()


def _facts(
    engine: Engine, roofline: Roofline, emulated: StorageProfile | None, workload: str
) -> dict[str, str]:
    """What holds for every row of the report."""
    reader = engine.reader
    return {
        "machine": machine_line(),
        "software": software(),
        "pack": f"{engine.manifest.name} ({format_size(reader.file_bytes)})",
        "workload": f"{workload}, {counted(engine.threads, 'compute thread')}, "
        f"{'direct' if engine.direct else 'buffered'} reads",
        "storage": _describe(emulated),
        "roofline": str(roofline),
    }


def _engine(pack: Path, threads: int | None, emulated: StorageProfile | None) -> Engine:
    """The engine to measure, on the pack's own storage or on a slower one."""
    if emulated is None:
        return Engine.open(pack, threads=threads, history=False, notify=notice)
    with Engine.open(pack, threads=threads, notify=notice) as engine:
        profile, chosen = engine.profile, engine.threads
    return Engine.open(
        pack,
        threads=chosen,
        profile=with_storage(profile, emulated),
        storage=_storage(pack, emulated),
    )


def _storage(pack: Path, emulated: StorageProfile | None) -> Reader:
    """What runs read the pack from."""
    reader = FileReader(pack)
    return reader if emulated is None else SlowReader(reader, emulated)


def _figures(item: Measurement, roofline: Roofline, manifest: Manifest) -> dict[str, Any]:
    """A measurement as a JSON object, with the least that the same work can take."""
    figures = item.to_json()
    if item.plan is None:
        return figures | {"roofline_ms": dict.fromkeys(LANES), "roofline_run_ms": None}
    least = roofline.seconds(item.plan, manifest, figures["bytes_read"])
    return figures | {
        "roofline_ms": {work: round(least[work] * 1e3, 3) for work in LANES},
        "roofline_run_ms": round(item.threads.ideal_s(least) * 1e3, 3),
    }


def _describe(emulated: StorageProfile | None) -> str:
    if emulated is None:
        return "the pack's own"
    pace = f"{format_size(round(emulated.bytes_per_s))}/s"
    if emulated.request_s:
        pace += f" and {format_time(emulated.request_s)} per request"
    return f"emulated: real reads, slowed down to {pace}"


def _cases(asked: TargetSpec, ladder: tuple[int, ...]) -> list[BenchCase]:
    """What to compare: a pinned plan or fidelity alone, else planning and every fidelity."""
    if asked.plan is not None:
        return [BenchCase("pinned", asked)]
    if asked.fidelity is not None:
        return [BenchCase(f"{asked.fidelity} bits", asked)]
    uniform = [
        BenchCase(
            f"{bits} bits", TargetSpec(memory=asked.memory, preload=asked.preload, fidelity=bits)
        )
        for bits in ladder
    ]
    return [BenchCase("planned", asked), *uniform]


def _tables(rows: list[dict[str, Any]]) -> str:
    """The tables of a report in Markdown, and how to read them."""
    below = [_roofline_row(row) for row in rows if row["kind"] == "warm"]
    return (
        "\n" + markdown(HEADER, [_row(row) for row in rows]) + "\n"
        "storage, decode, compute: work on all threads together. ideal: what it would take if no "
        "thread waited. cold: a fresh process, from opening the pack to the first answer. growth: "
        "of the process's memory since it started.\n"
        "\n" + markdown(ROOFLINE, below) + "\n"
        "roofline: the same work at the best rates of this machine, each kind alone on one thread; "
        "of the run: on its threads, if none waited. share: of the roofline's speed, what was "
        "reached while the other threads were at work.\n"
    )


def _row(figures: dict[str, Any]) -> list[str]:
    ratio = "-"
    if figures["kind"] != "sequential" and figures["ideal_ms"]:
        ratio = f"{figures['run_ms'] / figures['ideal_ms']:.2f}"
    return [
        figures["case"],
        figures["kind"],
        *(figure(figures[name]) for name in ("total_ms", "p95_ms", "open_ms")),
        *(figure(figures["busy_ms"][lane]) for lane in LANES),
        *(figure(figures[name]) for name in ("stall_ms", "ideal_ms")),
        ratio,
        *(megabytes(figures[name]) for name in ("bytes_read", "peak_bytes", "growth_bytes")),
    ]


def _roofline_row(figures: dict[str, Any]) -> list[str]:
    cells = [figures["case"]]
    for lane in LANES:
        least, took = figures["roofline_ms"][lane], figures["busy_ms"][lane]
        cells += [f"{least:.1f}", f"{least / took:.0%}" if took else "-"]
    least = figures["roofline_run_ms"]
    return [*cells, f"{least:.1f}", f"{least / figures['run_ms']:.0%}"]
