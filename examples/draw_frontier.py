"""Draw what a pack gives up for speed: expected accuracy against the latency asked for.

    python examples/draw_frontier.py PACK                               # a table
    python examples/draw_frontier.py PACK --preload 0 --preload 1MB -o frontier.svg

Nothing is run: for each latency a plan is made for this device, and the pack, once it is ranked
(`sti-shard rank`), tells what to expect of it. The drawing has a line for each preload buffer, the
interval that holds the metric 95 times in 100 as a band, and the full model as a dashed line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sti
from sti.model.manifest import Manifest
from sti.model.quality import Estimate
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest, Target
from sti.planning.planner import make_plan
from sti.report.svg.canvas import MARKERS, SERIES_COLOURS
from sti.report.svg.chart_data import Axis, Band, Panel, Series
from sti.report.svg.charts import line_charts
from sti.report.wording import counted
from sti.units import format_size, format_time, parse_size


@dataclass(frozen=True)
class Point:
    """A latency asked for, the plan for it, and what to expect of that plan."""

    latency_s: float
    plan: sti.Plan
    expected: Estimate


@dataclass(frozen=True)
class Task:
    """All but the target: what is planned for, on which device."""

    manifest: Manifest
    pack_id: str
    profile: sti.DeviceProfile
    workload: Workload

    def plan(self, latency_s: float | None, preload_bytes: int) -> sti.Plan:
        """The best plan for a target."""
        target = Target(latency_s, preload_bytes)
        return make_plan(
            PlanRequest(self.manifest, self.pack_id, self.workload, target), self.profile
        )

    def frontier(self, preload_bytes: int, count: int) -> list[Point]:
        """Plans at ``count`` latencies: from the least that can be met to what the best takes.

        Each is longer than the one before by the same ratio.
        """
        if self.manifest.quality is None:
            raise sti.InputError("the pack was not ranked; measure it with `sti-shard rank` first")
        best = self.plan(None, preload_bytes)
        assert best.predicted is not None
        jitter = self.profile.run(best.threads).jitter
        least_s = longest_s = best.predicted.total_s * jitter * 1.001  # in 95 runs of 100
        try:
            self.plan(1e-9, preload_bytes)
        except sti.InfeasibleError as error:
            least_s = min(error.needed * 1.001, longest_s)
        points = []
        for step in range(count):
            latency_s = least_s * (longest_s / least_s) ** (step / max(1, count - 1))
            plan = self.plan(latency_s, preload_bytes)
            assert plan.predicted is not None
            assert plan.predicted.quality is not None
            points.append(Point(latency_s, plan, plan.predicted.quality))
        return points


def open_task(pack: str, tokens: int) -> Task:
    """The pack and what this device can do (measured in two seconds where it never was)."""
    with sti.Engine.open(pack) as engine:
        workload = Workload(1, min(tokens, engine.manifest.dimensions.max_tokens))
        return Task(engine.manifest, engine.pack_id, engine.profile, workload)


def scale_of(metric: str) -> tuple[float, str]:
    """What to multiply a metric with, and its name with the unit."""
    return (100.0, "accuracy, %") if metric == "accuracy" else (1.0, metric)


def table(preload_bytes: int, points: Sequence[Point]) -> str:
    """The points of one frontier as text."""
    factor, name = scale_of(points[0].expected.metric)
    lines = [f"preload {format_size(preload_bytes)}; expected {name}"]
    for point in points:
        value, low, high = (
            factor * number
            for number in (point.expected.value, point.expected.low, point.expected.high)
        )
        predicted = point.plan.predicted
        assert predicted is not None
        lines.append(
            f"  {format_time(point.latency_s):>8}  {value:7.2f} ({low:.2f} to {high:.2f})  "
            f"{counted(point.plan.depth, 'layer')}, {counted(point.plan.width, 'slice')}, "
            f"{format_size(predicted.bytes_read)} read in {format_time(predicted.total_s)}"
        )
    return "\n".join(lines)


def draw(task: Task, frontiers: dict[int, list[Point]]) -> str:
    """The SVG document."""
    quality = task.manifest.quality
    assert quality is not None
    factor, name = scale_of(quality.metric)
    series, bands = [], []
    for number, (preload_bytes, points) in enumerate(frontiers.items()):
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        label = f"preload {format_size(preload_bytes)}"
        marker = MARKERS[number % len(MARKERS)]
        values, limits = [], []
        for point in points:
            ms, expected = point.latency_s * 1e3, point.expected
            values.append((ms, factor * expected.value))
            limits.append((ms, factor * expected.low, factor * expected.high))
        series.append(Series(label, colour, values, marker=marker))
        bands.append(Band("", colour, limits))
    full = factor * quality.estimate(0.0).value
    ends = [point.latency_s * 1e3 for points in frontiers.values() for point in points]
    dashed = [(min(ends), full), (max(ends), full)]
    series.append(Series("full model", "ink", dashed, line="dashed"))
    return line_charts(
        [
            Panel(
                title="",
                x=Axis(f"latency asked for, ms ({task.workload.tokens} tokens)"),
                y=Axis(f"expected {name}"),
                series=series,
                bands=bands,
            )
        ],
        title=task.manifest.name,
        description=f"Expected {name}, with its 95 % interval, against the latency asked for: a "
        "line for each size of the preload buffer.",
    )


def main() -> int:
    """Plan, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", help="a ranked pack")
    parser.add_argument("--tokens", type=int, default=16, help="tokens a text (default: 16)")
    parser.add_argument(
        "--preload", action="append", metavar="SIZE", help="e.g. 1MB; one line each (default: 0)"
    )
    parser.add_argument("--points", type=int, default=12, help="plans a line (default: 12)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="draw into this file, SVG"
    )
    options = parser.parse_args()
    if options.tokens < 2 or options.points < 1:
        parser.error("--tokens must be at least 2 and --points at least 1")
    try:
        preloads = [parse_size(size, name="--preload") for size in options.preload or ["0"]]
        task = open_task(options.pack, options.tokens)
        frontiers = {size: task.frontier(size, options.points) for size in preloads}
        print("\n".join(table(size, points) for size, points in frontiers.items()))
        if options.output is not None:
            options.output.write_text(draw(task, frontiers), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sti.StiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
