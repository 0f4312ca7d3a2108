"""From a plan's expected loss to its metric: a curve fitted to measured plans.

In: expected losses and measured metrics of plans: submodels at uniform fidelities, and mixed plans
such as the planner makes, drawn at random. Out: ``Quality`` and ``Rejection`` of the manifest:
monotone piecewise linear curves with few knots, and the residual on plans left out of the fit.
All chance comes from a generator that is passed in. Knows nothing of packs' bytes or of how
anything is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sti.arrays import Float64Array
from sti.model.fidelity import Counts, groups_of
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.model.quality import interpolate

MOST_KNOTS = 24
_POINTS_A_KNOT = 4
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Curve:
    """Knots: where, rising, and the values there."""

    places: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, place: float) -> float:
        """Linear in between, flat beyond the ends."""
        return interpolate(self.places, self.values, place)


@dataclass(frozen=True, slots=True)
class Mixed:
    """A plan's submodel and shard counts, without a target or a machine."""

    submodel: Submodel
    counts: tuple[Counts, ...]


def draw_mixed(manifest: Manifest, rng: np.random.Generator) -> Mixed:
    """A random submodel with random staircases, as the planner makes them.

    In every second one a shard gets the next plane where that gains the most for its bytes,
    anywhere in the submodel; in the others each slice group has its own random staircase.
    """
    submodel = manifest.submodels[rng.integers(len(manifest.submodels))]
    groups = groups_of(manifest, submodel)
    widths = [group.used(submodel.width) for group in groups]
    planes = len(manifest.ladder)
    if rng.random() < 0.5:
        lowest = int(rng.integers(planes))
        worth = [
            [_worth(group, plane, width) for plane in range(planes)]
            for group, width in zip(groups, widths, strict=True)
        ]
        most = [float(gain) for group in worth for row in group[lowest + 1 :] for gain in row]
        least = float(np.quantile(most or [0.0], rng.random()))
        reached = [_staircase(group, lowest, least) for group in worth]
    else:
        reached = []
        for width in widths:
            full = int(rng.integers(1, planes + 1))
            rest = np.sort(rng.integers(0, width + 1, planes - full))[::-1]
            reached.append([width] * full + [int(number) for number in rest])
    counts = tuple(
        tuple(_prefix(group, plane, number, width) for plane, number in enumerate(row))
        for group, row, width in zip(groups, reached, widths, strict=True)
    )
    return Mixed(submodel, counts)


def _worth(group: SliceGroup, plane: int, width: int) -> Float64Array:
    """Gain for each byte of a plane, of the group's slices in use."""
    item = group.planes[plane]
    return np.asarray(item.gains[:width], dtype=np.float64) / item.shard_bytes


def _staircase(worth: Sequence[Float64Array], lowest: int, least: float) -> list[int]:
    """Slices in use of each plane: all up to the lowest, then those worth at least ``least``."""
    used = [len(worth[0])] * (lowest + 1)
    for row in worth[lowest + 1 :]:
        used.append(min(used[-1], int((row >= least).sum())))
    return used


def _prefix(group: SliceGroup, plane: int, reached: int, width: int) -> int:
    """Shards of a plane to read so that ``reached`` of the group's slices in use have it."""
    places = [place for place, index in enumerate(group.planes[plane].order) if index < width]
    return places[reached - 1] + 1 if reached else 0


def fit_curve(places: Sequence[float], values: Sequence[float], *, falling: bool) -> Curve:
    """A piecewise linear curve through points in no order.

    Points are put into bins of neighbours, whose means are the knots; where ``falling``, bins are
    pooled until no value is above that of a smaller place (isotonic regression). Points at 0, the
    full model at the top, have a bin of their own, and so has the farthest point.

    Args:
        places: not negative, at least one.
    """
    where, what = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
    order = np.argsort(where, kind="stable")
    where, what = where[order], what[order]
    zeros = int((where == 0.0).sum())
    rest = len(where) - zeros
    count = min(MOST_KNOTS - 2, -(-rest // _POINTS_A_KNOT))
    edges = [0] * (zeros > 0) + [zeros + rest * step // max(count, 1) for step in range(count + 1)]
    if count > 1:  # the farthest point has a bin of its own: beyond the last knot a curve is flat
        edges.insert(-1, len(where) - 1)
    bins = [slice(low, high) for low, high in pairwise(edges) if high > low]
    x = np.array([where[cut].mean() for cut in bins])
    y = np.array([what[cut].mean() for cut in bins])
    weights = np.array([float(cut.stop - cut.start) for cut in bins])
    if falling:
        y = pool_falling(y, weights)
    # A threshold that is rounded up to 1 would let nothing through.
    scale = 10.0**_DIGITS
    y = np.round(y, _DIGITS) if falling else np.floor(y * scale) / scale
    knots: dict[float, float] = {}
    for place, value in zip(x.tolist(), y.tolist(), strict=True):
        knots.setdefault(float(f"{place:.{_DIGITS}g}"), value)
    return Curve(tuple(knots), tuple(knots.values()))


def pool_falling(values: Float64Array, weights: Float64Array) -> Float64Array:
    """The closest sequence (weighted least squares) that never rises: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return np.repeat([mean for mean, _, _ in pools], [length for _, _, length in pools])


@dataclass(frozen=True, slots=True)
class Residual:
    """How far a curve is off, on points it was not fitted to."""

    deviation: float
    """Root mean square."""
    mean_absolute: float
    largest: float


def residual(curve: Curve, places: Sequence[float], values: Sequence[float]) -> Residual:
    """Measured minus predicted; at least one point."""
    missed = np.array([curve.at(place) for place in places]) - np.asarray(values)
    return Residual(
        deviation=float(np.sqrt(np.square(missed).mean())),
        mean_absolute=float(np.abs(missed).mean()),
        largest=float(np.abs(missed).max()),
    )
