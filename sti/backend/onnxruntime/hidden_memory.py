"""Memory for token embeddings and hidden states, kept between runs.

In: sizes of groups. Out: arrays, and OrtValues over them, in memory that grows to the largest group
and stays, so that repeated runs allocate nothing. Each array has pages of its own, which go back to
the system as soon as it is freed. Knows nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sti.arrays import ByteArray, Float32Array
from sti.backend.onnxruntime.session import ort_value
from sti.storage.reader import aligned_buffer

_EMBEDDINGS, _HIDDEN, _VALUES, _SCALES, _PARTIAL = range(5)
"""What memory is for; partial sums are numbered from the last on."""

HIDDEN_INPUTS = ("h", "xq", "xs")
"""Names of the inputs of a graph of all blocks: hidden states, their values and scales."""
HIDDEN_OUTPUTS = ("next_h", "next_xq", "next_xs")
"""Names of its outputs."""
MASK = "mask"
"""Name of its input for what is added to attention scores."""


class Held(NamedTuple):
    """An array and an OrtValue over it."""

    array: NDArray[Any]
    value: Any


class Rows(NamedTuple):
    """OrtValues over the hidden states of some tokens, ``[R, B, hidden]``."""

    hidden: Any
    values: Any
    scales: Any


class StateMemory:
    """The arrays of one group of B sentences of S tokens, token-major.

    Args:
        shape: ``[S, B, hidden]``.
        take: gives memory of some bytes for a purpose.

    Attributes:
        hidden: float32 ``[S, B, hidden]``.
        values, scales: the same quantized, uint8 ``[S, B, hidden]`` and float32 ``[S, B, 1]``.
    """

    def __init__(self, shape: tuple[int, int, int], take: Callable[[int, int], ByteArray]) -> None:
        self.shape, self._take = shape, take
        self.hidden = self._held(_HIDDEN, shape, np.float32)
        self.values = self._held(_VALUES, shape, np.uint8)
        self.scales = self._held(_SCALES, (*shape[:2], 1), np.float32)
        self._partials: list[Held] = []
        self._rows: dict[tuple[int, int], Rows] = {}
        self._partial_rows: dict[tuple[int, int, int], Any] = {}

    def partial(self, number: int) -> Float32Array:
        """Memory for a partial sum, the same for a number; numbers are asked for from 0 on."""
        if number == len(self._partials):
            self._partials.append(self._held(_PARTIAL + number, self.shape, np.float32))
        return self._partials[number].array

    def value(self, partial: Float32Array, first: int = 0, last: int | None = None) -> Any:
        """The OrtValue over a partial sum's array, or over some of its tokens."""
        number = next(n for n, held in enumerate(self._partials) if held.array is partial)
        if last is None or last - first == self.shape[0]:
            return self._partials[number].value
        key = (number, first, last)
        found = self._partial_rows.get(key)
        return found or self._partial_rows.setdefault(key, ort_value(partial[first:last]))

    def rows(self, first: int, last: int) -> Rows:
        """The hidden states of tokens ``first`` to ``last - 1``."""
        found = self._rows.get((first, last))
        if found is None:
            every = (self.hidden, self.values, self.scales)
            made = Rows(*(ort_value(held.array[first:last]) for held in every))
            found = self._rows.setdefault((first, last), made)
        return found

    def _held(self, purpose: int, shape: tuple[int, ...], dtype: DTypeLike) -> Held:
        size = prod(shape) * np.dtype(dtype).itemsize
        array = self._take(purpose, size)[:size].view(dtype).reshape(shape)
        return Held(array, ort_value(array))


class HiddenMemory:
    """The memory of one back end. Not thread-safe, but for partial sums of one state.

    Args:
        let_go: called before memory is replaced or given back: what still refers to it would keep
            it alive.
    """

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._memory: dict[tuple[int, int], ByteArray] = {}
        self._states: dict[int, StateMemory] = {}

    def embeddings(self, shape: tuple[int, int, int]) -> Float32Array:
        """Memory that all groups share for token embeddings, ``[B, S, hidden]``."""
        size = 4 * prod(shape)
        return self._taken(0, _EMBEDDINGS, size)[:size].view(np.float32).reshape(shape)

    def state(self, place: int | None, shape: tuple[int, int, int]) -> StateMemory:
        """Memory for the group with this number; None: new memory."""
        if place is None:
            return StateMemory(shape, lambda _, size: aligned_buffer(size))
        found = self._states.get(place)
        if found is None or found.shape != shape:
            found = StateMemory(shape, lambda purpose, size: self._taken(place, purpose, size))
            self._states[place] = found
        return found

    def _taken(self, place: int, purpose: int, size: int) -> ByteArray:
        if (place, purpose) == (0, _PARTIAL):
            purpose = _EMBEDDINGS  # no longer needed when the first block is computed
        found = self._memory.get((place, purpose))
        if found is None or found.size < size:
            if found is not None:  # it is gone before there is more
                found = None
                del self._memory[place, purpose]
                self._states.pop(place, None)
                self._let_go()
            found = self._memory[place, purpose] = aligned_buffer(size)
        return found

    def close(self) -> None:
        """Let go of the memory; arrays already given out stay valid. Idempotent."""
        self._let_go()
        self._memory.clear()
        self._states.clear()
