"""What charts show: axes, series, bands, marks, a highlighted point. Pure.

In: values. Out: frozen panels for `line_charts`, and the scales that their values need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sti.report.svg.scale import Scale

_ROOM = (0.02, 0.06)
"""Shares of the ranges of x and y that stay free at both ends."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis says."""

    label: str
    """With the unit."""
    log: bool = False
    ticks: tuple[float, ...] = ()
    """Where labels stand, as far as there is room; empty: at round values."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together, x rising; a coordinate that is NaN leaves a gap."""

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    line: str | None = "solid"
    """One of ``DASHES``; None: points alone."""
    marker: str | None = None
    """One of ``MARKERS``."""
    step: bool = False
    """Whether each value holds until the next x."""


@dataclass(frozen=True, slots=True)
class Band:
    """An area between two values at each x, low and high; NaN leaves a gap."""

    label: str
    """Empty: not in the legend."""
    colour: str
    points: Sequence[tuple[float, float, float]]
    opacity: float = 0.16


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something changes along x: a line across, and words above it."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Highlight:
    """The point to look at."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart of several that share a legend."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()
    highlight: Highlight | None = None

    def values(self) -> tuple[list[float], list[float]]:
        """All that is shown along x, and along y."""
        xs = [*self.x.ticks, *(mark.x for mark in self.marks)]
        ys = [*self.y.ticks]
        shown: list[Sequence[Sequence[float]]] = [item.points for item in self.series]
        shown += [item.points for item in self.bands]
        if self.highlight is not None:
            shown.append([(self.highlight.x, self.highlight.y)])
        for x, *values in (point for points in shown for point in points):
            if not any(map(math.isnan, (x, *values))):
                xs.append(x)
                ys += values
        return xs, ys


def scales(panels: Sequence[Panel], *, same_y: bool) -> list[tuple[Scale, Scale]]:
    """Of x and y of each panel, around all that it shows; with ``same_y`` around what any shows.

    Raises:
        InputError: nothing is shown, or a value is infinite or has no logarithm.
    """
    found = [panel.values() for panel in panels]
    together = [value for _, ys in found for value in ys]
    return [
        (
            Scale.around(xs, log=panel.x.log, margin=_ROOM[0]),
            Scale.around(together if same_y else ys, log=panel.y.log, margin=_ROOM[1]),
        )
        for panel, (xs, ys) in zip(panels, found, strict=True)
    ]
