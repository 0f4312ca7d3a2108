"""Which layers of which pack a file holds: a part of a pack.

Knows nothing of files; ``FORMAT.md`` specifies what a part has and what it leaves out.
"""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """What one device of a chain of layers needs of a pack: consecutive layers."""

    parent: str
    """The content of the whole pack: its SHA-256, as 64 lower-case hexadecimal digits."""
    pack_id: str
    """The identity of the whole pack, as 16 such digits: plans refer to it."""
    first: int
    """Number of the first layer that is there."""
    last: int
    """Number of the last one."""

    @property
    def layers(self) -> range:
        """The numbers of the layers that are there."""
        return range(self.first, self.last + 1)

    @property
    def words(self) -> str:
        """The layers, for people: ``layer 3``, ``layers 0 to 3``."""
        if self.first == self.last:
            return f"layer {self.first}"
        return f"layers {self.first} to {self.last}"
