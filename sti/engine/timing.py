"""What a call took, lane by lane.

In: spans of work, and what threads waited for a core. Out: sums, and JSON. Knows nothing of texts,
plans or answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sti.pipeline.trace import PLAN
from sti.planning.span import Span, busy_s


class Timing(NamedTuple):
    """What a call took, in seconds. Lanes overlap, so they add up to more than the total."""

    total_s: float
    """From texts in to answers out."""
    plan_s: float
    """Making the plan, for the first texts of their length."""
    stall_s: float
    """The calling thread having nothing to do, from the embedding of the texts on."""
    lanes: Mapping[str, tuple[Span, ...]]
    """Lane to its work, in order: ``storage``, ``decode`` and ``compute``, and those of further
    threads that share the steps, ``decode 1``, ``compute 1`` and so on."""
    waits_s: Mapping[str, float] | None = None
    """Lane to the seconds that its thread was ready to work and another thread, of this process or
    of others, had the core. None where the system does not say."""

    @property
    def waited_s(self) -> float | None:
        """Seconds that all threads together waited for a core."""
        return None if self.waits_s is None else sum(self.waits_s.values())

    @property
    def busy_s(self) -> dict[str, float]:
        """Lane to the seconds in which it worked, planning aside."""
        return {
            lane: busy_s(span for span in spans if span.name != PLAN)
            for lane, spans in self.lanes.items()
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON object; seconds, to the microsecond."""
        return {
            "total_s": round(self.total_s, 6),
            "plan_s": round(self.plan_s, 6),
            "stall_s": round(self.stall_s, 6),
            "waited_s": None if self.waited_s is None else round(self.waited_s, 6),
            "waits_s": None
            if self.waits_s is None
            else {lane: round(waited, 6) for lane, waited in self.waits_s.items()},
            "busy_s": {lane: round(busy, 6) for lane, busy in self.busy_s.items()},
            "lanes": {
                lane: [
                    {
                        "name": span.name,
                        "start_s": round(span.start_s, 6),
                        "end_s": round(span.end_s, 6),
                    }
                    for span in spans
                ]
                for lane, spans in self.lanes.items()
            },
        }
