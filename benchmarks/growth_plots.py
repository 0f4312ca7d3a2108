"""How cost grows, as a picture: a small panel for each axis, time against x, both logarithmic.

In: the axes of `growth`. Out: SVG text, the same to the byte for the same axes. Knows nothing of
machines or packs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.growth_fit import Axis
from sti.report.svg import chart_data
from sti.report.svg.chart_data import Mark, Panel, Series
from sti.report.svg.charts import line_charts

_LINES = {
    "storage": ("orange", "dotted", "square"),
    "decode": ("blue", "dashed", "triangle"),
    "compute": ("green", "solid", "diamond"),
}


def as_svg(axes: Sequence[Axis]) -> str:
    """Draw every axis."""
    return line_charts(
        [_panel(axis) for axis in axes],
        title="How long a run takes, and the work of each kind in it",
        description="Milliseconds end to end and of storage, decode and compute, on logarithmic "
        "axes: against " + ", ".join(axis.name for axis in axes) + ".",
    )


def _panel(axis: Axis) -> Panel:
    xs = [point.x for point in axis.points]
    total = [point.total_s * 1e3 for point in axis.points]
    series = [Series("end to end", "ink", list(zip(xs, total, strict=True)), marker="circle")]
    for lane, (colour, line, marker) in _LINES.items():
        # A lane without work has no place on a logarithmic scale.
        sums = [point.work_s[lane] * 1e3 or math.nan for point in axis.points]
        points = list(zip(xs, sums, strict=True))
        series.append(Series(lane, colour, points, line=line, marker=marker))
    power = axis.exponent
    return Panel(
        title=axis.name if power is None else f"{axis.name}: time ~ {axis.unit}^{power:.2f}",
        x=chart_data.Axis(axis.unit, log=True, ticks=tuple(xs)),
        y=chart_data.Axis("ms", log=True),
        series=series,
        marks=[
            Mark(found.x, f"{found.before} to {found.after} at {found.x:.3g} {axis.unit}")
            for found in axis.crossovers
        ],
    )
