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
from shard_tools.quantization.grids import outlier_cut


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """All blocks of a model, and their code."""

    blocks: Sequence[QuantizedBlock]
    """In the order of execution."""
    encoder: Encoder
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
    return QuantizedModel(blocks, Encoder(codebook, cut=cut), side_products(blocks))


def _quantized(model: Model, grid_sigmas: float, line: Progress) -> Iterator[QuantizedBlock]:
    """Every block on its grids."""
    for layer in range(model.layers):
        for layout in model.kinds:
            weights = model.block(layer, layout.name)
            block = quantize_block(layer, layout, weights, grid_sigmas=grid_sigmas)
            line.step(block.weights, f"quantizing layer {layer}")
            yield block
