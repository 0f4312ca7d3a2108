"""The pipeline against its limit: end to end over the busiest lane, page cache bypassed.

    python -m tests.benchmarks.streaming PACK

PACK is a pack of a model of BERT-base's shape (`base_model`, then `sti-shard build`). Every
fidelity is uniform; every run reads from storage whatever the preload buffer does not hold.
Pipelined and sequential runs take turns, and their answers must be equal to the bit.

A lane's sum is the time in which it worked during that run, from the run's own trace. Lanes that
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
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sti.engine import Engine
from sti.errors import StiError
from sti.pack import PackReader
from sti.runner import Mode
from sti.storage import FileReader
from tests.benchmarks import common
from tests.benchmarks.common import Column, Report, Table, median, p95

RATIO_LIMIT = 1.10
_LIMITED = (4, 128)
"""Bits and tokens the limit is for."""
_LANES = ("storage", "decode", "compute")
_WARM_UPS = 3
_PRELOAD_WAIT_S = 10.0
_PEAK_ROWS, _PEAK_REPEATS = 512, 10

_CASE = (Column("bits"), Column("tokens"))
_PIPELINED = (
    *_CASE,
    Column("end to end ms", ".1f"),
    Column("p95", ".1f"),
    Column("storage", ".1f"),
    Column("decode", ".1f"),
    Column("compute", ".1f"),
    Column("end to end / largest lane", ".3f"),
    Column("p95 of it", ".3f"),
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
_CEILINGS = (
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
    predicted_s: float | None
    weights: int
    """Weights that are decoded and multiplied in a run."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this machine reaches when it does one thing only."""

    read_bytes_per_s: float
    copy_s: float
    """Seconds a weight, for a plain copy of int8."""
    ops_per_s: float
    """Of an int8 product with constant weights; a multiplication and an addition are two."""


def sample(engine: Engine, text: str, mode: Mode) -> tuple[Sample, NDArray[np.float32]]:
    """One run and its answer."""
    start = perf_counter()
    result = engine.run([text], mode=mode)
    total = perf_counter() - start
    assert result.embeddings is not None
    lanes = {lane: result.trace.busy_s(lane) for lane in _LANES}
    return Sample(total, lanes, result.trace.stall_s(), result.bytes_read), result.embeddings


def run_case(engine: Engine, text: str, bits: int, tokens: int, repeats: int, preload: str) -> Case:
    """Interleaved pipelined and sequential runs at one fidelity.

    Raises:
        RuntimeError: two runs gave different answers.
    """
    engine.set_target(fidelity=bits, preload=preload)
    _, expected = sample(engine, text, "sequential")
    for _ in range(_WARM_UPS):
        engine.preloaded(_PRELOAD_WAIT_S)
        sample(engine, text, "pipelined")
    samples: dict[Mode, list[Sample]] = {"pipelined": [], "sequential": []}
    for _ in range(repeats):
        for mode, kept in samples.items():
            taken, answer = sample(engine, text, mode)
            if answer.tobytes() != expected.tobytes():
                raise RuntimeError(f"{bits} bits, {tokens} tokens: a {mode} run differs")
            kept.append(taken)
    plan = engine.plan_for(tokens=tokens)
    shard = {(b.layer, b.kind): b.shard_weights for b in engine.manifest.blocks}
    weights = sum(shard[block.layer, block.kind] * block.counts[0] for block in plan.blocks)
    predicted = None if plan.predicted is None else plan.predicted.total_s
    return Case(bits, tokens, samples["pipelined"], samples["sequential"], predicted, weights)


def measure_ceilings(pack: Path, *, hidden: int, threads: int) -> Ceilings:
    """Storage, copying and products, each alone and at its best."""
    with FileReader(pack) as reader:
        rate = common.read_rate(reader, pack.stat().st_size)
    source = np.ones(1 << 20, dtype=np.int8)
    target = np.empty_like(source)
    copying = _least(lambda: np.copyto(target, source))
    product = _product_session(hidden, threads)
    activations = {"a": np.ones((_PEAK_ROWS, hidden), dtype=np.uint8)}
    computing = _least(lambda: product.run(None, activations))
    operations = 2 * _PEAK_ROWS * hidden * 4 * hidden
    return Ceilings(rate, copying / source.size, operations / computing)


def _least(work: object) -> float:
    assert callable(work)
    found = []
    for _ in range(_PEAK_REPEATS):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    return min(found)


def _product_session(hidden: int, threads: int) -> ort.InferenceSession:
    """One product of u8 by constant, prepacked s8 of an FFN's size."""
    weights = np.random.default_rng(0).integers(-127, 128, (hidden, 4 * hidden)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [None, hidden])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [None, 4 * hidden])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _lane_ms(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(median([s.lanes[lane] * 1e3 for s in samples]) for lane in _LANES)


def pipelined_table(cases: Sequence[Case]) -> Table:
    """Pipelined runs; lane sums are of the same runs."""
    table = Table("Pipelined: medians, lane sums in the same run", _PIPELINED)
    for case in cases:
        runs = case.pipelined
        totals, ratios = [s.total_s * 1e3 for s in runs], [s.total_s / s.largest_s for s in runs]
        bytes_read = median([float(s.bytes_read) for s in runs])
        table.rows.append(
            (
                case.bits,
                case.tokens,
                median(totals),
                p95(totals),
                *_lane_ms(runs),
                median(ratios),
                p95(ratios),
                median([s.stall_s * 1e3 for s in runs]),
                None if case.predicted_s is None else case.predicted_s * 1e3,
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


def ceiling_table(cases: Sequence[Case], ceilings: Ceilings) -> Table:
    """What each lane would take at this machine's best rates."""
    table = Table("Ceilings: what the same work takes at this machine's best rates", _CEILINGS)
    for case in cases:
        bytes_read = median([float(s.bytes_read) for s in case.pipelined])
        floors = (
            bytes_read / ceilings.read_bytes_per_s * 1e3,
            case.weights * ceilings.copy_s * 1e3,
            2 * case.weights * case.tokens / ceilings.ops_per_s * 1e3,
        )
        total = median([s.total_s * 1e3 for s in case.pipelined])
        table.rows.append((case.bits, case.tokens, *floors, max(floors), total / max(floors)))
    return table


def limit_table(cases: Sequence[Case]) -> Table:
    """The limit, where its case was run."""
    table = Table("Limit", common.LIMITS)
    for case in cases:
        if (case.bits, case.tokens) == _LIMITED:
            ratio = median([s.total_s / s.largest_s for s in case.pipelined])
            name = f"end to end / largest lane, {case.bits} bits, {case.tokens} tokens"
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
            "blocks are read past the page cache (O_DIRECT)"
            if engine.direct
            else "direct reads are refused here: read through the page cache, dropped after use"
        )
        hidden, compute_threads = engine.manifest.dimensions.hidden, engine.threads
    ceilings = measure_ceilings(pack, hidden=hidden, threads=compute_threads)
    tables = [
        limit_table(cases),
        pipelined_table(cases),
        alone_table(cases),
        ceiling_table(cases, ceilings),
    ]
    report = Report("Streaming", about, [table for table in tables if table.rows])
    report.notes += [
        "pipelined and sequential answers were equal to the bit in every run",
        f"ceilings: reads {ceilings.read_bytes_per_s / 1e9:.2f} GB/s in requests of 1 MiB; copy "
        f"of int8 {ceilings.copy_s * 1e9:.3f} ns a weight; int8 products "
        f"{ceilings.ops_per_s / 1e9:.0f} G operations/s ({_PEAK_ROWS} rows, constant weights, "
        f"{compute_threads} threads); attention's own products are not counted",
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
    try:
        report = measure(
            options.pack,
            bits=options.bits,
            tokens=options.tokens,
            preload=options.preload,
            threads=options.threads,
            repeats=options.repeats,
        )
    except (OSError, RuntimeError, StiError) as error:
        parser.error(str(error))
    report.print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
