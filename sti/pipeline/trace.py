"""What happened on each lane during a run, and how it is shown.

In: spans recorded by the executors (``time.perf_counter`` seconds). Out: sums per lane, and a
document in the Chrome trace format that Perfetto opens, the plan's prediction beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sti.planning.plan import Plan

LANES = ("storage", "decode", "compute")
TOKENIZE, PLAN = "tokenize", "plan"
"""Names of what is done on the compute lane before anything can be read."""


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """One piece of work on one lane, in seconds from the text's arrival."""

    lane: str
    name: str
    start_s: float
    end_s: float


class Recorder:
    """Collects spans of one run. Appending is atomic, so lanes share it without a lock."""

    __slots__ = ("_origin", "_spans")

    def __init__(self, origin: float) -> None:
        self._origin = origin
        self._spans: list[tuple[str, str, float, float]] = []

    def add(self, lane: str, name: str, start: float, end: float) -> None:
        """Note work from ``start`` to ``end`` (``perf_counter`` seconds)."""
        self._spans.append((lane, name, start, end))

    def trace(self) -> Trace:
        """The spans so far, in order of their start, relative to the origin."""
        ordered = sorted(self._spans, key=lambda item: item[2])
        return Trace(
            tuple(
                TraceSpan(lane, name, start - self._origin, end - self._origin)
                for lane, name, start, end in ordered
            )
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run did. Immutable."""

    spans: tuple[TraceSpan, ...]

    def busy_s(self, lane: str) -> float:
        """Seconds in which the lane worked (threads of one lane that overlap count once)."""
        busy, reached = 0.0, 0.0
        for span in self.spans:
            if span.lane == lane:
                busy += max(0.0, span.end_s - max(span.start_s, reached))
                reached = max(reached, span.end_s)
        return busy

    @property
    def plan_s(self) -> float:
        """Seconds in which the plan was made; next to nothing where there was one."""
        return sum(span.end_s - span.start_s for span in self.spans if span.name == PLAN)

    def stall_s(self) -> float:
        """Seconds in which compute waited between its first block and its last work."""
        compute = [span for span in self.spans if span.lane == "compute"]
        spans = [span for span in compute if span.name not in (TOKENIZE, PLAN)]
        if not spans:
            return 0.0
        return spans[-1].end_s - spans[0].start_s - sum(s.end_s - s.start_s for s in spans)

    def to_chrome(self, plan: Plan) -> dict[str, Any]:
        """A Chrome trace: process 1 is what happened, process 2 what the plan predicted."""
        events: list[dict[str, Any]] = []
        for process, name in ((1, "measured"), (2, "predicted")):
            events.append(_meta(process, 0, "process_name", name))
            for lane in LANES:
                events.append(_meta(process, LANES.index(lane) + 1, "thread_name", lane))
        for span in self.spans:
            events.append(_event(1, span.lane, span.name, span.start_s, span.end_s))
        predicted = plan.predicted.blocks if plan.predicted is not None else ()
        for block, times in zip(plan.blocks, predicted, strict=False):
            for lane in LANES:
                place = getattr(times, lane)
                if place.end_s > place.start_s:
                    name = f"{block.layer} {block.kind}"
                    events.append(_event(2, lane, name, place.start_s, place.end_s))
        return {"traceEvents": events, "displayTimeUnit": "ms"}


def _meta(process: int, thread: int, kind: str, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}


def _event(process: int, lane: str, name: str, start_s: float, end_s: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": process,
        "tid": LANES.index(lane) + 1,
        "name": name,
        "ts": round(start_s * 1e6, 1),
        "dur": round((end_s - start_s) * 1e6, 1),
    }
