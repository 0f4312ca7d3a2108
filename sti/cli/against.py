"""``sti bench --against``: this pack compared with whole ONNX models, cold and warm, in one run.

In: parsed arguments. Out: a report as Markdown, CSV or JSON. Every system answers the same texts in
processes of its own, and they take turns. The pack runs as planned and sequentially; each model
runs with the same number of compute threads, and with ONNX Runtime's default.
"""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sti.benchmark.comparison import IN_A_ROW, compare, try_system
from sti.benchmark.comparison_rows import HEADER, OURS, cells_of, nothing_to_compare_with, rows_of
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.calibration.calibrate import best_threads
from sti.calibration.sample_texts import SampleTexts
from sti.cli.arguments import FORMATS, workload_tokens
from sti.cli.opening import target_of
from sti.cli.program import notice, tell_failure
from sti.cli.reports import deliver, destinations
from sti.device import host
from sti.device.host import check_threads
from sti.device.identity import machine_line
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.errors import InputError, RunError
from sti.pack.pack_reader import PackReader
from sti.report.json_document import error_members
from sti.report.tables import markdown, rows_report
from sti.report.terminal import redraw
from sti.report.wording import counted, describe_plan, software
from sti.units import format_size


def execute(args: argparse.Namespace) -> int:
    """Measure the pack beside the models of ``--against``.

    Raises:
        InputError: options that exclude one another, or a model that cannot answer; nothing has
            been measured then.
    """
    models, asked = [Path(name) for name in args.against], target_of(args)
    if args.storage is not None or asked.plan is not None:
        raise InputError(
            "--against measures on the pack's own storage and plans for itself: leave out "
            "--storage, --plan, and targets with a plan"
        )
    for model in models:
        if not model.is_file():
            raise InputError(f"{model}: there is no such model; --against takes ONNX files")
    wanted = destinations(args, FORMATS)
    with PackReader.open_whole(args.pack) as reader:
        tokens = workload_tokens(args.tokens, reader.manifest)
        spec = _spec(reader, args, tokens)
    systems = systems_of(Path(args.pack), spec, asked, models)
    _try(models, systems)
    facts = _prepare(args, asked, spec, tokens)
    found = compare(systems, cold=args.cold_repeat, warm=args.repeat, progress=_progress)
    _progress("")
    rows, failure = rows_of(found), nothing_to_compare_with(found)
    document: dict[str, Any] = dict(facts)
    if failure is not None:
        document |= error_members(failure, str(failure), failure.exit_code)
    deliver(wanted, lambda form: rows_report(form, document, rows, lambda: _table(rows)))
    return tell_failure(failure, "sti bench")


def _prepare(
    args: argparse.Namespace, asked: TargetSpec, spec: Spec, tokens: int
) -> dict[str, str]:
    """Measure the device now instead of in a cold start; the facts of the report."""
    pack = Path(args.pack)
    with Engine.open(pack, asked, threads=spec.threads, notify=notice) as engine:
        if asked.fidelity is None:
            _ = engine.profile
        plan = engine.plan_for(tokens=tokens, batch=args.batch)
        facts = {
            "machine": machine_line(),
            "software": software(),
            "pack": f"{engine.manifest.name} ({format_size(engine.reader.file_bytes)})",
            "workload": f"{args.batch} x {counted(tokens, 'token')}; "
            f"{counted(args.cold_repeat, 'cold start')} and "
            f"{counted(args.repeat, 'warm turn')} of each system",
            "plan": describe_plan(plan),
        }
    if asked.fidelity is None and spec.threads != host.core_count():
        latency, every = TargetSpec(latency=asked.latency), host.core_count()
        with Engine.open(pack, latency, threads=every, notify=notice) as engine:
            _ = engine.profile  # that of all cores as well
    return facts


def _spec(reader: PackReader, args: argparse.Namespace, tokens: int) -> Spec:
    """What every system is to answer, and the compute threads of the pack."""
    check_threads(args.threads)
    samples = SampleTexts(reader)
    texts = samples.texts(args.batch, tokens)
    ids = tuple(tuple(map(int, samples.tokenizer.encode(text).ids)) for text in texts)
    return Spec(str(args.pack), tuple(texts), ids, args.threads or best_threads(reader))


def _try(models: Sequence[Path], systems: Sequence[System]) -> None:
    """Let every model answer once before anything is measured."""
    for model in models:
        system = next(item for item in systems if item.spec.file == str(model))
        _progress(f"trying {model}")
        try:
            try_system(system)
        except RunError as error:
            raise InputError(
                f"--against {model}: it cannot be run beside the pack: {error}"
            ) from error
        finally:
            _progress("")


def systems_of(pack: Path, spec: Spec, asked: TargetSpec, models: Sequence[Path]) -> list[System]:
    """The systems: the pack first, then each model.

    Args:
        spec: the texts, and the compute threads of the pack.
        asked: the target of the pack.
    """
    options = {
        "latency": asked.latency,
        "memory": asked.memory,
        "preload": asked.preload,
        "fidelity": asked.fidelity,
    }
    every = host.core_count()
    ours = [
        System(OURS, "sti.benchmark.systems.sti_pack", replace(spec, options=options), (pack,)),
        System(
            f"{OURS}, all cores",
            "sti.benchmark.systems.sti_pack",
            replace(spec, options=options, threads=every),
            (pack,),
        ),
        System(
            f"{OURS}, load then execute",
            "sti.benchmark.systems.sti_pack",
            replace(spec, options={**options, "mode": "sequential"}),
            (pack,),
        ),
    ]
    theirs = []
    for model in models:
        beside = sorted(path for path in model.parent.glob(f"{glob.escape(model.name)}*data*"))
        alone = sum(other.name == model.name for other in models) == 1
        called = model.name if alone else str(model)
        for name, threads in ((called, spec.threads), (f"{called}, all cores", None)):
            given = replace(spec, file=str(model), threads=threads)
            theirs.append(System(name, "sti.benchmark.systems.onnx_model", given, (model, *beside)))
    if spec.threads == every:
        del ours[1]  # the same as the first
    return ours + theirs


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a report in Markdown, how to read it, and which systems have no figures."""
    cells = [cells_of(row) for row in rows if not row["failed"]]
    failed = [f"no figures: {row['failed']}\n" for row in rows if row["failed"]]
    return (
        "\n" + markdown(HEADER, cells) + "\n"
        "cold: a fresh process, the model not in the page cache, from opening it to the first "
        f"answer. warm: {IN_A_ROW} answers in a row; the one before them, after a wait, counts "
        "apart. growth: of resident memory since opening began. cosine: to the first model's "
        "answers.\n" + "".join(failed)
    )


def _progress(what: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        redraw(what)
