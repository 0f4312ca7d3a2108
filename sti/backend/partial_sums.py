"""Adding the partial sums of a block's slice groups, in an order that is always the same.

In: float32 arrays of one shape, one after another. Out: their sum, added in a fixed tree: pairs of
neighbours, pairs of those, and so on as a binary counter carries; what is left over at the end is
joined from the right. So the bits of a sum depend on nothing but its parts and their order. Knows
nothing of blocks or back ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sti.arrays import Float32Array


class PartialSums:
    """Sums arrays of one shape. Its memory is used again from one sum to the next.

    Not thread-safe.

    Args:
        memory: makes or lends one more array, given how many it has given so far; asked for about
            two more than the logarithm of the parts of the longest sum.
    """

    def __init__(self, memory: Callable[[int], Float32Array]) -> None:
        self._memory = memory
        self._made = 0
        self._open: list[tuple[int, Float32Array]] = []  # sums of 2**level arrays, levels falling
        self._free: list[Float32Array] = []
        self._next: Float32Array | None = None

    def room(self) -> Float32Array:
        """Where the next part is to be written; the same array until ``push``."""
        if self._next is None:
            if self._free:
                self._next = self._free.pop()
            else:
                self._next = self._memory(self._made)
                self._made += 1
        return self._next

    def push(self) -> None:
        """Add the part that was written to ``room``."""
        self._open.append((0, self.room()))
        self._next = None
        while len(self._open) > 1 and self._open[-1][0] == self._open[-2][0]:
            self._join()

    def add(self, array: Float32Array) -> None:
        """Add the next part, given as an array of its own, which is not kept."""
        np.copyto(self.room(), array)
        self.push()

    def clear(self) -> None:
        """Forget the parts of a sum that was given up."""
        self._free += [array for _, array in self._open]
        self._open.clear()

    def total(self) -> Float32Array:
        """The sum of what was added since the last total, at least one part.

        It stays the caller's to read until the next ``room`` or ``add``.
        """
        while len(self._open) > 1:
            self._join()
        _, found = self._open.pop()
        self._free.append(found)
        return found

    def _join(self) -> None:
        """Add the last open sum to the one before it, and close it."""
        _, right = self._open.pop()
        level, left = self._open.pop()
        np.add(left, right, out=left)
        self._free.append(right)
        self._open.append((level + 1, left))
