"""A working buffer: where one slice group's decoded weights lie.

In: a block kind's operands. Out: one array per operand, as graphs take them. Knows nothing of
planes, files or of what computes with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sti.model.fidelity import WORKING_BUFFERS
from sti.model.manifest import Manifest
from sti.storage.reader import aligned_buffer

_UNSIGNED_ZERO = 128
"""The weight 0 where weights are uint8."""


class WorkingBuffer:
    """Room for the decoded weights of one slice group. Threads may write different slices.

    Args:
        shapes: of each operand's part of one slice; a slice's weights fill them in this order.
        slices: of the largest group.
        dtype: of the weights, int8 or uint8.

    Attributes:
        operands: one ``[slices, *shape]`` array per operand.
    """

    __slots__ = ("operands",)

    def __init__(self, shapes: Sequence[tuple[int, ...]], slices: int, dtype: DTypeLike) -> None:
        # Each starts on a page of its own, because stores that cross cache lines are slow.
        self.operands: tuple[NDArray[Any], ...] = tuple(
            aligned_buffer(slices * prod(shape))[: slices * prod(shape)]
            .view(dtype)
            .reshape(slices, *shape)
            for shape in shapes
        )

    def another(self) -> WorkingBuffer:
        """A new buffer for the same operands, slices and type of weights."""
        shapes = [operand.shape[1:] for operand in self.operands]
        return WorkingBuffer(shapes, len(self.operands[0]), self.operands[0].dtype)

    def copy_slice(self, number: int, other: WorkingBuffer) -> None:
        """Copy the weights of one slice from a buffer for the same operands."""
        for mine, theirs in zip(self.operands, other.operands, strict=True):
            np.copyto(mine[number], theirs[number])

    def clear_slice(self, number: int) -> None:
        """Make all weights of one slice zero, as the type of weights writes it."""
        for operand in self.operands:
            operand[number] = _UNSIGNED_ZERO if operand.dtype == np.uint8 else 0


def make_buffers(manifest: Manifest, dtype: DTypeLike) -> dict[str, tuple[WorkingBuffer, ...]]:
    """The working buffers that running a pack takes, by block kind.

    Args:
        dtype: of the weights, int8 or uint8.
    """
    return {
        kind.name: tuple(
            WorkingBuffer([operand.shape for operand in kind.operands], max(kind.groups), dtype)
            for _ in range(WORKING_BUFFERS)
        )
        for kind in manifest.kinds
    }
