"""Charts of lines, steps and points against one axis: panels in a grid with one legend. Pure.

In: series of points, axes linear or logarithmic. Out: an SVG document. Knows nothing of what the
values are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from sti.errors import InputError
from sti.report.svg.canvas import GAP, MARGIN, WIDTH, Canvas, Place, columns, rows_of
from sti.report.svg.chart_data import Band, Highlight, Panel, Series, scales
from sti.report.svg.legend import Entry, draw_legend
from sti.report.svg.scale import Scale, spread_out, tick_label
from sti.report.svg.text import LINE, SIZE, text_width, wrapped

_LEAST = 220.0
"""Pixels of a panel, where there are others beside it."""
_BESIDE = 6.0
"""Pixels between an axis and its labels."""


@dataclass(frozen=True, slots=True)
class _Plot:
    """The part of a panel where the points are."""

    panel: Panel
    left: float
    right: float
    top: float
    bottom: float
    across: Scale
    up: Scale

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * self.across.share(value)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * self.up.share(value)

    def place(self, point: tuple[float, float]) -> Place:
        return self.x(point[0]), self.y(point[1])


def line_charts(
    panels: Sequence[Panel],
    *,
    title: str,
    description: str,
    same_y: bool = False,
    width: float = WIDTH,
) -> str:
    """Draw panels in a grid, as many side by side as are readable.

    Args:
        title: above the drawing, and what screen readers call it.
        description: what screen readers say beside that: what is to be seen.
        same_y: whether all panels have one scale of y.
        width: in pixels.

    Raises:
        InputError: there is no panel, a panel cannot be scaled, or the width is too small.
    """
    if not panels:
        raise InputError("there is no panel to draw")
    fitted = scales(panels, same_y=same_y)
    canvas = Canvas(width)
    bottom = draw_legend(canvas, _entries(panels), canvas.heading(title))
    number, room = columns(len(panels), canvas.room, _LEAST)
    for row in rows_of(len(panels), number):
        lefts = [MARGIN + place * (room + GAP) for place in range(len(row))]
        # The plots of a row begin and end at the same height.
        top = max(
            _head(canvas, panels[index], (left, bottom), room)
            for index, left in zip(row, lefts, strict=True)
        )
        bottom = max(
            _panel(canvas, panels[index], fitted[index], (left, top), room)
            for index, left in zip(row, lefts, strict=True)
        )
        bottom += GAP
    return canvas.document(bottom, title, description)


def _entries(panels: Sequence[Panel]) -> list[Entry]:
    """One for each label, in the order in which they come."""
    found: dict[str, Entry] = {}
    for panel in panels:
        for item in panel.series:
            entry = Entry(item.label, item.colour, line=item.line, marker=item.marker)
            found.setdefault(item.label, entry)
        for band in panel.bands:
            if band.label:
                entry = Entry(band.label, band.colour, area=True, opacity=band.opacity)
                found.setdefault(band.label, entry)
    return list(found.values())


def _head(canvas: Canvas, panel: Panel, corner: Place, room: float) -> float:
    """What stands above the plot: the title, and what y is; answers where it ends."""
    x, y = corner
    if panel.title:
        y = canvas.paragraph((x, y), panel.title, room, bold=True)
    # Not turned by its side: so it can be read, and has room for its words.
    y = canvas.paragraph((x, y), panel.y.label, room, "muted") + GAP / 2
    return y + SIZE * LINE * sum(len(wrapped(mark.label, room)) for mark in panel.marks)


def _panel(
    canvas: Canvas, panel: Panel, fitted: tuple[Scale, Scale], corner: Place, room: float
) -> float:
    """Draw what is below the head; answers where it ends."""
    across, up = fitted
    height = min(240.0, max(150.0, room * 0.5))
    top, bottom = corner[1], corner[1] + height
    ups = _y_ticks(panel, up, height)
    # Half a label reaches beyond the last tick of x.
    beyond = max(text_width(tick_label(tick)) for tick in panel.x.ticks or across.ticks(10)) / 2
    beside = max((text_width(tick_label(tick)) for tick in ups), default=0.0) + _BESIDE
    left, right = corner[0] + max(beside, beyond), corner[0] + room - beyond
    plot = _Plot(panel, left, right, top, bottom, across, up)
    _axes(canvas, plot, ups)
    _marks(canvas, plot, corner[0], room)
    for band in panel.bands:
        _band(canvas, plot, band)
    # What comes first in the legend lies on top.
    for series in reversed(panel.series):
        _series(canvas, plot, series)
    if panel.highlight is not None:
        _highlight(canvas, plot, panel.highlight)
    below = bottom + SIZE * LINE + _BESIDE
    middle = (corner[0] + room / 2, below)
    return canvas.paragraph(middle, panel.x.label, room, "muted", anchor="middle")


def _y_ticks(panel: Panel, up: Scale, height: float) -> Sequence[float]:
    most = int(height // (SIZE * 2))
    given = panel.y.ticks
    return given[:: -(-len(given) // most)] if given else up.ticks(most)


def _axes(canvas: Canvas, plot: _Plot, ups: Sequence[float]) -> None:
    """Lines across for y, short lines below for x, and labels as far as they have room."""
    for tick in ups:
        y = plot.y(tick)
        canvas.line(((plot.left, y), (plot.right, y)), "grid")
        start = (plot.left - _BESIDE, y + SIZE * 0.36)
        canvas.text(start, tick_label(tick), "muted", anchor="end")
    canvas.line(((plot.left, plot.bottom), (plot.right, plot.bottom)), "muted")
    given = plot.panel.x.ticks

    def ticks(most: int) -> Sequence[float]:
        return given[:: -(-len(given) // most)] if given else plot.across.ticks(most)

    shown = spread_out(ticks, plot.x, max(10, len(given)))
    for tick in {*shown, *given}:
        x = plot.x(tick)
        canvas.line(((x, plot.bottom), (x, plot.bottom + (5 if tick in shown else 3))), "muted")
    for tick in shown:
        start = (plot.x(tick), plot.bottom + SIZE + _BESIDE)
        canvas.text(start, tick_label(tick), "muted", anchor="middle")


def _marks(canvas: Canvas, plot: _Plot, edge: float, room: float) -> None:
    """Lines across the plot, each up to its label above; labels lie one below the other."""
    base = plot.top - 4
    for mark in reversed(plot.panel.marks):
        x = plot.x(mark.x)
        canvas.line(((x, base), (x, plot.bottom)), "grey", dash="dotted")
        lines = wrapped(mark.label, room)
        half = max(map(text_width, lines)) / 2
        middle = max(edge + half, min(x, edge + room - half))
        top = base - len(lines) * SIZE * LINE
        canvas.paragraph((middle, top), mark.label, room, "muted", anchor="middle")
        base = top


def _runs(points: Iterable[tuple[float, ...]]) -> Iterator[list[tuple[float, ...]]]:
    """Neighbouring points without a gap."""
    for gap, found in groupby(points, lambda point: any(map(math.isnan, point))):
        if not gap:
            yield list(found)


def _band(canvas: Canvas, plot: _Plot, band: Band) -> None:
    for run in _runs(band.points):
        below = [plot.place((x, low)) for x, low, _ in run]
        above = [plot.place((x, high)) for x, _, high in run]
        canvas.area([*below, *reversed(above)], band.colour, opacity=band.opacity)


def _series(canvas: Canvas, plot: _Plot, series: Series) -> None:
    for run in _runs(series.points):
        places = [plot.place((x, y)) for x, y in run]
        if series.line is not None:
            line = _stairs(places) if series.step else places
            canvas.line(line, series.colour, width=2, dash=series.line)
        if series.marker is not None:
            for (x, y), place in zip(run, places, strict=True):
                said = f"{series.label}: {tick_label(y)} at {tick_label(x)}"
                canvas.marker(series.marker, place, series.colour, title=said)


def _stairs(places: Sequence[Place]) -> list[Place]:
    corners = [((x, y), (after, y)) for (x, y), (after, _) in pairwise(places)]
    return [*(place for pair in corners for place in pair), places[-1]]


def _highlight(canvas: Canvas, plot: _Plot, found: Highlight) -> None:
    """A ring, and words beside and below it, or above, where there is room; on their own paper."""
    x, y = plot.place((found.x, found.y))
    canvas.ring((x, y), "ink")
    on_left = x > (plot.left + plot.right) / 2
    room = (x - plot.left if on_left else plot.right - x) - 14
    lines = wrapped(found.label, room)
    wide, high = max(map(text_width, lines)), len(lines) * SIZE * LINE
    top = y + _BESIDE  # a level line runs through the point, and not through its words
    if top + high > plot.bottom:
        top = max(plot.top, y - _BESIDE - high)
    start, anchor = (x - 12, "end") if on_left else (x + 12, "start")
    left = start - wide if on_left else start
    canvas.rect((left, top), (wide, high), "paper", opacity=0.85)
    canvas.paragraph((start, top), found.label, room, anchor=anchor)
