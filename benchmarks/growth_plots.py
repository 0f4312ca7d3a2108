"""How cost grows, as a picture: a small panel for each axis, time against x, both logarithmic.

In: the axes of `growth`. Out: SVG text, the same to the byte for the same axes. Needs matplotlib
(extra ``plot``). Knows nothing of machines or packs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.growth_fit import Axis
from shard_tools.evaluation.plots import STYLE, require_matplotlib, svg_of

# Okabe and Ito's colours, which the colour-blind tell apart; markers and line styles differ, too.
_LINES = {
    "storage": ("#D55E00", ":s"),
    "decode": ("#0072B2", "--^"),
    "compute": ("#009E73", "-.D"),
}
_TOTAL, _CROSSING = "#222222", "#777777"
_COLUMNS, _PANEL_WIDTH, _PANEL_HEIGHT, _LEGEND_HEIGHT = 3, 3.0, 2.6, 0.3
_STEPS = ((1, 2, 3, 5), (1, 3), (1,))
"""Leading digits of the times along y: the first that are not too many."""
_MANY_TICKS = 6
_MARGIN, _LABEL = 0.05, 0.135
"""Shares of a panel's height: above and below the lines, and of the label of one crossover."""


def as_svg(axes: Sequence[Axis]) -> str:
    """Draw every axis.

    Raises:
        InputError: matplotlib is missing.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = -(-len(axes) // _COLUMNS)
    with mpl.rc_context(STYLE):
        size = (_COLUMNS * _PANEL_WIDTH, rows * _PANEL_HEIGHT + _LEGEND_HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for panel, axis in zip(panels, axes, strict=False):
            _draw(panel, axis)
        for place, panel in enumerate(figure.axes):
            panel.set_visible(place < len(axes))
            if place % _COLUMNS == 0:
                panel.set_ylabel("ms")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        return svg_of(figure)


def _draw(panel: Any, axis: Axis) -> None:
    xs = [point.x for point in axis.points]
    total = [point.total_s * 1e3 for point in axis.points]
    panel.plot(xs, total, "-o", color=_TOTAL, markersize=4.5, linewidth=1.8, label="end to end")
    values = list(total)
    for lane, (color, style) in _LINES.items():
        # A lane without work has no place on a logarithmic scale.
        sums = [point.work_s[lane] * 1e3 or math.nan for point in axis.points]
        panel.plot(xs, sums, style, color=color, markersize=3.5, linewidth=1.2, label=lane)
        values += [value for value in sums if not math.isnan(value)]
    power = axis.exponent
    title = axis.name if power is None else f"{axis.name}: time ~ {axis.unit}^{power:.2f}"
    panel.set_title(title, loc="left", fontsize=9.0)
    panel.set_xlabel(axis.unit)
    panel.set_xscale("log")
    panel.set_yscale("log")
    thin = slice(None, None, 2) if len(xs) > _MANY_TICKS else slice(None)
    panel.set_xticks(xs[thin], [f"{x:g}" for x in xs[thin]])
    panel.set_xticks(xs, minor=True, labels=[""] * len(xs))
    low, high = _limits(values, labels=len(axis.crossovers))
    shown = _ticks(low, high)
    panel.set_yticks(shown, [f"{tick:g}" for tick in shown])
    panel.set_yticks([], minor=True)
    panel.set_ylim(low, high)
    panel.grid(axis="y", alpha=0.25, linewidth=0.6)
    _mark_crossovers(panel, axis)


def _limits(values: Sequence[float], *, labels: int) -> tuple[float, float]:
    """Of y: the lines with a margin, and room above them for so many labels."""
    least, most = math.log(min(values)), math.log(max(values))
    height = max(most - least, math.log(2.0)) / (1.0 - 2.0 * _MARGIN - _LABEL * labels)
    bottom = least - _MARGIN * height
    return math.exp(bottom), math.exp(bottom + height)


def _ticks(low: float, high: float) -> list[float]:
    """Round times between two, as many as stand beside one another."""
    shown: list[float] = []
    for steps in _STEPS:
        ticks = (step * 10.0**place for place in range(-4, 7) for step in steps)
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) <= _MANY_TICKS:
            break
    return shown


def _mark_crossovers(panel: Any, axis: Axis) -> None:
    """Lines where the limiting lane changes, each label on a height of its own."""
    middle = (axis.points[0].x * axis.points[-1].x) ** 0.5
    for place, crossing in enumerate(axis.crossovers):
        panel.axvline(crossing.x, color=_CROSSING, linewidth=0.8, zorder=1)
        left = crossing.x < middle
        panel.annotate(
            f"{crossing.before} to {crossing.after}\nat {crossing.x:.3g} {axis.unit}",
            (crossing.x, 1.0 - _LABEL * place),
            xycoords=panel.get_xaxis_transform(),
            xytext=(3 if left else -3, 0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="top",
            fontsize=8.0,
            linespacing=1.0,
            color=_CROSSING,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
