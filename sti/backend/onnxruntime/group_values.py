"""What a value of a block's graph is where all slice groups are computed at once.

Out: the kinds of values that ``merged_groups`` tells apart. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

CHANNELS = 2
"""The axis of ``[S, B, n]``."""
TOKEN_RANK, HEADS_RANK = 3, 4
"""Axes of ``[S, B, n]``; and where channels are those of heads, or tokens attend to each other."""
HEADS = 1
"""The axis of attention scores ``[B, m, R, S]``."""


class Shared(NamedTuple):
    """A value that all groups have in common."""

    name: str


class Joined(NamedTuple):
    """The values of all groups as one, group after group along an axis."""

    name: str
    axis: int
    rank: int
    channels: int
    """Of each group."""

    @property
    def is_by_channel(self) -> bool:
        """Whether it is ``[S, B, n]``."""
        return (self.axis, self.rank) == (CHANNELS, TOKEN_RANK)

    def is_along(self, other: Joined) -> bool:
        """Whether the groups are in the same places, counted from the last axis."""
        return self.axis - self.rank == other.axis - other.rank


class Apart(NamedTuple):
    """A value of each group."""

    names: tuple[str, ...]


class OfEach(NamedTuple):
    """An array of each group that is not in the graph yet."""

    name: str
    arrays: tuple[NDArray[Any], ...]


Constants = Mapping[str, NDArray[Any]]
"""What inputs of a graph are for one slice group."""
Value = Shared | Joined | Apart | OfEach
