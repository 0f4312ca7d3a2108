"""What colours, lines and markers of a drawing mean. Pure.

In: entries. Out: their places, from the widths of their labels, and marks on a canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sti.report.svg.canvas import GAP, MARGIN, Canvas
from sti.report.svg.text import LINE, SIZE, text_width, wrapped

_SWATCH, _BESIDE, _BETWEEN = 24.0, 6.0, 16.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A label and what it explains: an area, or a line, a marker, or both."""

    label: str
    colour: str
    area: bool = False
    opacity: float = 1.0
    """Of the area."""
    line: str | None = None
    """One of ``DASHES``."""
    marker: str | None = None
    """One of ``MARKERS``."""


def draw_legend(canvas: Canvas, entries: Sequence[Entry], top: float) -> float:
    """Draw entries from ``top`` downward, in rows; answers where they end."""
    if not entries:
        return top
    row = SIZE * LINE + 4
    room = canvas.room - _SWATCH - _BESIDE
    x, y, lines_in_row = MARGIN, top, 1
    for entry in entries:
        lines = wrapped(entry.label, room)
        width = _SWATCH + _BESIDE + max(text_width(line) for line in lines)
        if x > MARGIN and x + width > canvas.width - MARGIN:
            x, y, lines_in_row = MARGIN, y + row * lines_in_row, 1
        lines_in_row = max(lines_in_row, len(lines))
        _draw_swatch(canvas, entry, x, y)
        canvas.paragraph((x + _SWATCH + _BESIDE, y), entry.label, room, "muted")
        x += width + _BETWEEN
    return y + row * lines_in_row + GAP / 2


def _draw_swatch(canvas: Canvas, entry: Entry, x: float, y: float) -> None:
    middle = y + SIZE * 0.65
    if entry.area:
        canvas.rect((x, middle - 6), (_SWATCH, 12), entry.colour, opacity=entry.opacity)
        canvas.rect((x, middle - 6), (_SWATCH, 12), "grid", outline=True)
    if entry.line is not None:
        ends = ((x, middle), (x + _SWATCH, middle))
        canvas.line(ends, entry.colour, width=2, dash=entry.line)
    if entry.marker is not None:
        canvas.marker(entry.marker, (x + _SWATCH / 2, middle), entry.colour)
