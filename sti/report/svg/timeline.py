"""What lanes did against time: a row for each lane, a bar for each span. Pure.

In: lanes with their spans, in seconds. Out: an SVG document.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sti.errors import InputError
from sti.report.svg.canvas import GAP, MARGIN, WIDTH, Canvas
from sti.report.svg.legend import Entry, draw_legend
from sti.report.svg.scale import Scale, spread_out, tick_label
from sti.report.svg.text import LINE, SIZE, text_width, wrapped

_BAR, _BESIDE = 34.0, 10.0
_NARROWEST = 0.6
"""Pixels of a bar, however short the span."""


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """One span on a lane, in seconds from the start."""

    start_s: float
    end_s: float
    colour: str
    title: str
    """Shown when pointed at."""


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """A lane: its name, a note below the name, its spans."""

    name: str
    note: str
    spans: Sequence[TimelineSpan]


def timeline(
    lanes: Sequence[TimelineLane],
    *,
    title: str,
    description: str,
    legend: Sequence[Entry] = (),
    width: float = WIDTH,
) -> str:
    """Draw lanes from the top, time in milliseconds.

    Args:
        title: above the drawing, and what screen readers call it.
        description: what screen readers say beside that: what is to be seen.
        legend: what the colours of the spans mean.
        width: in pixels.

    Raises:
        InputError: there is no span, a time is negative or not finite, a span ends before it
            starts, or the width is too small.
    """
    spans = [span for lane in lanes for span in lane.spans]
    for span in spans:
        if not 0.0 <= span.start_s <= span.end_s < math.inf:
            raise InputError(f"{span.title}: no span from {span.start_s:g} s to {span.end_s:g} s")
    end_ms = max((span.end_s for span in spans), default=0.0) * 1e3
    if not end_ms:
        raise InputError("there is no span to draw")
    canvas = Canvas(width)
    top = draw_legend(canvas, legend, canvas.heading(title))
    names = [part for lane in lanes for part in (lane.name, lane.note)]
    beside = min(canvas.room * 0.3, max(map(text_width, names)))
    scale = Scale(0.0, end_ms)
    left, right = MARGIN + beside + _BESIDE, canvas.width - MARGIN
    # Half of the last label may reach beyond the end.
    right -= max(text_width(tick_label(tick)) for tick in scale.ticks(10)) / 2

    def x(ms: float) -> float:
        return left + (right - left) * scale.share(ms)

    ticks = spread_out(scale.ticks, x, 12)
    for lane in lanes:
        lines = sum(len(wrapped(part, beside)) for part in (lane.name, lane.note))
        height = max(_BAR, lines * SIZE * LINE)
        noted = canvas.paragraph((MARGIN, top), lane.name, beside)
        canvas.paragraph((MARGIN, noted), lane.note, beside, "muted")
        canvas.rect((left, top), (right - left, height), "ground")
        for tick in ticks:
            canvas.line(((x(tick), top), (x(tick), top + height)), "grid")
        for span in lane.spans:
            start = x(span.start_s * 1e3)
            # A little less than it takes, so that neighbours are told apart.
            wide = max(_NARROWEST, x(span.end_s * 1e3) - start - 0.4)
            canvas.rect((start, top), (wide, height), span.colour, title=span.title)
        top += height + GAP
    for tick in ticks:
        canvas.text((x(tick), top + 4), tick_label(tick), "muted", anchor="middle")
    bottom = canvas.paragraph((right, top + 8), "ms", beside, "muted", anchor="end")
    return canvas.document(bottom + GAP / 2, title, description)
