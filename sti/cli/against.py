"""``sti bench --against``: this pack beside whole ONNX models, cold and warm, in one run.

In: parsed arguments. Out: a table, CSV or JSON. Every system answers the same texts, in processes
of its own, in turns; the pack as it was asked for and one lane after the other, each model with the
same number of compute threads and with as many as ONNX Runtime takes.
"""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sti.benchmark.comparison import IN_A_ROW, Figures, System, compare
from sti.benchmark.comparison_rows import HEADER, OURS, cells_of, rows_of
from sti.benchmark.system_process import Spec
from sti.calibration.sample_texts import SampleTexts
from sti.cli.opening import show_notice, target_of
from sti.device import host
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.errors import InputError
from sti.report.measured import print_rows, software
from sti.report.tables import markdown
from sti.report.wording import describe_plan, workload_tokens
from sti.units import format_size


def execute(args: argparse.Namespace) -> None:
    """Measure the pack beside the models of ``--against``."""
    if args.storage is not None or args.plan is not None:
        raise InputError(
            "--against measures on the pack's own storage, without --storage or --plan"
        )
    models = [Path(name) for name in args.against]
    for model in models:
        if not model.is_file():
            raise InputError(f"{model}: there is no such model; --against takes ONNX files")
    asked = target_of(args)
    if asked.plan is not None:
        raise InputError("--against plans for itself; give a target without a plan")
    pack = Path(args.pack)
    with Engine.open(pack, asked, threads=args.threads, notify=show_notice) as engine:
        tokens = workload_tokens(args.tokens, engine.manifest)
        samples = SampleTexts(engine.reader)
        texts = samples.texts(args.batch, tokens)
        ids = [samples.tokenizer.encode(text).ids for text in texts]
        if asked.fidelity is None:
            _ = engine.profile  # measured now, not in a cold start
        plan = engine.plan_for(tokens=tokens, batch=args.batch)
        spec = Spec(
            str(pack), tuple(texts), tuple(tuple(map(int, row)) for row in ids), engine.threads
        )
        facts = {
            "machine": host.describe(),
            "software": software(),
            "pack": f"{engine.manifest.name} ({format_size(pack.stat().st_size)})",
            "workload": f"{args.batch} x {tokens} tokens; {args.cold_repeat} cold starts and "
            f"{args.repeat} warm turns of each system",
            OURS: describe_plan(plan),
        }
    if asked.fidelity is None and spec.threads != host.core_count():
        latency = TargetSpec(latency=asked.latency)
        every = host.core_count()
        with Engine.open(pack, latency, threads=every, notify=show_notice) as engine:
            _ = engine.profile  # that of all cores, as well
    found = compare(
        systems_of(pack, spec, asked, models),
        cold=args.cold_repeat,
        warm=args.repeat,
        progress=_progress,
    )
    _progress("")
    _print(facts, found, "json" if args.json else args.output)


def systems_of(pack: Path, spec: Spec, asked: TargetSpec, models: Sequence[Path]) -> list[System]:
    """The systems: the pack first, then each model.

    Args:
        spec: the texts, and the compute threads of the pack.
        asked: the target of the pack.
    """
    options = {
        "latency": asked.latency,
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


def _print(facts: dict[str, str], found: Sequence[Figures], form: str) -> None:
    rows = rows_of(found)
    if not print_rows(facts, rows, form):
        return
    print("\n" + markdown(HEADER, [cells_of(row) for row in rows if not row["failed"]]), end="")
    print(
        "\ncold: a fresh process, the model not in the page cache, opening and the first answer. "
        f"warm: {IN_A_ROW} answers in a row, after one that counts as after a wait. "
        "growth: of resident memory since opening began. cosine: to the first model's answers."
    )
    for row in rows:
        if row["failed"]:
            print(f"no figures: {row['failed']}")


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
