"""The sheet that everything is drawn on: shapes, text, colours for light and dark. Pure.

In: shapes in pixels, colours by name. Out: one SVG document, the same to the byte for the same
shapes. It reads well as a file of its own and within an HTML page, where each document brings the
same rules for its colours, and none has an id. Knows nothing of what the shapes mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sti.errors import InputError
from sti.report.svg.text import LINE, SIZE, escaped, wrapped

WIDTH = 720.0
"""Pixels, where nothing else is said: half of it is still readable on a phone."""
NARROWEST = 320.0
MARGIN = 12.0
TITLE_SIZE = 14.0
GAP = 10.0
"""Pixels between parts of a drawing."""

COLOURS = {
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9da7b3"),
    "grid": ("#d8dde3", "#30363d"),
    "ground": ("#f2f4f6", "#1a2029"),
    "blue": ("#0072b2", "#58aef0"),
    "orange": ("#c85200", "#ff9350"),
    "green": ("#00825e", "#3fcf9f"),
    "purple": ("#a8437f", "#e79ac6"),
    "amber": ("#946700", "#e3b93f"),
    "grey": ("#7d858d", "#8b949e"),
}
"""Name to the colour on light and on dark; told apart by the colour-blind, too. ``paper`` is what
is drawn on, ``ground`` lies below spans, ``grid`` below lines."""
SERIES_COLOURS = ("blue", "orange", "green", "purple", "amber", "grey")
"""For what is drawn side by side, in this order."""

MARKERS = ("circle", "square", "triangle", "diamond")
DASHES = {"solid": "", "dashed": "6 4", "dotted": "1.5 3"}

Place = tuple[float, float]
"""Pixels from the left and from the top."""

_FONTS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


class Canvas:
    """Shapes in the order they are drawn. Not thread-safe.

    Raises:
        InputError: ``width``, in pixels, is too small for a drawing.
    """

    def __init__(self, width: float = WIDTH) -> None:
        if not NARROWEST <= width < math.inf:
            raise InputError(f"a drawing is at least {NARROWEST:g} pixels wide, not {width:g}")
        self.width = width
        self._parts: list[str] = []
        self._used: set[str] = set()

    @property
    def room(self) -> float:
        """Pixels between the margins."""
        return self.width - 2 * MARGIN

    def rect(
        self,
        corner: Place,
        size: Place,
        colour: str,
        *,
        opacity: float = 1.0,
        outline: bool = False,
        title: str = "",
    ) -> None:
        """A filled rectangle, or its outline; ``title`` is shown when pointed at."""
        place = _attributes(x=corner[0], y=corner[1], width=size[0], height=size[1])
        paint = 'fill="none" stroke="currentColor"' if outline else _fill(opacity)
        self._shape(f"rect {place} {paint}", colour, title)

    def line(
        self,
        points: Iterable[Place],
        colour: str,
        *,
        width: float = 1.0,
        dash: str = "solid",
    ) -> None:
        """A line through points."""
        pattern = f' stroke-dasharray="{DASHES[dash]}"' if DASHES[dash] else ""
        self._shape(
            f'polyline points="{_points(points)}" fill="none" stroke="currentColor" '
            f'stroke-width="{width:g}" stroke-linejoin="round"{pattern}',
            colour,
        )

    def area(self, points: Iterable[Place], colour: str, *, opacity: float) -> None:
        """A filled polygon."""
        self._shape(f'polygon points="{_points(points)}" {_fill(opacity)}', colour)

    def marker(self, kind: str, centre: Place, colour: str, *, title: str = "") -> None:
        """One of ``MARKERS``."""
        x, y = centre
        if kind == "circle":
            self._shape(f"circle {_attributes(cx=x, cy=y, r=3.5)} {_fill(1.0)}", colour, title)
            return
        corners = {
            "square": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
            "triangle": ((0, -4), (4, 3), (-4, 3)),
            "diamond": ((0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)),
        }[kind]
        points = _points((x + across, y + down) for across, down in corners)
        self._shape(f'polygon points="{points}" {_fill(1.0)}', colour, title)

    def ring(self, centre: Place, colour: str) -> None:
        """A circle around something."""
        place = _attributes(cx=centre[0], cy=centre[1], r=7.0)
        self._shape(f'circle {place} fill="none" stroke="currentColor" stroke-width="2"', colour)

    def text(
        self,
        start: Place,
        text: str,
        colour: str = "ink",
        *,
        anchor: str = "start",
        size: float = SIZE,
        bold: bool = False,
    ) -> None:
        """One line; ``start`` is on its base line, at the end that ``anchor`` names."""
        self._used.add(colour)
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text {_attributes(x=start[0], y=start[1])} font-size="{size:g}"{weight} '
            f'text-anchor="{anchor}" class="{colour}" fill="currentColor">{escaped(text)}</text>'
        )

    def paragraph(
        self,
        corner: Place,
        text: str,
        room: float,
        colour: str = "ink",
        *,
        anchor: str = "start",
        size: float = SIZE,
        bold: bool = False,
    ) -> float:
        """Lines that fit ``room`` pixels, from ``corner`` downward; answers where they end."""
        x, y = corner
        for line in wrapped(text, room, size, bold=bold):
            self.text((x, y + size), line, colour, anchor=anchor, size=size, bold=bold)
            y += size * LINE
        return y

    def heading(self, title: str) -> float:
        """The title of the drawing; answers where it ends."""
        start = (MARGIN, MARGIN)
        return GAP / 2 + self.paragraph(start, title, self.room, size=TITLE_SIZE, bold=True)

    def document(self, height: float, title: str, description: str) -> str:
        """The SVG, down to ``height`` pixels; screen readers read title and description."""
        # Its own ground, not the page's: a picture in a page follows the reader's system, the
        # page around it may not.
        self._used.add("paper")
        size = _attributes(width=self.width, height=height)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="sti-drawing" role="img" {size} '
                f'viewBox="0 0 {_number(self.width)} {_number(height)}" '
                f'style="max-width:100%;height:auto" font-family="{_FONTS}">',
                f"<title>{escaped(title)}</title>",
                f"<desc>{escaped(description)}</desc>",
                f"<style>{_rules(self._used)}</style>",
                f'<rect {size} class="paper" fill="currentColor"/>',
                *self._parts,
                "</svg>",
                "",
            ]
        )

    def _shape(self, drawn: str, colour: str, title: str = "") -> None:
        self._used.add(colour)
        name = drawn.partition(" ")[0]
        end = f"><title>{escaped(title)}</title></{name}>" if title else "/>"
        self._parts.append(f'<{drawn} class="{colour}"{end}')


def _rules(used: set[str]) -> str:
    """Colours as rules, light ones and then dark ones where the reader prefers those."""
    light, dark = (
        "".join(
            f".sti-drawing .{name}{{color:{pair[mode]}}}"
            for name, pair in COLOURS.items()
            if name in used
        )
        for mode in (0, 1)
    )
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}"


def _number(value: float) -> str:
    """To a tenth of a pixel, without a sign before zero."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _attributes(**values: float) -> str:
    return " ".join(f'{name}="{_number(value)}"' for name, value in values.items())


def _points(points: Iterable[Place]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _fill(opacity: float) -> str:
    share = "" if opacity == 1.0 else f' fill-opacity="{opacity:.2f}"'
    return f'fill="currentColor"{share}'


def columns(count: int, room: float, least: float) -> tuple[int, float]:
    """How many panels stand side by side, each ``least`` pixels wide or more, and how wide."""
    number = max(1, min(count, int((room + GAP) // (least + GAP))))
    return number, (room - (number - 1) * GAP) / number


def rows_of(count: int, number: int) -> Sequence[range]:
    """Panels row by row, ``number`` in each."""
    return [range(start, min(start + number, count)) for start in range(0, count, number)]
