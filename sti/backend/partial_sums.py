"""Adding the partial sums of a block's slice groups, in an order that is always the same.

In: float32 arrays of one shape with the numbers of their groups, in any order and from several
threads. Out: their sum, added in a fixed tree: pairs of neighbours, pairs of those, and so on as a
binary counter carries; what is left over at the end is joined from the right. So the bits of a sum
depend on nothing but its parts and their numbers. Knows nothing of blocks or back ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from sti.arrays import Float32Array

T = TypeVar("T")


def joined_in_tree(parts: Iterable[T], join: Callable[[T, T], T]) -> T:
    """Join parts 0, 1, ... as ``PartialSums`` adds those of these numbers.

    Args:
        parts: at least one.
        join: of a left and a right part.
    """
    waiting: list[tuple[int, T]] = []
    for part in parts:
        found, level = part, 0
        while waiting and waiting[-1][0] == level:
            found, level = join(waiting.pop()[1], found), level + 1
        waiting.append((level, found))
    found = waiting.pop()[1]
    while waiting:
        found = join(waiting.pop()[1], found)
    return found


class PartialSums:
    """Sums arrays of one shape. Its memory is used again from one sum to the next.

    Threads may share ``room`` and ``add``.

    Args:
        memory: makes or lends one more array, given how many it has given so far; asked for about
            as many as threads add at once and two more than the logarithm of the parts, if these
            come about in their order.
    """

    def __init__(self, memory: Callable[[int], Float32Array]) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._made = 0
        self._free: list[Float32Array] = []
        # Parts that are being written: their arrays, and shares of them that are.
        self._rooms: dict[int, Float32Array] = {}
        self._written: dict[int, int] = {}
        # Sums of 2**level parts that are complete, by level and place among those of the level.
        self._open: dict[tuple[int, int], Float32Array] = {}

    def __len__(self) -> int:
        """Sums that wait for others: 0 if nothing was added since the last total."""
        return len(self._open)

    def room(self, number: int) -> Float32Array:
        """The array for a part, the same until ``add`` has it: to be written by the caller.

        Args:
            number: of its group; each from 0 on is added once to a sum.
        """
        with self._lock:
            if number not in self._rooms:
                if self._free:
                    self._rooms[number] = self._free.pop()
                else:
                    self._rooms[number] = self._memory(self._made)
                    self._made += 1
            return self._rooms[number]

    def add(self, number: int, *, shares: int = 1) -> None:
        """Add the part in ``room``; joined at once with what it can be.

        Args:
            shares: how many threads write a share of the part and say so; the last one adds it.
        """
        with self._lock:
            written = self._written.pop(number, 0) + 1
            if written < shares:
                self._written[number] = written
                return
            part = self._rooms.pop(number)
        level, place = 0, number
        while True:
            with self._lock:
                neighbour = self._open.pop((level, place ^ 1), None)
                if neighbour is None:
                    self._open[level, place] = part
                    return
            left, right = (neighbour, part) if place & 1 else (part, neighbour)
            part = self._joined(left, right)
            level, place = level + 1, place >> 1

    def clear(self) -> None:
        """Forget the parts of a sum that was given up."""
        self._free += [*self._open.values(), *self._rooms.values()]
        for parts in (self._open, self._rooms, self._written):
            parts.clear()

    def total(self) -> Float32Array:
        """The sum of what was added since the last total, at least one part.

        It stays the caller's to read until the next ``room``.
        """
        # The largest are first in the order of the parts.
        waiting = [self._open[key] for key in sorted(self._open, reverse=True)]
        self._open.clear()
        found = waiting.pop()
        while waiting:
            found = self._joined(waiting.pop(), found)
        self._free.append(found)
        return found

    def _joined(self, left: Float32Array, right: Float32Array) -> Float32Array:
        """The sum of two, in the memory of the left one."""
        np.add(left, right, out=left)
        with self._lock:
            self._free.append(right)
        return left
