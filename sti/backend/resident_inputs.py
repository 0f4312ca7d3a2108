"""Which resident tensors a block computes with, cut to the slices in use.

In: a pack's resident tensors, a slice group, its kind, a width. Out: views of them by the names
that ``FORMAT.md`` gives the inputs of graphs. Every back end needs them. Knows nothing of streamed
weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.interface import ResidentTensors
from sti.model.manifest import BlockKind, SliceGroup

_CONNECT = ("bias", "gamma", "beta")


def group_residents(
    source: ResidentTensors, kind: BlockKind, group: SliceGroup, width: int
) -> dict[str, NDArray[Any]]:
    """Row scales, biases and side inputs of the first ``width`` slices of a slice group.

    Args:
        kind: the group's.
    """
    base, slices = f"layer.{group.layer}.{kind.name}", source.manifest.dimensions.slices
    first, last = group.first, group.first + width

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        each = len(array) // slices
        return array[first * each : last * each]

    values = {name: cut(source.resident(f"{base}.{name}")).reshape(-1) for name in kind.sliced}
    values |= {name: source.resident(f"{base}.{name}") for name in kind.shared}
    for side in kind.side:
        index = source.resident(f"{base}.{side.name}_idx")
        weights = source.resident(f"{base}.{side.name}_w")
        if (channels := side.channels_per_slice) > 0:
            begin, end = np.searchsorted(index, (first * channels, last * channels)).tolist()
            index, weights = index[begin:end], weights[begin:end]
            if first:
                index = index - first * channels
        else:
            weights = cut(weights)
        values[f"{side.name}_idx"] = index
        values[f"{side.name}_w"] = weights
    return values


def connect_residents(source: ResidentTensors, layer: int, kind: str) -> dict[str, NDArray[Any]]:
    """Bias and normalization of a block's ``connect``."""
    return {name: source.resident(f"layer.{layer}.{kind}.{name}") for name in _CONNECT}
