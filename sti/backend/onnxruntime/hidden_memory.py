"""Memory for token embeddings and hidden states, kept between runs.

In: sizes of groups. Out: arrays over memory that grows to the largest group and stays, so that
repeated runs allocate nothing. Knows nothing of graphs.
"""

from __future__ import annotations

from math import prod

import numpy as np

from sti.arrays import Float32Array


class HiddenMemory:
    """The memory of one back end. Not thread-safe."""

    def __init__(self) -> None:
        self._embeddings: Float32Array = np.empty(0, dtype=np.float32)
        self._states: list[Float32Array] = []
        self._partials: dict[tuple[int, int], Float32Array] = {}

    def embeddings(self, shape: tuple[int, ...]) -> Float32Array:
        """Memory that all groups share.

        Groups follow one another: first it holds a group's token embeddings, then the sums of every
        block of a single slice group.
        """
        size = prod(shape)
        if self._embeddings.size < size:
            self._embeddings = np.empty(size, dtype=np.float32)
        return self._embeddings[:size].reshape(shape)

    def hidden(self, place: int | None, shape: tuple[int, ...]) -> Float32Array:
        """Memory for the hidden states of the group with this number; None: new memory."""
        if place is None:
            return np.empty(shape, dtype=np.float32)
        while len(self._states) <= place:
            self._states.append(np.empty(0, dtype=np.float32))
        size = prod(shape)
        if self._states[place].size < size:
            self._states[place] = np.empty(size, dtype=np.float32)
        return self._states[place][:size].reshape(shape)

    def partial(self, place: int | None, number: int, shape: tuple[int, ...]) -> Float32Array:
        """Memory for partial sums of the group with this number; None: new memory."""
        if place is None:
            return np.empty(shape, dtype=np.float32)
        size, key = prod(shape), (place, number)
        if key not in self._partials or self._partials[key].size < size:
            self._partials[key] = np.empty(size, dtype=np.float32)
        return self._partials[key][:size].reshape(shape)

    def close(self) -> None:
        """Let go of the memory; arrays already given out stay valid. Idempotent."""
        self._embeddings = np.empty(0, dtype=np.float32)
        self._states.clear()
        self._partials.clear()
