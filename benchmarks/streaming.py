"""The pipeline against its limit: end to end over the busiest lane, page cache bypassed.

    python -m benchmarks.streaming PACK

PACK is a pack of a model of BERT-base's shape (`base_model`, then `sti-shard build`). Every
fidelity is uniform; every run reads from storage whatever the preload buffer does not hold.
Pipelined and sequential runs take turns, and their answers must be equal to the bit.

Ideal is what the run's own step times would have taken had nothing been lost between them
(`ideal`). A lane's sum is the time in which it worked during that run, from its trace. Lanes that
work side by side slow each other (memory, shared cores), so sums of a pipelined run are larger
than those of a sequential one, where each lane has the machine for itself; the ratio to the
latter is printed as well. The compute lane includes tokenizing, embedding and the head.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.common import Column, Report, Table, median, p95
from benchmarks.ideal import Ideal, ideal
from sti.benchmark.roofline import Roofline, measure_roofline
from sti.device.lanes import LANES
from sti.engine.engine import Engine
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode
from sti.planning.plan import Plan
from sti.storage.file_reader import FileReader

RATIO_LIMIT = 1.05
_LIMITED = (4, 128)
"""Bits and tokens the limit is for."""
_WARM_UPS = 3
_PRELOAD_WAIT_S = 10.0

_CASE = (Column("bits"), Column("tokens"))
_PIPELINED = (
    *_CASE,
    Column("end to end ms", ".1f"),
    Column("p95", ".1f"),
    Column("storage", ".1f"),
    Column("decode", ".1f"),
    Column("compute", ".1f"),
    Column("end to end / largest lane", ".3f"),
    Column("end to end / ideal", ".3f"),
    Column("stall", ".1f"),
    Column("predicted", ".1f"),
    Column("MB read", ".1f"),
    Column("GB/s", ".2f"),
)
_ALONE = (
    *_CASE,
    Column("end to end ms", ".1f"),
    Column("storage", ".1f"),
    Column("decode", ".1f"),
    Column("compute", ".1f"),
    Column("pipelined / largest lane alone", ".3f"),
    Column("pipelining gains", ".2f"),
)
_ROOFLINE = (
    *_CASE,
    Column("storage ms", ".1f"),
    Column("decode ms", ".1f"),
    Column("compute ms", ".1f"),
    Column("largest", ".1f"),
    Column("end to end / largest", ".2f"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, in seconds; ``lanes`` by name."""

    total_s: float
    lanes: dict[str, float]
    stall_s: float
    bytes_read: int
    ideal: Ideal
    """Of the same run's step times."""

    @property
    def largest_s(self) -> float:
        """The sum of the busiest lane."""
        return max(self.lanes.values())


@dataclass(frozen=True, slots=True)
class Case:
    """The runs of one fidelity and length."""

    bits: int
    tokens: int
    pipelined: list[Sample]
    sequential: list[Sample]
    plan: Plan


def sample(engine: Engine, texts: Sequence[str], mode: Mode) -> tuple[Sample, NDArray[np.float32]]:
    """One run and its answer."""
    start = perf_counter()
    result = engine.run(texts, mode=mode)
    total = perf_counter() - start
    best = ideal(result.plan, engine.manifest, result.trace)
    found = Sample(total, result.trace.busy_s, result.trace.stall_s(), result.bytes_read, best)
    return found, result.embeddings


def run_case(engine: Engine, text: str, bits: int, tokens: int, repeats: int, preload: str) -> Case:
    """Interleaved pipelined and sequential runs at one fidelity.

    Raises:
        RuntimeError: two runs gave different answers.
    """
    engine.set_target(fidelity=bits, preload=preload)
    _, expected = sample(engine, [text], "sequential")
    for _ in range(_WARM_UPS):
        engine.preloaded(_PRELOAD_WAIT_S)
        sample(engine, [text], "pipelined")
    samples: dict[Mode, list[Sample]] = {"pipelined": [], "sequential": []}
    for _ in range(repeats):
        for mode, kept in samples.items():
            taken, answer = sample(engine, [text], mode)
            if answer.tobytes() != expected.tobytes():
                raise RuntimeError(f"{bits} bits, {tokens} tokens: a {mode} run differs")
            kept.append(taken)
    plan = engine.plan_for(tokens=tokens)
    return Case(bits, tokens, samples["pipelined"], samples["sequential"], plan)


def _lane_ms(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(median([s.lanes[lane] * 1e3 for s in samples]) for lane in LANES)


def pipelined_table(cases: Sequence[Case]) -> Table:
    """Pipelined runs; lane sums are of the same runs."""
    table = Table("Pipelined: medians, lane sums in the same run", _PIPELINED)
    for case in cases:
        runs = case.pipelined
        totals, ratios = [s.total_s * 1e3 for s in runs], [s.total_s / s.largest_s for s in runs]
        predicted = case.plan.predicted
        bytes_read = median([float(s.bytes_read) for s in runs])
        table.rows.append(
            (
                case.bits,
                case.tokens,
                median(totals),
                p95(totals),
                *_lane_ms(runs),
                median(ratios),
                median([s.total_s / s.ideal.limited_s for s in runs]),
                median([s.stall_s * 1e3 for s in runs]),
                None if predicted is None else predicted.total_s * 1e3,
                bytes_read / 1e6,
                median([s.bytes_read / s.lanes["storage"] / 1e9 for s in runs]),
            )
        )
    return table


def alone_table(cases: Sequence[Case]) -> Table:
    """Sequential runs, in which every lane has the machine for itself."""
    table = Table("Sequential: medians, each lane alone on the machine", _ALONE)
    for case in cases:
        total = median([s.total_s for s in case.sequential])
        pipelined = median([s.total_s for s in case.pipelined])
        lanes = _lane_ms(case.sequential)
        table.rows.append(
            (
                case.bits,
                case.tokens,
                total * 1e3,
                *lanes,
                pipelined * 1e3 / max(lanes),
                total / pipelined,
            )
        )
    return table


def roof_table(cases: Sequence[Case], roofline: Roofline, manifest: Manifest) -> Table:
    """What each lane would take at this machine's best rates."""
    table = Table("Roofline: what the same work takes at this machine's best rates", _ROOFLINE)
    for case in cases:
        bytes_read = round(median([float(s.bytes_read) for s in case.pipelined]))
        floors = [s * 1e3 for s in roofline.seconds(case.plan, manifest, bytes_read).values()]
        total = median([s.total_s * 1e3 for s in case.pipelined])
        table.rows.append((case.bits, case.tokens, *floors, max(floors), total / max(floors)))
    return table


def limit_table(cases: Sequence[Case]) -> Table:
    """The limit, where its case was run."""
    table = Table("Limit", common.LIMITS)
    for case in cases:
        if (case.bits, case.tokens) == _LIMITED:
            ratio = median([s.total_s / s.ideal.limited_s for s in case.pipelined])
            name = f"end to end / ideal schedule, {case.bits} bits, {case.tokens} tokens"
            table.rows.append(common.at_most(name, ratio, RATIO_LIMIT))
    return table


def measure(
    pack: Path,
    *,
    bits: Sequence[int],
    tokens: Sequence[int],
    preload: str,
    threads: int | None,
    repeats: int,
) -> Report:
    """Every fidelity at every length."""
    about = common.about_machine()
    with PackReader.open(pack) as reader:
        texts = {count: common.text_of(reader, count)[0] for count in tokens}
    with Engine.open(pack, fidelity=bits[0], preload=preload, threads=threads) as engine:
        profile = engine.profile  # from here on, plans carry a prediction
        cases = [
            run_case(engine, texts[count], number, count, repeats, preload)
            for count in tokens
            for number in bits
        ]
        about.append(
            f"{pack.name}, uniform fidelities, preload {preload}; {engine.threads} compute "
            f"threads, {profile.decoders} decode threads; {repeats} runs of each, interleaved"
        )
        about.append(
            "weights are read past the page cache (O_DIRECT)"
            if engine.direct
            else "direct reads are refused here: read through the page cache, dropped after use"
        )
        with FileReader(pack) as storage:
            roofline = measure_roofline(engine.reader, storage, threads=engine.threads)
        tables = [
            limit_table(cases),
            pipelined_table(cases),
            alone_table(cases),
            roof_table(cases, roofline, engine.manifest),
        ]
    report = Report("Streaming", about, [table for table in tables if table.rows])
    report.notes += [
        "pipelined and sequential answers were equal to the bit in every run",
        f"roofline: reads {roofline.read_bytes / 1e9:.2f} GB/s, memory "
        f"{roofline.moved_bytes / 1e9:.1f} GB/s, {roofline.products / 1e9:.0f} G int8 products/s; "
        "attention's own are not counted",
    ]
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser(
        "streaming", __doc__, "bert-base.sti.safetensors --bits 4 2 --tokens 128 32"
    )
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument(
        "--bits", type=int, nargs="+", default=[4, 2, 3, 6, 8], help="default: 4 2 3 6 8"
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 32], help="default: 128 32")
    parser.add_argument("--preload", default="2MB", help="preload buffer; default: 2MB")
    parser.add_argument("--threads", type=int, help="compute threads; default: the engine's choice")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each; default: 20")
    options = parser.parse_args(arguments)
    return common.print_report(
        parser,
        options,
        lambda: measure(
            options.pack,
            bits=options.bits,
            tokens=options.tokens,
            preload=options.preload,
            threads=options.threads,
            repeats=options.repeats,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
