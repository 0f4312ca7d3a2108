"""Summary of growth over devices and links: efficiency, exponents, and from where on others pay.

In: medians of runs at several values of x, beside those of one device. Out: fits and tables. Pure.
Knows nothing of how the points were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from benchmarks.common import Cell, Column, Table
from benchmarks.growth_fit import exponent
from sti.planning.strategies import WORTH


class Point(NamedTuple):
    """The runs at one value of x."""

    x: float
    devices: int
    layers: str
    """Which device has which layers."""
    units: int
    """Parts that the batch was divided into."""
    operations: int
    """Multiply-adds."""
    read_bytes: int
    """From storage, on all devices."""
    sent_bytes: int
    measured_s: float
    """Median."""
    predicted_s: float
    roof_s: float
    """The least that the same work can take on so many devices."""
    limiting: str
    """What takes longest on the path to the answer, by prediction."""
    alone_s: float
    """Median of one device, in the same turns."""
    alone_predicted_s: float

    @property
    def efficiency(self) -> float:
        """The roof over what was measured."""
        return self.roof_s / self.measured_s

    @property
    def times(self) -> float:
        """How many times as fast as one device, measured."""
        return self.alone_s / self.measured_s

    @property
    def predicted_times(self) -> float:
        """How many times as fast as one device, predicted."""
        return self.alone_predicted_s / self.predicted_s


class Series(NamedTuple):
    """What was measured along one axis, x rising."""

    name: str
    unit: str
    """Of x, in the plural."""
    points: tuple[Point, ...]

    @property
    def xs(self) -> list[float]:
        """Of all points."""
        return [point.x for point in self.points]


class Stretch(NamedTuple):
    """Where something holds along an axis: between two x, or beyond the ends (None)."""

    first: float | None
    last: float | None


def stretches(xs: Sequence[float], times: Sequence[float], least: float) -> list[Stretch]:
    """Where devices are at least so many times as fast.

    Between two points the ratio is taken to be a power of x, as in the fits.

    Args:
        xs: rising, above 0.
        times: at each of them, above 0.
        least: how many.
    """
    ahead = [math.log(found / least) for found in times]
    found: list[Stretch] = []
    begun: float | None = None
    for (x, lead), (next_x, next_lead) in pairwise(zip(xs, ahead, strict=True)):
        if (lead >= 0.0) == (next_lead >= 0.0):
            continue
        crossed = math.exp(math.log(x) + lead / (lead - next_lead) * math.log(next_x / x))
        if lead >= 0.0:
            found.append(Stretch(begun, crossed))
        begun = crossed
    if ahead and ahead[-1] >= 0.0:
        found.append(Stretch(begun, None))
    return found


def words_of(found: Sequence[Stretch], xs: Sequence[float], unit: str) -> str:
    """Stretches in words: ``from 8.1 Mbit on``, ``up to 230 tokens``."""
    if not found:
        return f"nowhere from {xs[0]:g} to {xs[-1]:g} {unit}"
    if found == [Stretch(None, None)]:
        return f"everywhere from {xs[0]:g} to {xs[-1]:g} {unit}"
    return " and ".join(_stretch_words(item, unit) for item in found)


def _stretch_words(item: Stretch, unit: str) -> str:
    if item.first is None:
        return f"up to {item.last:.3g} {unit}"
    if item.last is None:
        return f"from {item.first:.3g} {unit} on"
    return f"from {item.first:.3g} to {item.last:.3g} {unit}"


def limits_words(series: Series) -> str:
    """What limits, x rising: ``link to storage between 25 and 50``."""
    changes = [
        f"{one.limiting} to {two.limiting} between {one.x:g} and {two.x:g}"
        for one, two in pairwise(series.points)
        if one.limiting != two.limiting
    ]
    return "; ".join(changes) or series.points[0].limiting


def series_table(series: Series) -> Table:
    """A series, point by point."""
    columns = (
        *(Column(series.unit, "g"), Column("layers"), Column("units")),
        *(Column("10^9 multiply-adds", ".1f"), Column("MB streamed", ".1f")),
        *(Column("MB sent", ".3f"), Column("measured ms", ".1f"), Column("predicted ms", ".1f")),
        *(Column("off", "+.1%"), Column("roof ms", ".1f"), Column("roof / measured", ".2f")),
        *(Column("one device ms", ".1f"), Column("times as fast", ".2f")),
        *(Column("over devices", ".2f"), Column("limited by")),
    )
    table = Table(f"{series.name}: medians", columns)
    for point in series.points:
        cells: tuple[Cell, ...] = (
            *(point.x, point.layers, point.units, point.operations / 1e9),
            *(point.read_bytes / 1e6, point.sent_bytes / 1e6),
            *(point.measured_s * 1e3, point.predicted_s * 1e3),
            point.predicted_s / point.measured_s - 1.0,
            *(point.roof_s * 1e3, point.efficiency, point.alone_s * 1e3),
            *(point.times, point.times / point.devices, point.limiting),
        )
        table.rows.append(cells)
    return table


def fit_table(found: Sequence[Series]) -> Table:
    """Exponents of every series, and what limits."""
    columns = (
        *(Column("what"), Column("of"), Column("measured", ".2f"), Column("predicted", ".2f")),
        *(Column("roof", ".2f"), Column("bytes sent", ".2f"), Column("limited by")),
    )
    table = Table("Fits over devices and links: the power of x that times grow with", columns)
    for series in found:
        xs, points = series.xs, series.points
        sent = [point.sent_bytes for point in points]
        table.rows.append(
            (
                *(series.name, series.unit),
                exponent(xs, [point.measured_s for point in points]),
                exponent(xs, [point.predicted_s for point in points]),
                exponent(xs, [point.roof_s for point in points]),
                exponent(xs, sent) if all(sent) else None,
                limits_words(series),
            )
        )
    return table


def pays_table(found: Sequence[Series]) -> Table:
    """Where several devices are faster than one, and where so much that they are taken."""
    kinds = [
        (said, least) for said, least in (("faster", 1.0), (f"{WORTH:g} times as fast", WORTH))
    ]
    columns = [Column("what")]
    columns += [Column(f"{said}, {how}") for said, _ in kinds for how in ("measured", "predicted")]
    table = Table("Several devices pay", tuple(columns))
    for series in found:
        xs, cells = series.xs, [series.name]
        for _, least in kinds:
            for times in (
                [point.times for point in series.points],
                [point.predicted_times for point in series.points],
            ):
                cells.append(words_of(stretches(xs, times, least), xs, series.unit))
        table.rows.append(tuple(cells))
    return table
