"""How cost grows: time against depth, width, tokens, batch, fidelity and storage; memory by depth.

    python -m benchmarks.growth WORK [--plots DIR] [--axes one,devices,links]

WORK receives packs of BERT-base's width with 12, 24 and 48 layers of random weights (2.5 GB free
while they are made, 0.7 GB after); packs that are there already are used again. Along each axis
warm engines take turns, all shards at one fidelity; every run reads from storage whatever the
preload buffer does not hold, past the page cache where the system allows it. Memory is that of a
fresh process for each depth.

Beside each time stands the ideal schedule of the same runs (`benchmarks.ideal`). Fits are
least squares of log time on log x. Slower storage is emulated (`sti.device.emulated_storage`);
rates beyond the disk's own cannot be, and are named. Compares nothing with other systems, and knows
nothing of quality: the packs vouch for narrow submodels only so that they can be timed.

That is the default, of one device. The axes ``devices`` and ``links`` are of several emulated ones
(`benchmarks.growth_devices`): they take network namespaces, and are skipped where there are none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import common, growth_fit, growth_plots
from benchmarks.base_model import Planting, Shape, write_checkpoint
from benchmarks.common import Report
from benchmarks.growth_fit import SENTENCE, Axis, Memory, Point, Throughput
from benchmarks.streaming import Sample, sample
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.repack import repack
from shard_tools.progress import Progress
from sti.benchmark.comparison import compare
from sti.benchmark.roofline import read_rate
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.calibration.sample_texts import SampleTexts
from sti.device import host
from sti.device.emulated_storage import SlowReader, parse_storage, with_storage
from sti.device.lanes import LANES
from sti.engine.engine import Engine
from sti.model.manifest import Submodel
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import usual_threads
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.uniform import uniform_plan
from sti.storage.atomic_file import write_file
from sti.storage.file_reader import FileReader
from sti.units import parse_size

PLOT = "growth.svg"
ONE = "one"
"""All axes of one device, of ``AXES``."""
AXES = (ONE, "devices", "links")
_BITS = 4
"""Fidelity of every axis but its own."""
_WARM_UPS, _PRELOAD_WAIT_S = 2, 10.0
_CHILD_RUNS, _CHILDREN = 6, 3
_REPEATS, _CHAIN_REPEATS = 15, 5


@dataclass(frozen=True, slots=True)
class Scale:
    """What is measured: x of every axis, rising, and what stays as it is along the others."""

    shape: Shape
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    tokens: tuple[int, ...]
    batches: tuple[int, ...]
    bits: tuple[int, ...]
    rates: tuple[float, ...]
    """GB/s."""
    usual_tokens: int
    preload: str


FULL = Scale(
    shape=Shape(layers=12, hidden=768, heads=12, inner=3072, vocabulary=4096),
    depths=(12, 24, 48),
    widths=(3, 6, 9, 12),
    tokens=(8, 16, 32, 64, 128, 256, 512),
    batches=(1, 2, 4, 8, 16, 32),
    bits=(2, 3, 4, 6, 8),
    rates=(0.05, 0.1, 0.3, 1.0, 2.0, 4.0),
    usual_tokens=128,
    preload="2MB",
)
QUICK = Scale(
    shape=Shape(layers=2, hidden=64, heads=4, inner=128, vocabulary=400, positions=64),
    depths=(2, 4),
    widths=(2, 4),
    tokens=(8, 16, 32),
    batches=(1, 4),
    bits=(2, 4, 8),
    rates=(0.01, 0.05, 1000.0),
    usual_tokens=16,
    preload="1KB",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One point to be measured."""

    x: float
    engine: Engine
    texts: Sequence[str]


def say(what: str) -> None:
    """Tell what is going on."""
    print(f"growth: {what}", file=sys.stderr, flush=True)


def make_pack(work: Path, shape: Shape, widths: Sequence[int]) -> Path:
    """The pack of a shape, built if it is not there yet; vouches for submodels of every width."""
    path = work / f"bert-{shape.hidden}x{shape.layers}.sti.safetensors"
    if path.exists():
        return path
    say(f"building {path.name}")
    with TemporaryDirectory(dir=work) as place:
        checkpoint, whole = Path(place) / "checkpoint", Path(place) / "whole.sti.safetensors"
        write_checkpoint(checkpoint, shape, Planting())
        build(checkpoint, whole, BuildOptions(name=path.name.partition(".")[0]))
        with PackReader.open(whole) as reader:
            full = reader.manifest.submodels[0]
            narrow = (width for width in reversed(widths) if width < full.width)
            submodels = (
                full,
                *(Submodel(full.depth, n, full.layers, 1.0 - n / full.width) for n in narrow),
            )
            repack(reader, path, reader.manifest._replace(submodels=submodels))
    return path


def measure_axis(name: str, unit: str, cases: Sequence[Case], repeats: int) -> Axis:
    """Medians of every case; they take turns."""
    say(f"{name}: {', '.join(f'{case.x:g}' for case in cases)} {unit}, {repeats} runs each")
    runs: list[list[Sample]] = [[] for _ in cases]
    with Progress(len(cases) * (repeats + _WARM_UPS)) as line:
        for turn in range(-_WARM_UPS, repeats):
            for case, kept in zip(cases, runs, strict=True):
                case.engine.preloaded(_PRELOAD_WAIT_S)
                found, _ = sample(case.engine, case.texts, "planned")
                if turn >= 0:
                    kept.append(found)
                line.step(1, f"{name}: {case.x:g} {unit}")
    points = (_point(case.x, kept) for case, kept in zip(cases, runs, strict=True))
    return Axis(name, unit, tuple(points))


def _point(x: float, runs: Sequence[Sample]) -> Point:
    def middle(figure: Callable[[Sample], float]) -> float:
        return float(median(map(figure, runs)))

    return Point(
        x=x,
        total_s=middle(lambda run: run.total_s),
        threads=runs[0].threads,
        work_s={work: float(median(run.work_s[work] for run in runs)) for work in LANES},
        schedule_s=middle(lambda run: run.schedule.limited_s),
        unlimited_s=middle(lambda run: run.schedule.unlimited_s),
        ratio=middle(lambda run: run.over_schedule),
        bytes_read=middle(lambda run: run.bytes_read),
    )


class Bench:
    """The axes, measured around one open engine: the base pack at the usual fidelity."""

    def __init__(self, base: Engine, packs: Sequence[Path], scale: Scale, repeats: int) -> None:
        self._base, self._packs, self._scale, self._repeats = base, packs, scale, repeats
        self._pack = base.reader.path
        self._samples = SampleTexts(base.reader)
        self._usual = self._samples.texts(1, scale.usual_tokens)

    def depth(self) -> Axis:
        """Packs of different depth."""
        return self._engines(
            "depth",
            "layers",
            [
                (depth, pack, {})
                for depth, pack in zip(self._scale.depths, self._packs, strict=True)
            ],
        )

    def width(self) -> Axis:
        """Submodels of all layers and some of the slices."""
        plans = [(width, self._pack, {"plan": self._plan(width)}) for width in self._scale.widths]
        return self._engines("width", "slices", plans)

    def tokens(self) -> Axis:
        """One sentence of different length."""
        texts = [(count, self._samples.texts(1, count)) for count in self._scale.tokens]
        cases = [Case(count, self._base, found) for count, found in texts]
        return measure_axis("length", "tokens", cases, self._repeats)

    def batch(self) -> Axis:
        """Different numbers of sentences at once."""
        return batch_axis(self._base, self._scale.batches, self._repeats)

    def bits(self) -> Axis:
        """The whole model at different fidelities."""
        fidelities = [(bits, self._pack, {"fidelity": bits}) for bits in self._scale.bits]
        return self._engines("fidelity", "bits", fidelities)

    def rates(self, rates: Sequence[float]) -> Axis:
        """Storage of different speed."""
        profile = self._base.profile
        with ExitStack() as stack:
            slow = []
            for rate in rates:
                device = parse_storage(f"{rate * 1e3:g}MB/s")
                reader = SlowReader(FileReader(self._pack), device)
                stack.callback(reader.close)  # an engine that cannot be opened closes nothing
                slower = with_storage(profile, device)
                slow.append((rate, self._pack, {"storage": reader, "profile": slower}))
            return self._engines("storage", "GB/s", slow)

    def _engines(
        self, name: str, unit: str, wanted: Sequence[tuple[float, Path, dict[str, Any]]]
    ) -> Axis:
        """An axis with an engine for each x, on the usual text."""
        with ExitStack() as stack:
            cases = []
            for x, pack, options in wanted:
                usual = {"fidelity": _BITS, "preload": self._scale.preload}
                asked = options if "plan" in options else usual | options
                engine = Engine.open(pack, threads=self._base.threads, **asked)
                cases.append(Case(x, stack.enter_context(engine), self._usual))
            return measure_axis(name, unit, cases, self._repeats)

    def _plan(self, width: int) -> Plan:
        return uniform_plan(
            PlanRequest(
                self._base.manifest,
                self._base.pack_id,
                Workload(1, self._scale.usual_tokens),
                Target(preload_bytes=parse_size(self._scale.preload)),
            ),
            bits=_BITS,
            threads=usual_threads(
                self._base.manifest,
                self._scale.usual_tokens,
                compute=self._base.threads,
                cores=host.core_count(),
                width=width,
            ),
            width=width,
        )

    def memory(self, children: int) -> list[Memory]:
        """Steady growth of fresh processes that answer the usual text; the median of a few."""
        options = {"fidelity": _BITS, "preload": self._scale.preload}
        systems = [
            System(
                f"{depth} layers",
                "sti.benchmark.systems.sti_pack",
                Spec(str(pack), tuple(self._usual), (), self._base.threads, options),
                files=(),
            )
            for depth, pack in zip(self._scale.depths, self._packs, strict=True)
        ]
        say(f"memory: {children} processes for each depth")
        rounds = [compare(systems, cold=0, warm=_CHILD_RUNS) for _ in range(children)]
        found = []
        for depth, pack, figures in zip(
            self._scale.depths, self._packs, zip(*rounds, strict=True), strict=True
        ):
            for item in figures:
                if item.failed:
                    raise RuntimeError(item.failed)
            sizes = [item.steady_bytes for item in figures if item.steady_bytes is not None]
            if sizes:
                found.append(Memory(depth, int(median(sizes)), pack.stat().st_size))
        return found


def batch_axis(engine: Engine, batches: Sequence[int], repeats: int) -> Axis:
    """Numbers of short sentences at once."""
    sentences = SampleTexts(engine.reader).texts(batches[-1], SENTENCE)
    cases = [Case(count, engine, sentences[:count]) for count in batches]
    return measure_axis("batch", "sentences", cases, repeats)


def throughput(pack: str, axis: Axis) -> Throughput:
    """From the first and the last point of a batch axis."""
    single, batch = axis.points[0], axis.points[-1]
    return Throughput(pack, int(batch.x), single.total_s, batch.total_s)


def measure(
    work: Path,
    scale: Scale,
    *,
    repeats: int,
    children: int,
    threads: int | None,
    minilm: Path | None,
) -> tuple[Report, list[Axis]]:
    """Every axis, as a report and as what is drawn."""
    about = common.about_machine()
    work.mkdir(parents=True, exist_ok=True)
    packs = [
        make_pack(work, replace(scale.shape, layers=depth), scale.widths) for depth in scale.depths
    ]
    base_pack = packs[scale.depths.index(scale.shape.layers)]
    with FileReader(base_pack) as reader:
        disk = read_rate(reader, base_pack.stat().st_size) / 1e9
    rates = [rate for rate in scale.rates if rate <= disk]
    with Engine.open(base_pack, fidelity=_BITS, preload=scale.preload, threads=threads) as base:
        bench = Bench(base, packs, scale, repeats)
        batch = bench.batch()
        axes = [bench.depth(), bench.width(), bench.tokens(), batch, bench.bits()]
        if rates:
            axes.append(bench.rates(rates))
        memory = bench.memory(children)
        batches = [throughput(base.manifest.name, batch)]
        about.append(
            f"hidden {scale.shape.hidden}, {scale.shape.heads} heads, inner {scale.shape.inner}; "
            f"{_BITS} bits, {scale.shape.layers} layers, {scale.usual_tokens} tokens but where an "
            f"axis says otherwise; preload {scale.preload}, {base.threads} compute threads; "
            f"{repeats} runs of each point, in turns"
        )
        read = "past the page cache" if base.direct else "through the page cache, dropped after use"
        about.append(
            f"weights are read {read}; the disk reads {disk:.2f} GB/s in requests of 1 MiB"
        )
        chosen = base.threads
    if minilm is not None:
        ends = (scale.batches[0], scale.batches[-1])
        with Engine.open(minilm, fidelity=_BITS, preload=scale.preload, threads=chosen) as engine:
            found = batch_axis(engine, ends, repeats)
            batches.append(throughput(engine.manifest.name, found))
    tables = [
        growth_fit.limit_table(axes, memory, batches),
        *(growth_fit.axis_table(axis) for axis in axes),
        growth_fit.memory_table(memory),
        growth_fit.throughput_table(batches),
        growth_fit.fit_table(axes),
    ]
    notes = [
        "storage, decode and compute are the times of each kind of work during the run, on all "
        "threads together; where threads share the steps, decode and compute limit together",
        f"batches are of sentences of {SENTENCE} tokens",
    ]
    beyond = [f"{rate:g}" for rate in scale.rates if rate > disk]
    if beyond:
        notes.append(f"beyond this disk, so not emulated: {', '.join(beyond)} GB/s")
    return Report("Growth", about, tables, notes), axes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("growth", __doc__, "/tmp/growth --plots docs")
    parser.add_argument("work", type=Path, metavar="WORK", help="directory of the packs")
    common.add_rows(parser, AXES, option="--axes", usual=(ONE,))
    parser.add_argument("--plots", type=Path, metavar="DIR", help=f"write {PLOT} there")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: figures mean nothing")
    parser.add_argument("--minilm", type=Path, metavar="PACK", help="also its batch throughput")
    parser.add_argument("--threads", type=int, help="compute threads; default: the engine's choice")
    parser.add_argument(
        "--repeats",
        type=common.positive,
        help=f"runs of each point; default: {_REPEATS}, with several devices {_CHAIN_REPEATS}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the report, as JSON too")
    options = parser.parse_args(arguments)

    def measured() -> Report:
        report = Report("Growth", common.about_machine())
        if ONE in options.axes:
            report = _one_device(options)
        several = [axis for axis in AXES[1:] if axis in options.axes]
        if several:
            _several_devices(options, report, several)
        if options.json is not None:
            write_file(str(options.json), json.dumps(report.to_json(), indent=1) + "\n")
        return report

    return common.print_report(parser, options, measured)


def _one_device(options: Any) -> Report:
    """All axes of one device, drawn where that is asked for."""
    report, axes = measure(
        options.work,
        QUICK if options.quick else FULL,
        repeats=_repeats(options, _REPEATS),
        children=1 if options.quick else _CHILDREN,
        threads=options.threads,
        minilm=options.minilm,
    )
    if options.plots is not None:
        options.plots.mkdir(parents=True, exist_ok=True)
        drawn = growth_plots.as_svg(axes)
        write_file(str(options.plots / PLOT), drawn)
        say(f"wrote {options.plots / PLOT}")
    return report


def _several_devices(options: Any, report: Report, axes: Sequence[str]) -> None:
    """Axes of several devices, added to a report."""
    try:
        from benchmarks import growth_devices, growth_devices_scale  # take what carries messages
    except ModuleNotFoundError as error:
        report.notes.append(f"{', '.join(axes)}: not measured: {error}; install `.[devices]`")
        return
    scale = QUICK if options.quick else FULL
    options.work.mkdir(parents=True, exist_ok=True)
    growth_devices.add_to(
        report,
        make_pack(options.work, scale.shape, scale.widths),
        growth_devices_scale.QUICK if options.quick else growth_devices_scale.FULL,
        axes,
        _repeats(options, _CHAIN_REPEATS),
    )


def _repeats(options: Any, usual: int) -> int:
    repeats: int = options.repeats or usual
    return min(2, repeats) if options.quick else repeats


if __name__ == "__main__":
    sys.exit(main())
