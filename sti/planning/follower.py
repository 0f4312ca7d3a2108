"""Numbers that follow what is measured, whatever single outliers say. Pure.

In: what was measured, one after another. Out: what is believed. A small difference moves the number
by a share of itself, the first ones by more; a large one moves it only if the next one confirms it,
and then at once, to the nearer of the two. Knows nothing of runs or lanes.
"""

from __future__ import annotations

import math

MOST_FACTOR = 50.0
"""Factors lie between this and its inverse: what is beyond is no machine that works."""


class Follower:
    """A number that follows what it is shown. Not thread-safe."""

    __slots__ = ("_pending", "_seen", "_value")

    def __init__(self, value: float = 0.0) -> None:
        self._value, self._pending, self._seen = value, 0.0, 0

    @property
    def value(self) -> float:
        """The number now."""
        return self._value

    @property
    def seen(self) -> int:
        """How often it was shown something that was believed."""
        return self._seen

    def forget(self, share: float) -> None:
        """Move by a share of the way to 0, where nothing is known any more."""
        self._value *= 1.0 - share

    def scale(self, by: float) -> None:
        """Count everything in another unit."""
        self._value *= by
        self._pending *= by

    def follow(self, seen: float, share: float, small: float) -> bool:
        """Take note of what was measured.

        Args:
            share: by how much of a small difference to move; the first ones move it more.
            small: the largest difference that is small.

        Returns:
            Whether it was believed: not a large difference that nothing has confirmed.
        """
        off = seen - self._value
        if abs(off) <= small:
            self._seen += 1
            self._value += max(share, 1.0 / (self._seen + 2)) * off
            self._pending = 0.0
            return True
        before, self._pending = self._pending, off
        if before * off <= 0.0:
            return False
        self._value += min(before, off, key=abs)
        self._pending = 0.0
        return True


class Factor(Follower):
    """A factor that follows what it is shown: by its logarithm."""

    __slots__ = ()

    def __init__(self, value: float = 1.0) -> None:
        super().__init__(math.log(value))

    @property
    def value(self) -> float:
        """The factor now."""
        return math.exp(self._value)

    def follow(self, seen: float, share: float, small: float = math.log(1.35)) -> bool:
        """As ``Follower.follow``, of a factor above 0; ``small`` is of its logarithm."""
        limit = math.log(MOST_FACTOR)
        return super().follow(min(limit, max(-limit, math.log(seen))), share, small)
