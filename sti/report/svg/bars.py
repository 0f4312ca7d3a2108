"""Horizontal bars, each of parts beside one another: memory by part, systems compared. Pure.

In: names of rows, parts, values. Out: an SVG document. Knows nothing of what the values are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sti.errors import InputError
from sti.report.svg.canvas import GAP, MARGIN, WIDTH, Canvas, Place, columns, rows_of
from sti.report.svg.legend import Entry, draw_legend
from sti.report.svg.text import LINE, SIZE, text_width, wrapped

_BAR, _BETWEEN, _BESIDE = 12.0, 6.0, 6.0
_LEAST = 120.0
"""Pixels of a panel without the names of its rows, where there are others beside it."""
_NONE = "-"
"""Where there is no value."""


@dataclass(frozen=True, slots=True)
class Part:
    """What bars are made of."""

    label: str
    colour: str


@dataclass(frozen=True, slots=True)
class BarPanel:
    """One chart of several with the same rows and parts."""

    title: str
    """With the unit."""
    values: Sequence[Sequence[float] | None]
    """Of each row, of each part; None where a row has none."""
    form: str = ".1f"
    """How the sum of a row is written beside its bar."""

    def said(self, place: int) -> str:
        """What is written beside the bar of a row."""
        found = self.values[place]
        return _NONE if found is None else format(sum(found), self.form)


def stacked_bars(
    names: Sequence[str],
    parts: Sequence[Part],
    panels: Sequence[BarPanel],
    *,
    title: str,
    description: str,
    width: float = WIDTH,
) -> str:
    """Draw a bar for each name in each panel, from the top; each panel has its own scale.

    Panels stand side by side, with the names on the left of all, or below one another where that
    is too narrow.

    Args:
        title: above the drawing, and what screen readers call it.
        description: what screen readers say beside that: what is to be seen.
        width: in pixels.

    Raises:
        InputError: there is nothing to draw, values do not match names and parts, one is negative
            or not finite, or the width is too small.
    """
    if not names or not parts or not panels:
        raise InputError("bars need names, parts and panels")
    for panel in panels:
        _check(panel, len(names), len(parts))
    canvas = Canvas(width)
    entries = [Entry(part.label, part.colour, area=True) for part in parts]
    bottom = draw_legend(canvas, entries, canvas.heading(title))
    beside = min(canvas.room * 0.4, max(map(text_width, names)))
    lines = [wrapped(name, beside) for name in names]
    heights = [max(_BAR, len(found) * SIZE * LINE) + _BETWEEN for found in lines]
    first = MARGIN + beside + _BESIDE
    number, room = columns(len(panels), canvas.room - beside - _BESIDE, _LEAST)
    for row in rows_of(len(panels), number):
        lefts = [first + place * (room + GAP) for place in range(len(row))]
        drawn = [panels[index] for index in row]
        top = max(
            canvas.paragraph((left, bottom), panel.title, room, bold=True)
            for panel, left in zip(drawn, lefts, strict=True)
        )
        bottom = _names(canvas, lines, heights, top + GAP / 2)
        for panel, left in zip(drawn, lefts, strict=True):
            _panel(canvas, panel, parts, heights, (left, top + GAP / 2), room)
        bottom += GAP
    return canvas.document(bottom, title, description)


def _check(panel: BarPanel, rows: int, parts: int) -> None:
    if len(panel.values) != rows:
        raise InputError(f"{panel.title}: {len(panel.values)} rows of values for {rows} names")
    for found in panel.values:
        if found is not None and len(found) != parts:
            raise InputError(f"{panel.title}: {len(found)} values for {parts} parts")
        if not all(0.0 <= value < math.inf for value in found or ()):
            raise InputError(f"{panel.title}: values of bars are finite and not negative")


def _names(
    canvas: Canvas, lines: Sequence[Sequence[str]], heights: Sequence[float], top: float
) -> float:
    """Draw the names of the rows; answers where the rows end."""
    for name, height in zip(lines, heights, strict=True):
        for place, line in enumerate(name):
            canvas.text((MARGIN, top + SIZE * (1 + place * LINE) - 1), line)
        top += height
    return top


def _panel(
    canvas: Canvas,
    panel: BarPanel,
    parts: Sequence[Part],
    heights: Sequence[float],
    corner: Place,
    room: float,
) -> None:
    left, top = corner
    beside = max(text_width(panel.said(place)) for place in range(len(heights))) + _BESIDE
    most = max(sum(found or ()) for found in panel.values) or 1.0
    for place, height in enumerate(heights):
        x = left
        found = panel.values[place] or ()
        for part, value in zip(parts, found, strict=False):  # a row may have none
            wide = (room - beside) * value / most
            if wide:
                said = f"{part.label}: {value:{panel.form}}"
                canvas.rect((x, top), (wide, _BAR), part.colour, title=said)
            x += wide
        canvas.text((x + _BESIDE, top + SIZE - 1), panel.said(place), "muted")
        top += height
