"""What happened on each lane during a run, and its export as a Chrome trace.

In: spans that executors, runner and engine record (``time.perf_counter`` seconds). Out: sums per
lane, and a document in the Chrome trace format, which Perfetto opens, together with the plan's
prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE, LaneThreads, same_work
from sti.planning.downgrade import Downgrade
from sti.planning.plan import Plan
from sti.planning.span import Span, busy_s

_LEAST_S = 1e-9
"""What a run takes at least, by whichever clock."""
TOKENIZE, PLAN = "tokenize", "plan"
"""Names of what is done on the compute lane before anything can be read."""
EMBED = "embed"
"""Name of the first work on the compute lane that needs something that is read."""
RECEIVE = "receive"
"""Name of the wait for hidden states of another device, on the link lane."""
BLOCKS = "blocks"
"""Name of the work of all steps and connects where one graph does it."""


class Recorder:
    """Collects spans of one run. Appending is atomic, so lanes share it without a lock."""

    __slots__ = ("_downgrades", "_origin", "_spans")

    def __init__(self, origin: float) -> None:
        self._origin = origin
        self._spans: list[tuple[str, str, float, float]] = []
        self._downgrades: list[Downgrade] = []

    def add(self, lane: str, name: str, start: float, end: float) -> None:
        """Note work from ``start`` to ``end`` (``perf_counter`` seconds)."""
        self._spans.append((lane, name, start, end))

    def leave_out(self, downgrade: Downgrade) -> None:
        """Note that planes were left out."""
        self._downgrades.append(downgrade)

    @property
    def downgrades(self) -> Sequence[Downgrade]:
        """What was left out so far."""
        return self._downgrades

    def trace(self, threads: LaneThreads, waits_s: Mapping[str, float] | None = None) -> Trace:
        """What was noted so far, by lane, each in order of its start, relative to the origin.

        Args:
            threads: that the run had.
            waits_s: as ``Trace.waits_s``.
        """
        lanes: dict[str, list[Span]] = {lane: [] for lane in LANES}
        for lane, name, start, end in sorted(self._spans, key=lambda item: item[2]):
            lanes.setdefault(lane, []).append(Span(start - self._origin, end - self._origin, name))
        filled = {lane: tuple(spans) for lane, spans in lanes.items() if spans}
        return Trace(filled, threads, tuple(self._downgrades), waits_s)


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run did: lane to its work, in order. Immutable."""

    lanes: Mapping[str, tuple[Span, ...]]
    threads: LaneThreads
    """That the run had."""
    downgrades: tuple[Downgrade, ...] = ()
    """Planes that the plan asked for and the run left out, in order of execution."""
    waits_s: Mapping[str, float] | None = None
    """Seconds that each thread was ready to work and another one had the core, by the lane that it
    works last: ``compute`` is the caller's. None where the system does not say."""

    @property
    def waited_s(self) -> float | None:
        """Seconds that all threads of the run together waited for a core."""
        return None if self.waits_s is None else sum(self.waits_s.values())

    @property
    def waited_share(self) -> float | None:
        """The part of the run that a thread which computes or decodes waited for a core.

        Of the one that waited longest, because waits of several threads overlap; less what the
        storage lane worked, which may have had the core of a thread other than the caller's. Above
        ``sti.device.profile.MOST_DISTURBED`` the machine took the processor away. None where the
        system does not say.
        """
        if self.waits_s is None:
            return None
        read_s = busy_s(self.lanes.get(STORAGE, ())) if self.threads.storage else 0.0
        longest_s = max(
            (
                waited_s - (0.0 if lane == COMPUTE else read_s)
                for lane, waited_s in self.waits_s.items()
                if lane != STORAGE
            ),
            default=0.0,
        )
        return max(0.0, longest_s) / max(self.end_s, _LEAST_S) if self.lanes else 0.0

    @property
    def busy_s(self) -> dict[str, float]:
        """Lane to the seconds in which it worked."""
        return {lane: busy_s(spans) for lane, spans in self.lanes.items()}

    @property
    def plan_s(self) -> float:
        """Seconds in which the plan was made; next to nothing where there was one."""
        return sum(span.duration_s for span in self.lanes.get(COMPUTE, ()) if span.name == PLAN)

    @property
    def end_s(self) -> float:
        """When the last work of any lane was done."""
        return max(span.end_s for spans in self.lanes.values() for span in spans)

    def stall_s(self) -> float:
        """Seconds in which the calling thread had nothing to do from ``embed`` on."""
        own = [COMPUTE]
        own += [] if self.threads.decode else [DECODE]
        own += [] if self.threads.storage else [STORAGE]
        spans = [span for lane in own for span in self.lanes.get(lane, ())]
        start_s = next((span.start_s for span in spans if span.name == EMBED), None)
        if start_s is None:
            return 0.0
        spans = [span for span in spans if span.start_s >= start_s]
        return max(span.end_s for span in spans) - start_s - sum(span.duration_s for span in spans)

    def to_chrome(self, plan: Plan) -> dict[str, Any]:
        """A Chrome trace: process 1 is what happened, process 2 what the plan predicted.

        Steps on compute lanes say how their products are computed (``variant``).
        """
        variants = {step.name: step.variant for step in plan.steps}
        predicted = {} if plan.predicted is None else plan.predicted.lanes
        events: list[dict[str, Any]] = []
        for process, name, lanes in ((1, "measured", self.lanes), (2, "predicted", predicted)):
            events.append(_meta(process, 0, "process_name", name))
            # Known lanes first, so that both processes show them at the same height.
            for thread, lane in enumerate(dict.fromkeys((*LANES, *lanes)), start=1):
                events.append(_meta(process, thread, "thread_name", lane))
                told = variants if same_work(lane, COMPUTE) else {}
                events += [_event(process, thread, span, told) for span in lanes.get(lane, ())]
        for item in self.downgrades:
            name = f"{item.step}: from {item.bits} bits on left out: {item.reason}"
            end_us = round(self._decoded_s(item.step) * 1e6, 1)
            events.append({"ph": "i", "s": "p", "pid": 1, "tid": 1, "name": name, "ts": end_us})
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def _decoded_s(self, step: str) -> float:
        """When a step's decoding ended, on whichever thread."""
        spans = [
            span for lane, found in self.lanes.items() if same_work(lane, DECODE) for span in found
        ]
        return max((span.end_s for span in spans if span.name == step), default=0.0)


def _meta(process: int, thread: int, kind: str, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}


def _event(process: int, thread: int, span: Span, variants: Mapping[str, str]) -> dict[str, Any]:
    found = {
        "ph": "X",
        "pid": process,
        "tid": thread,
        "name": span.name,
        "ts": round(span.start_s * 1e6, 1),
        "dur": round(span.duration_s * 1e6, 1),
    }
    return found | ({"args": {"variant": variants[span.name]}} if span.name in variants else {})
