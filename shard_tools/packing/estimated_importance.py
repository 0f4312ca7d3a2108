"""How much each plane of each shard matters, as training estimated it.

In: what a checkpoint was trained for, and the planes that the pack is to have. Out: gains for each
block in place of those that ``activation_importance`` measures, where they are of these planes.
Knows nothing of how they were estimated.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from shard_tools.checkpoint.elastic import ELASTIC, Estimate
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.source import Source
from shard_tools.quantization.blocks import QuantizedBlock
from shard_tools.quantization.grids import DEFAULT_GRID_SIGMAS
from sti.arrays import Float64Array
from sti.errors import CheckpointError


class EstimatedImportance:
    """Gives the gains that training left, in place of a ``Meter``."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._blocks = 0

    def measure(self, block: QuantizedBlock) -> Float64Array:
        """As ``Meter.measure``; nothing is measured."""
        self._blocks += 1
        return np.array(self._estimate.gains[block.layer, block.layout.name])

    def arriving(self) -> list[float]:
        """As ``Meter.arriving``: the gains are in the unit of the head's answers already."""
        return [1.0] * self._blocks


def estimate_for(source: Source, options: BuildOptions) -> Estimate | None:
    """The checkpoint's estimate, if it is of the pack's planes and no other one is asked for.

    Raises:
        CheckpointError: a block of the model has no gains in it.
    """
    elastic = source.elastic
    if elastic is None or elastic.estimate is None or options.calibration is not None:
        return None
    usual = options.grid_sigmas in (None, DEFAULT_GRID_SIGMAS)
    if source.ladder != elastic.ladder or not usual:
        return None  # training knew other planes
    for layer, layout in product(range(source.model.layers), source.model.kinds):
        if (layer, layout.name) not in elastic.estimate.gains:
            raise CheckpointError(
                f"{source.directory / ELASTIC}: importance has no gains of layer {layer} "
                f"{layout.name}; train the checkpoint again, or remove the member"
            )
    return elastic.estimate


def estimate_notes(estimate: Estimate) -> dict[str, Any]:
    """What a pack's notes say of where its gains come from."""
    return {
        "importance": f"divergence from the full model's answers, estimated ({estimate.measure})",
        "calibration": f"{estimate.examples} rows of the checkpoint's",
    }
