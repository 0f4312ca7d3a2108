"""Fidelities of shards as a map: a row for each layer, a column for each slice. Pure.

In: bits, layer by slice. Out: an SVG document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.errors import InputError
from sti.report.svg.canvas import GAP, MARGIN, WIDTH, Canvas, Place, columns, rows_of
from sti.report.svg.legend import Entry, draw_legend
from sti.report.svg.text import LINE, SIZE, text_width

_COLOUR = "blue"
_LEAST_BITS, _MOST_BITS = 2, 8
_PALEST = 0.25
"""Opacity of the fewest bits, so that they differ from none."""
_LEAST = 200.0
"""Pixels of a panel, where there are others beside it."""
_LARGEST = 24.0
"""Pixels of a cell."""
_BESIDE = 6.0

Bits = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class HeatPanel:
    """One map, of one kind of block."""

    title: str
    bits: Sequence[Sequence[int]]
    """Layer by slice: 2 to 8, or 0 for a shard that is not in use; rows of one length."""


def heat_map(
    panels: Sequence[HeatPanel], *, title: str, description: str, width: float = WIDTH
) -> str:
    """Draw maps side by side, or below one another where that is too narrow.

    Args:
        title: above the drawing, and what screen readers call it.
        description: what screen readers say beside that: what is to be seen.
        width: in pixels.

    Raises:
        InputError: there is nothing to draw, rows differ in length, a fidelity is none, or the
            width is too small.
    """
    if not panels:
        raise InputError("there is no map to draw")
    shown = sorted({bits for panel in panels for row in _checked(panel).tolist() for bits in row})
    canvas = Canvas(width)
    bottom = draw_legend(canvas, [_entry(bits) for bits in shown], canvas.heading(title))
    number, room = columns(len(panels), canvas.room, _LEAST)
    for row in rows_of(len(panels), number):
        top = bottom
        for place, index in enumerate(row):
            left = MARGIN + place * (room + GAP)
            bottom = max(bottom, _panel(canvas, panels[index], (left, top), room))
        bottom += GAP
    return canvas.document(bottom, title, description)


def _checked(panel: HeatPanel) -> Bits:
    if not panel.bits or not panel.bits[0] or len(set(map(len, panel.bits))) > 1:
        raise InputError(f"{panel.title}: a map needs layers with slices, as many in each")
    bits = np.array(panel.bits, dtype=np.int64)
    wrong = bits[(bits != 0) & ((bits < _LEAST_BITS) | (bits > _MOST_BITS))]
    if wrong.size:
        raise InputError(f"{panel.title}: {wrong[0]} bits are no fidelity of 2 to 8")
    return bits


def _opacity(bits: int) -> float:
    return _PALEST + (1 - _PALEST) * (bits - _LEAST_BITS) / (_MOST_BITS - _LEAST_BITS)


def _entry(bits: int) -> Entry:
    if not bits:
        return Entry("not used", "paper", area=True)
    return Entry(f"{bits} bits", _COLOUR, area=True, opacity=_opacity(bits))


def _panel(canvas: Canvas, panel: HeatPanel, corner: Place, room: float) -> float:
    """Draw one map; answers where it ends."""
    layers, slices = len(panel.bits), len(panel.bits[0])
    left, top = corner[0], canvas.paragraph(corner, panel.title, room, bold=True)
    top = canvas.paragraph(
        (left, top), "layers, from the top; slices, from the left", room, "muted"
    )
    top += GAP / 2 + SIZE * LINE
    left += text_width(str(layers - 1)) + _BESIDE
    cell = min(_LARGEST, (room - text_width(str(layers - 1)) - 2 * _BESIDE) / slices)
    for index in _labelled(slices, cell, text_width(str(slices - 1)) + 4):
        canvas.text((left + (index + 0.5) * cell, top - 4), str(index), "muted", anchor="middle")
    for index in _labelled(layers, cell, SIZE * LINE):
        start = (left - _BESIDE, top + (index + 0.5) * cell + SIZE * 0.36)
        canvas.text(start, str(index), "muted", anchor="end")
    gap = min(1.0, cell * 0.1)
    for layer, row in enumerate(panel.bits):
        for index, bits in enumerate(row):
            place = (left + index * cell, top + layer * cell)
            said = f"layer {layer}, slice {index}: {_entry(bits).label}"
            if bits:
                size = (cell - gap, cell - gap)
                canvas.rect(place, size, _COLOUR, opacity=_opacity(bits), title=said)
            else:
                inner = (place[0] + gap / 2, place[1] + gap / 2)
                size = (cell - 2 * gap, cell - 2 * gap)
                canvas.rect(inner, size, "grid", outline=True, title=said)
    return top + layers * cell


def _labelled(count: int, cell: float, needed: float) -> range:
    """Rows or columns with a label: all, or every so many where they have no room."""
    return range(0, count, max(1, -int(-needed // cell)))
