"""The drawings of a page, each for a wide and for a narrow window. Pure.

In: what the page says. Out: figures in HTML with their SVG inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sti.model.manifest import Manifest
from sti.planning.history import DayRuns, KeptTarget
from sti.planning.memory import MemoryPart
from sti.planning.plan import Plan
from sti.planning.span import Span
from sti.report.drawings import fidelity_panels, lane_timeline, metric_scale
from sti.report.page.facts import FrontierPoint
from sti.report.page.html import Part, element
from sti.report.page.style import NARROW, WIDE
from sti.report.svg.bars import BarPanel, stacked_bars
from sti.report.svg.bars import Part as BarPart
from sti.report.svg.chart_data import Axis, Band, Highlight, Panel, Series
from sti.report.svg.charts import line_charts
from sti.report.svg.heat_map import heat_map
from sti.report.wording import show_metric
from sti.units import format_time

_LOG_FROM = 8.0
"""Longest over shortest latency from which on they are drawn on a logarithmic scale."""


class DayPoint(NamedTuple):
    """The runs of one day, and how many days before the page was made it was."""

    before: int
    runs: DayRuns


def figure(draw: Callable[[float], str]) -> Part:
    """A drawing for a wide and for a narrow window, one of which is shown."""
    return element(
        "figure",
        element("div", "\n", draw(WIDE), class_="wide"),
        element("div", "\n", draw(NARROW), class_="narrow"),
    )


def frontier_figure(
    manifest: Manifest, plan: Plan, promised_s: float, points: Sequence[FrontierPoint]
) -> Part:
    """Quality to expect against latency, with the plan that is shown."""
    quality, shown = manifest.quality, plan.predicted
    assert shown is not None, "plans that are shown have predictions"
    own_s = plan.target.latency_s or promised_s
    found = [(point.latency_s, point.plan.predicted) for point in points]
    series, bands = [], []
    if quality is None:
        label, own, said = "expected loss", shown.loss, f"{shown.loss:.4g}"
        line = [(at * 1e3, it.loss) for at, it in found if it is not None]
    else:
        factor, label = metric_scale(quality.metric)
        estimates = [(at * 1e3, it.quality) for at, it in found if it and it.quality]
        line = [(ms, factor * it.value) for ms, it in estimates]
        limits = [(ms, factor * it.low, factor * it.high) for ms, it in estimates]
        bands.append(Band("95 times in 100", "blue", limits))
        full = factor * quality.estimate(0.0).value
        ends = [ms for ms, _ in line] + [own_s * 1e3]
        dashed = [(min(ends), full), (max(ends), full)]
        series.append(Series("full model", "ink", dashed, line="dashed"))
        value = (shown.quality or quality.estimate(shown.loss)).value
        own, said = factor * value, show_metric(quality.metric, value)
        label = f"expected {label}"
    series.insert(0, Series("best plan", "blue", line, marker="circle"))
    ends = [own_s * 1e3, *(ms for ms, _ in line)]
    panel = Panel(
        title="",
        x=Axis("latency asked for, ms", log=max(ends) / min(ends) >= _LOG_FROM),
        y=Axis(label),
        series=series,
        bands=bands,
        highlight=Highlight(own_s * 1e3, own, "this plan"),
    )
    description = (
        f"{label} of the best plan for {len(line)} latencies from {min(ends):.3g} to "
        f"{max(ends):.3g} ms. This plan: {said} in {format_time(own_s)}."
    )
    return figure(
        lambda width: line_charts(
            [panel], title="Quality against latency", description=description, width=width
        )
    )


def fidelity_figure(manifest: Manifest, plan: Plan, description: str) -> Part:
    """Bits by layer and slice."""
    panels = fidelity_panels(manifest, plan)
    return figure(
        lambda width: heat_map(panels, title="Bits by part", description=description, width=width)
    )


def timeline_figure(lanes: Mapping[str, Sequence[Span]], title: str) -> Part:
    """When lanes work."""
    return figure(lambda width: lane_timeline(lanes, title=title, width=width))


def memory_figure(parts: Sequence[MemoryPart]) -> Part:
    """A bar for each part."""
    kinds = [BarPart("memory of the process", "blue"), BarPart("mapped from a file", "green")]
    shown = kinds if any(part.mapped for part in parts) else kinds[:1]
    bars = [
        [part.size / 1e6 if part.mapped == mapped else 0.0 for mapped in (False, True)]
        for part in parts
    ]
    panel = BarPanel("MB", [bar[: len(shown)] for bar in bars], form=".2f")
    description = ", ".join(f"{part.name} {part.size / 1e6:.2f} MB" for part in parts)
    names = [part.name for part in parts]
    return figure(
        lambda width: stacked_bars(
            names, shown, [panel], title="Added memory", description=description, width=width
        )
    )


def kept_figure(target: KeptTarget, days: Sequence[DayPoint]) -> Part:
    """How runs under one target went, day by day; at least two of them."""
    x = Axis("days before this page was made", ticks=_ticks([-day.before for day in days]))
    times = [
        (name, colour, marker, [(-day.before, day.runs.percentile_s(share) * 1e3) for day in days])
        for name, colour, marker, share in (
            ("half of the runs", "blue", "circle", 0.5),
            ("95 of 100 runs", "orange", "square", 0.95),
        )
    ]
    series = [Series(name, colour, line, marker=mark) for name, colour, mark, line in times]
    panels = []
    if target.latency_s is not None:
        first, last = -days[0].before, -days[-1].before
        asked = target.latency_s * 1e3
        series.append(Series("latency", "ink", [(first, asked), (last, asked)], line="dashed"))
        inside = [(-day.before, 100.0 * day.runs.inside / day.runs.runs) for day in days]
        wanted = [(first, 100.0 * target.quantile), (last, 100.0 * target.quantile)]
        panels.append(
            Panel(
                "Runs in time",
                x,
                Axis("% of the day's runs"),
                [
                    Series("in time", "green", inside, marker="diamond"),
                    Series("wanted", "muted", wanted, line="dotted"),
                ],
            )
        )
    panels.insert(0, Panel("Time of a run", x, Axis("ms"), series))
    description = "; ".join(
        f"{day.runs.day}: {day.runs.runs} runs, half within "
        f"{format_time(day.runs.percentile_s(0.5))}"
        for day in days
    )
    return figure(
        lambda width: line_charts(panels, title="Day by day", description=description, width=width)
    )


def _ticks(places: Sequence[int]) -> tuple[float, ...]:
    """Days with a label: all of a few, else every so many."""
    step = max(1, math.ceil((max(places) - min(places)) / 8))
    return tuple(float(day) for day in range(max(places), min(places) - 1, -step))[::-1]
