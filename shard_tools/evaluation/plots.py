"""An evaluation as a picture: accuracy against the latency target, a panel for each preload. Pure.

In: an ``Evaluation``. Out: SVG text, the same to the byte for the same evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from shard_tools.evaluation.cells import Cell, Comparison, Evaluation
from shard_tools.evaluation.report import size_of
from sti.report.svg.chart_data import Axis, Band, Panel, Series
from sti.report.svg.charts import line_charts

_PLAN = "blue"
_BASELINES = (
    (True, "orange", "dashed", "square", "best of the paper's baselines"),
    (False, "green", "dotted", "triangle", "best at one fidelity, our pipeline too"),
)


def as_svg(found: Evaluation) -> str:
    """Draw it."""
    preloads = dict.fromkeys(cell.preload_bytes for cell in found.cells)
    groups = {
        preload: sorted(
            (cell for cell in found.cells if cell.preload_bytes == preload),
            key=lambda cell: cell.latency_s,
        )
        for preload in preloads
    }
    panels = [_panel(size_of(preload), cells, found) for preload, cells in groups.items()]
    return line_charts(
        panels,
        title=f"{found.pack} on {found.device}",
        description=f"{_measure(found)}, for each latency target: of the plan as measured and as "
        "expected, of the best baselines, and of the full model.",
        same_y=True,
    )


def _measure(found: Evaluation) -> str:
    unit = ", %" if found.metric == "accuracy" else ""
    return f"{found.metric} on {found.data}{unit}"


def _scaled(values: Iterable[float | None], found: Evaluation) -> list[float]:
    """In percent where the metric is an accuracy; NaN where there is no value."""
    scale = 100.0 if found.metric == "accuracy" else 1.0
    return [math.nan if value is None else value * scale for value in values]


def _panel(preload: str, cells: Sequence[Cell], found: Evaluation) -> Panel:
    times = [cell.latency_s * 1e3 for cell in cells]
    plans = [cell.plan for cell in cells]
    measured = _scaled((None if plan is None else plan.measured for plan in plans), found)
    low = _scaled((None if plan is None else plan.expected.low for plan in plans), found)
    high = _scaled((None if plan is None else plan.expected.high for plan in plans), found)
    (full,) = _scaled([found.full.measured], found)
    series = [
        Series("plan, measured", _PLAN, list(zip(times, measured, strict=True)), marker="circle")
    ]
    for in_paper, colour, line, marker, name in _BASELINES:
        best = _scaled((_measured(cell.best(in_paper=in_paper)) for cell in cells), found)
        points = list(zip(times, best, strict=True))
        series.append(Series(name, colour, points, line=line, marker=marker))
    series.append(Series("full model", "grey", [(time, full) for time in (times[0], times[-1])]))
    return Panel(
        title=f"preload: {preload}",
        x=Axis(
            f"latency target{'' if found.runs else ' (simulated)'}, ms",
            log=True,
            ticks=tuple(times),
        ),
        y=Axis(_measure(found)),
        series=series,
        bands=[Band("plan, expected (95 %)", _PLAN, list(zip(times, low, high, strict=True)))],
    )


def _measured(baseline: Comparison | None) -> float | None:
    return None if baseline is None or baseline.entry is None else baseline.entry.measured
