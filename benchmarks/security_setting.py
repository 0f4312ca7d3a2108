"""What the rows of ``benchmarks.security`` share.

Knows nothing of what a row does.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import Summary

__all__ = ["Setting", "Summary"]


class Setting(NamedTuple):
    """What all rows are measured with."""

    packs: tuple[Path, ...]
    """Sound packs to start from; most rows take the first."""
    cases: int | None
    """Instead of the row's own number of cases or runs."""
    seconds: int | None
    """Of processor time of the row ``fuzz``, instead of its own."""
    seed: int
    before: Path | None
    """A checkout of another revision, for the row ``opening``."""
    place: Path
    """A directory to work in, removed afterwards; rows make their own in it."""

    def count(self, own: int) -> int:
        """The number of cases of a row whose own number is ``own``."""
        return own if self.cases is None else self.cases
