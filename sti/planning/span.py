"""When a lane works on something: what predictions, traces and timings are made of. Pure.

In a module of its own, so that a start with a cached plan need not import the simulation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """One piece of work on one lane, in seconds from the text's arrival."""

    start_s: float
    end_s: float
    name: str = ""

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


def busy_s(spans: Iterable[Span]) -> float:
    """Seconds covered by spans, given in order of their start; overlaps count once."""
    busy, reached = 0.0, 0.0
    for span in spans:
        busy += max(0.0, span.end_s - max(span.start_s, reached))
        reached = max(reached, span.end_s)
    return busy
