"""The pipeline against its limits: end to end over its ideal, page cache bypassed.

    python -m benchmarks.streaming PACK

PACK is a pack of a model of BERT-base's shape (`base_model`, then `sti-shard build`). Every
fidelity is uniform; every run reads from storage whatever the preload buffer does not hold.
Planned and sequential runs take turns, and their answers must be equal to the bit.

Storage, decode and compute are the times of each kind of work in that run, on all of its threads
together, from its trace. Ideal is what they would have taken had no thread waited
(`LaneThreads.ideal_s`); the ideal schedule is what the run's own step times would have taken had
nothing been lost between them (`ideal`). Threads that work side by side slow each other (memory,
shared cores), so times of a planned run are larger than those of a sequential one, where each
kind of work has the machine for itself; the ratio to the ideal of the latter is printed as well.
Compute includes tokenizing, embedding and the head. Decoding's share of processor time is that of
what is decoded and computed: reads wait.
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
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE, LaneThreads, by_work
from sti.engine.engine import Engine
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode
from sti.planning.plan import Plan
from sti.storage.file_reader import FileReader

RATIO_LIMIT = 1.04
"""End to end over the ideal schedule, from 8 to 512 tokens."""
DECODE_LIMIT = 0.10
"""Decoding's share of processor time."""
_LIMITED_BITS, _LIMITED_TOKENS, _DECODE_TOKENS = 4, (8, 512), 128
"""What the limits are for."""
_WARM_UPS = 3
_PRELOAD_WAIT_S = 10.0

_CASE = (Column("bits"), Column("tokens"))
_PLANNED = (
    *_CASE,
    Column("end to end ms", ".1f"),
    Column("p95", ".1f"),
    Column("storage", ".1f"),
    Column("decode", ".1f"),
    Column("compute", ".1f"),
    Column("end to end / ideal", ".3f"),
    Column("end to end / ideal schedule", ".3f"),
    Column("decode share", ".3f"),
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
    Column("planned / ideal, each alone", ".3f"),
    Column("gain of lanes", ".2f"),
)
_ROOFLINE = (
    *_CASE,
    Column("storage ms", ".1f"),
    Column("decode ms", ".1f"),
    Column("compute ms", ".1f"),
    Column("run ms", ".1f"),
    Column("end to end / run", ".2f"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, in seconds."""

    total_s: float
    threads: LaneThreads
    work_s: dict[str, float]
    """Of each kind of work, on all threads together."""
    stall_s: float
    bytes_read: int
    schedule: Ideal
    """Of the same run's step times."""

    @property
    def ideal_s(self) -> float:
        """What the same work would have taken had no thread waited."""
        return self.threads.ideal_s(self.work_s)

    @property
    def over_schedule(self) -> float:
        """End to end over the ideal schedule."""
        return self.total_s / self.schedule.limited_s

    @property
    def decode_share(self) -> float:
        """Of processor time, what decoding takes."""
        return self.work_s[DECODE] / (self.work_s[DECODE] + self.work_s[COMPUTE])


@dataclass(frozen=True, slots=True)
class Case:
    """The runs of one fidelity and length."""

    bits: int
    tokens: int
    planned: list[Sample]
    sequential: list[Sample]
    plan: Plan


def sample(engine: Engine, texts: Sequence[str], mode: Mode) -> tuple[Sample, NDArray[np.float32]]:
    """One run and its answer."""
    start = perf_counter()
    result = engine.run(texts, mode=mode)
    total = perf_counter() - start
    trace = result.trace
    found = Sample(
        total_s=total,
        threads=trace.threads,
        work_s=by_work(trace.busy_s),
        stall_s=trace.stall_s(),
        bytes_read=result.bytes_read,
        schedule=ideal(result.plan, trace),
    )
    return found, result.embeddings


def run_case(engine: Engine, text: str, bits: int, tokens: int, repeats: int, preload: str) -> Case:
    """Interleaved planned and sequential runs at one fidelity.

    Raises:
        RuntimeError: two runs gave different answers.
    """
    engine.set_target(fidelity=bits, preload=preload)
    _, expected = sample(engine, [text], "sequential")
    for _ in range(_WARM_UPS):
        engine.preloaded(_PRELOAD_WAIT_S)
        sample(engine, [text], "planned")
    samples: dict[Mode, list[Sample]] = {"planned": [], "sequential": []}
    for _ in range(repeats):
        for mode, kept in samples.items():
            taken, answer = sample(engine, [text], mode)
            if answer.tobytes() != expected.tobytes():
                raise RuntimeError(f"{bits} bits, {tokens} tokens: a {mode} run differs")
            kept.append(taken)
    plan = engine.plan_for(tokens=tokens)
    return Case(bits, tokens, samples["planned"], samples["sequential"], plan)


def _work_ms(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(median([s.work_s[work] * 1e3 for s in samples]) for work in LANES)


def planned_table(cases: Sequence[Case]) -> Table:
    """Runs as planned; times of work are of the same runs."""
    table = Table("As planned: medians, times of work in the same run", _PLANNED)
    for case in cases:
        runs = case.planned
        totals = [s.total_s * 1e3 for s in runs]
        predicted = case.plan.predicted
        bytes_read = median([float(s.bytes_read) for s in runs])
        table.rows.append(
            (
                case.bits,
                case.tokens,
                median(totals),
                p95(totals),
                *_work_ms(runs),
                median([s.total_s / s.ideal_s for s in runs]),
                median([s.over_schedule for s in runs]),
                median([s.decode_share for s in runs]),
                median([s.stall_s * 1e3 for s in runs]),
                None if predicted is None else predicted.total_s * 1e3,
                bytes_read / 1e6,
                median([s.bytes_read / s.work_s[STORAGE] / 1e9 for s in runs]),
            )
        )
    return table


def alone_table(cases: Sequence[Case]) -> Table:
    """Sequential runs, in which each kind of work has the machine for itself."""
    table = Table("Sequential: medians, each kind of work alone on the machine", _ALONE)
    for case in cases:
        total = median([s.total_s for s in case.sequential])
        planned = median([s.total_s for s in case.planned])
        threads = case.planned[0].threads
        best = median([threads.ideal_s(s.work_s) for s in case.sequential])
        table.rows.append(
            (
                case.bits,
                case.tokens,
                total * 1e3,
                *_work_ms(case.sequential),
                planned / best,
                total / planned,
            )
        )
    return table


def roof_table(cases: Sequence[Case], roofline: Roofline, manifest: Manifest) -> Table:
    """What each kind of work, and the run, would take at this machine's best rates."""
    table = Table("Roofline: what the same work takes at this machine's best rates", _ROOFLINE)
    for case in cases:
        bytes_read = round(median([float(s.bytes_read) for s in case.planned]))
        least = roofline.seconds(case.plan, manifest, bytes_read)
        run_s = case.planned[0].threads.ideal_s(least)
        total = median([s.total_s for s in case.planned])
        floors = (least[work] * 1e3 for work in LANES)
        table.rows.append((case.bits, case.tokens, *floors, run_s * 1e3, total / run_s))
    return table


def limit_table(cases: Sequence[Case]) -> Table:
    """The limits, where their cases were run."""
    table = Table("Limits", common.LIMITS)
    least, most = _LIMITED_TOKENS
    for case in cases:
        if case.bits != _LIMITED_BITS:
            continue
        where = f"{case.bits} bits, {case.tokens} tokens"
        if least <= case.tokens <= most:
            ratio = median([s.over_schedule for s in case.planned])
            name = f"end to end / ideal schedule, {where}"
            table.rows.append(common.at_most(name, ratio, RATIO_LIMIT))
        if case.tokens == _DECODE_TOKENS:
            share = median([s.decode_share for s in case.planned])
            name = f"decoding's share of processor time, {where}"
            table.rows.append(common.at_most(name, share, DECODE_LIMIT))
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
        _ = engine.profile  # from here on, plans carry a prediction
        cases = [
            run_case(engine, texts[count], number, count, repeats, preload)
            for count in tokens
            for number in bits
        ]
        about.append(
            f"{pack.name}, uniform fidelities, preload {preload}; {engine.threads} compute "
            f"threads; {repeats} runs of each, interleaved"
        )
        about.append(
            "weights are read past the page cache (O_DIRECT)"
            if engine.direct
            else "direct reads are refused here: read through the page cache, dropped after use"
        )
        with FileReader(pack) as storage:
            roofline = measure_roofline(engine.reader, storage)
        tables = [
            limit_table(cases),
            planned_table(cases),
            alone_table(cases),
            roof_table(cases, roofline, engine.manifest),
        ]
    report = Report("Streaming", about, [table for table in tables if table.rows])
    report.notes += [
        "planned and sequential answers were equal to the bit in every run",
        f"roofline: {roofline}; attention's own are not counted; a run's: on its threads, if none "
        "waited",
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
