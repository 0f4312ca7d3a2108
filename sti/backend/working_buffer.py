"""A working buffer: where one slice group's decoded weights lie.

In: how many bytes the largest group has; a block kind and how many slices are in use. Out: one
matrix per operand, as graphs take them. Knows nothing of planes, files or of what computes with the
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sti.codec.pieces import OperandRoom
from sti.model.decoded_size import aligned
from sti.model.manifest import COLUMNS, BlockKind, Operand
from sti.storage.reader import aligned_buffer

_UNSIGNED_ZERO = 128
"""The weight 0 where weights are uint8."""


class WorkingBuffer:
    """Room for the decoded weights of one slice group, of any kind that it is large enough for.

    Args:
        size: bytes, as ``sti.model.decoded_size`` tells them.
    """

    __slots__ = ("_memory", "_rooms")

    def __init__(self, size: int) -> None:
        self._memory = aligned_buffer(size)
        self._rooms: dict[tuple[str, int, np.dtype[Any]], tuple[OperandRoom, ...]] = {}

    def operands(self, kind: BlockKind, used: int, dtype: np.dtype[Any]) -> tuple[OperandRoom, ...]:
        """Room for the operands of some slices, in the buffer's own memory; the same every time.

        Args:
            kind: whose operands; kinds are told apart by their names.
            used: slices, at least 1.
            dtype: of the weights, int8 or uint8.
        """
        key = (kind.name, used, dtype)
        found = self._rooms.get(key)
        if found is None:
            rooms, start = [], 0
            for operand in kind.operands:
                size = used * prod(operand.shape)
                memory = self._memory[start : start + size].view(dtype)
                rooms.append(_room(memory, operand, used))
                start += aligned(size)
            found = self._rooms.setdefault(key, tuple(rooms))
        return found


def copy_slice(target: Sequence[OperandRoom], source: Sequence[OperandRoom], number: int) -> None:
    """Copy the weights of one slice from room for the same operands."""
    for mine, theirs in zip(target, source, strict=True):
        np.copyto(mine.of(number), theirs.of(number))


def clear_slice(target: Sequence[OperandRoom], number: int) -> None:
    """Make all weights of one slice zero, as the type of weights writes it."""
    for room in target:
        room.of(number)[...] = _UNSIGNED_ZERO if room.matrix.dtype == np.uint8 else 0


def _room(memory: np.ndarray[Any, Any], operand: Operand, used: int) -> OperandRoom:
    *several, rows, columns = operand.shape
    parts = prod(several)
    joined = operand.joined == COLUMNS
    shape = (rows, used * parts * columns) if joined else (used * parts * rows, columns)
    return OperandRoom(memory.reshape(shape), used, parts, joined)
