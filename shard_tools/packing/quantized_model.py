"""The encoder on its int8 grids, and the codebook it is stored with.

In: a model's float matrices, a ladder. Out: a ``QuantizedModel``: every block on its grids, the
codebook cut from their pooled histogram, and the tensors that stay resident. The int8 matrices of
the whole model are in memory at once, a quarter of a float checkpoint. Knows nothing of planes'
order or of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import Model
from shard_tools.progress import Progress
from shard_tools.quantization.blocks import QuantizedBlock, quantize_block, side_products
from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import Encoder
from shard_tools.quantization.grids import (
    DEFAULT_GRID_SIGMAS,
    NARROW_GRID_SIGMAS,
    far_channels,
    outlier_cut,
)

_FAR_SHARE = 0.001
"""Of all channels: a model with more of them that have far weights gets wide grids."""


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """All blocks of a model, and their code."""

    blocks: Sequence[QuantizedBlock]
    """In the order of execution."""
    encoder: Encoder
    grid_sigmas: float
    """Half the width of its grids."""
    side: Mapping[str, Sequence[str]]
    """For each kind of block, the products whose graphs take side inputs."""

    def residents(self) -> dict[str, NDArray[Any]]:
        """The resident tensors of all blocks, by their names in the pack."""
        found: dict[str, NDArray[Any]] = {}
        for block in self.blocks:
            base = f"layer.{block.layer}.{block.layout.name}"
            tensors = block.residents(self.side[block.layout.name])
            found |= {f"{base}.{name}": array for name, array in tensors.items()}
        return found


def quantize_model(
    model: Model, ladder: Sequence[int], *, grid_sigmas: float, line: Progress
) -> QuantizedModel:
    """Put a model on its grids and cut its codebook.

    Args:
        line: is stepped by 1 a weight.

    Raises:
        CheckpointError: a tensor is missing or cannot be used; names it.
    """
    blocks = list(_quantized(model, grid_sigmas, line))
    counts = np.zeros(256, dtype=np.int64)
    for block in blocks:
        for grid in block.matrices.values():
            counts += histogram(grid.q)
    cut = outlier_cut(grid_sigmas=grid_sigmas)
    codebook = build_codebook(counts, cut=cut, ladder=ladder)
    return QuantizedModel(blocks, Encoder(codebook, cut=cut), grid_sigmas, side_products(blocks))


def fitting_grid(model: Model) -> float:
    """Half the width of the grids that suit a model, in standard deviations of a channel.

    Wide where channels have weights far outside, else narrow. Reads blocks until that is known,
    which is soon for trained models.

    Raises as ``quantize_model``.
    """
    products = [product for kind in model.kinds for product in kind.products]
    allowed = _FAR_SHARE * model.layers * sum(product.columns for product in products)
    far = 0
    for layer in range(model.layers):
        for layout in model.kinds:
            matrices = model.block(layer, layout.name).matrices
            far += sum(map(far_channels, matrices.values()))
            if far > allowed:
                return DEFAULT_GRID_SIGMAS
    return NARROW_GRID_SIGMAS


def _quantized(model: Model, grid_sigmas: float, line: Progress) -> Iterator[QuantizedBlock]:
    """Every block on its grids."""
    for layer in range(model.layers):
        for layout in model.kinds:
            weights = model.block(layer, layout.name)
            block = quantize_block(layer, layout, weights, grid_sigmas=grid_sigmas)
            line.step(block.weights, f"quantizing layer {layer}")
            yield block
