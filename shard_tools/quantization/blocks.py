"""Quantizing a block: from float matrices to int8 shards, resident tensors and float operands.

In: one block's float tensors and the layout of its kind. Out: its integer matrices cut into
slices, its resident tensors, and float operands at any fidelity. Knows nothing of checkpoints,
codes or files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import BlockWeights, KindLayout
from shard_tools.quantization.grids import QuantizedMatrix, quantize_matrix
from sti.arrays import Float32Array
from sti.model.manifest import COLUMNS, ROWS, BlockKind, Operand, SideInput

GROUP_BYTES = 262_144
"""A slice group has at least this many bytes at 2 bits, where its block has: smaller reads would
not keep storage busy, larger groups would take more memory for nothing."""

_LOWEST_BITS = 2


@dataclass(frozen=True, slots=True)
class QuantizedBlock:
    """One block of one layer, quantized."""

    layer: int
    layout: KindLayout
    matrices: Mapping[str, QuantizedMatrix]
    """Product name to its matrix, ``[in, out]``."""
    vectors: Mapping[str, Float32Array]

    @property
    def weights(self) -> int:
        """Weights of all its matrices."""
        return sum(grid.q.size for grid in self.matrices.values())

    def shard(self, index: int, slices: int) -> NDArray[np.int8]:
        """All weights of one slice, flat, in the order of the operands; a new array."""
        pieces = []
        for product in self.layout.products:
            parts = product.split(self.matrices[product.name].q)
            each = product.parts // slices
            pieces.append(parts[index * each : (index + 1) * each].reshape(-1))
        return np.concatenate(pieces)

    def operand_sizes(self, slices: int) -> tuple[int, ...]:
        """Weights of each operand in one slice."""
        return tuple(
            self.matrices[product.name].q.size // slices for product in self.layout.products
        )

    def operands(self, values: Float32Array) -> dict[str, Float32Array]:
        """Float operands ``[parts, in, out]``, side weights included.

        Args:
            values: float32 ``[256]``: what replaces each int8 value, indexed by its bits as uint8.
        """
        found = {}
        for product in self.layout.products:
            grid = self.matrices[product.name]
            weights = values[grid.q.view(np.uint8)]
            weights *= grid.scale
            weights[grid.side_index] += grid.side_weights
            found[product.name] = product.split(weights)
        return found

    def residents(self, side: Collection[str]) -> dict[str, NDArray[Any]]:
        """Resident inputs of the block's graph and of ``connect``, by graph input.

        Args:
            side: products with side inputs in at least one block of the kind.
        """
        found: dict[str, NDArray[Any]] = dict(self.vectors)
        for product in self.layout.products:
            grid = self.matrices[product.name]
            scale, weights = grid.scale, grid.side_weights
            if product.cuts_outputs:
                scale = product.split_rows(scale[None])
                weights = product.split_rows(weights)
            found[f"{product.name}_scale"] = scale
            if product.name in side:
                found[f"{product.name}_idx"] = grid.side_index
                found[f"{product.name}_w"] = weights
        return found


def quantize_block(
    layer: int, layout: KindLayout, weights: BlockWeights, *, grid_sigmas: float
) -> QuantizedBlock:
    """Quantize every matrix of a block to its int8 grids.

    Raises:
        CheckpointError: a matrix has weights that are not finite; names layer and matrix.
        InputError: ``grid_sigmas`` is not positive.
    """
    matrices = {
        name: quantize_matrix(matrix, name=f"layer {layer} {name}", grid_sigmas=grid_sigmas)
        for name, matrix in weights.matrices.items()
    }
    return QuantizedBlock(layer, layout, matrices, weights.vectors)


def side_products(blocks: Collection[QuantizedBlock]) -> dict[str, tuple[str, ...]]:
    """For each kind, the products that need a side input in at least one layer."""
    found: dict[str, dict[str, None]] = {}
    for block in blocks:
        names = found.setdefault(block.layout.name, {})
        for product in block.layout.products:
            if len(block.matrices[product.name].side_index):
                names[product.name] = None
    return {
        block.layout.name: tuple(
            product.name
            for product in block.layout.products
            if product.name in found[block.layout.name]
        )
        for block in blocks
    }


def group_sizes(weights: int, slices: int, *, group_bytes: int = GROUP_BYTES) -> tuple[int, ...]:
    """Slices of each group of a block: as many equal groups as all have ``group_bytes`` at 2 bits.

    Args:
        weights: of one slice.
        slices: of the block.
    """
    most = max(1, slices * weights * _LOWEST_BITS // 8 // group_bytes)
    groups = next(number for number in range(min(most, slices), 0, -1) if slices % number == 0)
    return (slices // groups,) * groups


def manifest_kind(
    layout: KindLayout, slices: int, side: Collection[str], *, group_bytes: int = GROUP_BYTES
) -> BlockKind:
    """How the manifest describes a kind of block."""
    operands, sides = [], []
    for product in layout.products:
        each = product.parts // slices
        shape = product.part_shape if each == 1 else (each, *product.part_shape)
        joined = COLUMNS if product.cuts_outputs else ROWS
        operands.append(Operand(product.name, shape, joined))
        if product.name in side:
            channels = 0 if product.cuts_outputs else product.rows // slices
            sides.append(SideInput(product.name, channels))
    cut = [f"{product.name}_scale" for product in layout.products if product.cuts_outputs]
    whole = [f"{product.name}_scale" for product in layout.products if not product.cuts_outputs]
    weights = sum(product.rows * product.columns for product in layout.products) // slices
    return BlockKind(
        name=layout.name,
        slice_unit=layout.slice_unit,
        input_kind=layout.input_kind,
        operands=tuple(operands),
        sliced=(*cut, *layout.sliced),
        shared=tuple(whole),
        side=tuple(sides),
        groups=group_sizes(weights, slices, group_bytes=group_bytes),
    )
