"""Which resident tensors a block computes with, cut to the slices in use.

In: a pack's resident tensors, a layer, a block kind, a width. Out: views of them by the names that
``FORMAT.md`` gives the inputs of graphs. Every back end needs them. Knows nothing of streamed
weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.interface import ResidentTensors
from sti.model.manifest import BlockKind

_CONNECT = ("bias", "gamma", "beta")


def block_residents(
    source: ResidentTensors, layer: int, kind: BlockKind, width: int
) -> dict[str, NDArray[Any]]:
    """Row scales, biases and side inputs of one block, cut to the first ``width`` slices."""
    base, slices = f"layer.{layer}.{kind.name}", source.manifest.dimensions.slices

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        return array[: len(array) * width // slices]

    values = {name: cut(source.resident(f"{base}.{name}")) for name in kind.sliced}
    values |= {name: source.resident(f"{base}.{name}") for name in kind.shared}
    for side in kind.side:
        index = source.resident(f"{base}.{side.name}_idx")
        weights = source.resident(f"{base}.{side.name}_w")
        if side.channels_per_slice:
            used = int(np.searchsorted(index, width * side.channels_per_slice))
            index, weights = index[:used], weights[:used]
        else:
            weights = cut(weights)
        values[f"{side.name}_idx"] = index
        values[f"{side.name}_w"] = weights
    return values


def connect_residents(source: ResidentTensors, layer: int, kind: str) -> dict[str, NDArray[Any]]:
    """Bias and normalization of a block's ``connect``."""
    return {name: source.resident(f"layer.{layer}.{kind}.{name}") for name in _CONNECT}
