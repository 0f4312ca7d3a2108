"""Which submodels a pack supports, and how much each of them loses at lower fidelities.

In: the depths and widths a checkpoint was trained for (the pack's notes carry them), and what was
measured of each at every uniform fidelity. Out: the ``submodels`` of the manifest: their loss at
the top and their curve from missing gains to loss, without those that another one beats. Knows
nothing of targets, or of how anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shard_tools.checkpoint.elastic import checked
from shard_tools.measuring.forward import uniform_precision
from shard_tools.measuring.judge import ANSWER, LOSS
from shard_tools.ranking.shard_losses import Bench
from sti.arrays import Float32Array
from sti.errors import PackFormatError
from sti.model.fidelity import Counts, groups_of, missing_of, uniform_counts
from sti.model.manifest import Manifest, Submodel

BLOCK_SHARE = 0.1
"""What a layer costs whatever its width, as a share of a whole layer."""

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """A submodel at every uniform fidelity, lowest first: ``[fidelities, 3, n]``."""

    submodel: Submodel
    found: Float32Array

    @property
    def losses(self) -> list[float]:
        """Mean loss at each fidelity, lowest first."""
        return [float(row[LOSS].mean(dtype=np.float64)) for row in self.found]


def trained_sizes(manifest: Manifest, *, where: str) -> list[Submodel]:
    """Every depth and width that training saw, the full model first; without loss or curve.

    A pack that does not tell has the full model only.

    Raises:
        PackFormatError: the notes name depths or widths that the model does not have.
    """
    dims, notes = manifest.dimensions, manifest.notes
    full = Submodel(dims.layers, dims.slices, tuple(range(dims.layers)), 0.0)
    if "depths" not in notes and "widths" not in notes:
        return [full]
    elastic = checked(
        notes.get("depths"),
        notes.get("widths"),
        layers=dims.layers,
        slices=dims.slices,
        where=f"{where}: notes",
        error=PackFormatError,
    )
    sizes = [
        Submodel(depth, width, kept, 0.0)
        for depth, kept in sorted(elastic.depths.items(), reverse=True)
        for width in sorted(elastic.widths, reverse=True)
    ]
    return [full, *(size for size in sizes if (size.depth, size.width) != _size(full))]


def measure_sizes(bench: Bench, manifest: Manifest, sizes: Sequence[Submodel]) -> list[Measured]:
    """Measure each submodel with every shard at one fidelity."""
    found = []
    for size in sizes:
        rows = [
            bench.measure(
                f"submodel/{size.depth}/{size.width}/{bits}",
                uniform_precision(manifest, size, bits),
                f"submodel {size.depth} x {size.width}",
            )
            for bits in manifest.ladder
        ]
        found.append(Measured(size, np.stack(rows)))
    return found


def metrics_of(
    measured: Sequence[Measured], ladder: Sequence[int], value: Callable[[Float32Array], float]
) -> dict[str, dict[str, float]]:
    """The metric as measured, by ``depth x width`` and bits: what the paper calls quality[n][m].

    Args:
        value: the metric of answers ``[n]``.
    """
    return {
        f"{item.submodel.depth}x{item.submodel.width}": {
            str(bits): round(value(row[ANSWER]), 4)
            for bits, row in zip(ladder, item.found, strict=True)
        }
        for item in measured
    }


def worthwhile(measured: Sequence[Measured], *, slices: int) -> list[Measured]:
    """Those that no other beats, the full model (the first) and the smallest in any case.

    One beats another that has no fewer weights, takes no less time by a rule of thumb (every layer
    costs something whatever its width), and at no fidelity has less loss.
    """

    def cost(item: Measured) -> tuple[float, float]:
        depth, width = item.submodel.depth, item.submodel.width
        return depth * width, depth * (width + BLOCK_SHARE * slices)

    def beats(one: Measured, other: Measured) -> bool:
        cheaper = all(a <= b for a, b in zip(cost(one), cost(other), strict=True))
        return cheaper and all(a <= b for a, b in zip(one.losses, other.losses, strict=True))

    full, smallest = measured[0], min(measured, key=cost)
    kept: list[Measured] = []
    for item in sorted(measured, key=cost):  # what beats an item comes before it
        if item in (full, smallest) or not any(beats(other, item) for other in kept):
            kept.append(item)
    return [full, *(item for item in measured if item in kept and item is not full)]


def with_curve(item: Measured, manifest: Manifest) -> Submodel:
    """The submodel with its loss and the curve through its uniform fidelities, made monotone.

    Args:
        manifest: holds the new gains.
    """
    groups = groups_of(manifest, item.submodel)
    points = [(0.0, _rounded(item.losses[-1]))]
    for bits, loss in list(zip(manifest.ladder, item.losses, strict=True))[-2::-1]:
        counts: list[Counts] = [uniform_counts(g, item.submodel.width, bits) for g in groups]
        lacking = _rounded(missing_of(item.submodel, groups, counts))
        loss = max(_rounded(loss), points[-1][1])
        if lacking > points[-1][0]:
            points.append((lacking, loss))
        elif lacking > 0.0:  # a plane without any gain
            points[-1] = (lacking, loss)
    missing, losses = zip(*points, strict=True)
    if len(points) == 1:
        missing = losses = ()
    return item.submodel._replace(loss=points[0][1], missing=missing, losses=losses)


def _size(item: Submodel) -> tuple[int, int]:
    return item.depth, item.width


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
