"""The ideal schedule of a run that happened: its own step times, no time lost between them.

In: the plan that was followed, the pack's manifest, the run's trace. Out: the seconds the run would
have taken had every step begun the moment the pipeline allows it: once within the plan's ring and
the working buffers, and once without either limit. What a run takes beyond the first is the price
of threads, hand-overs and late wake-ups; what the first takes beyond the second is the price of
memory. Pure. Knows nothing of why a step took as long as it did: lanes that slow one another do so
in the ideal schedule, too.

Steps wait as in `sti.planning.cost_model.run_steps`, with two differences that keep the ideal below
any run of the executors. Token embeddings are read on the caller's thread, so groups may be read
meanwhile. And the shares of several decode threads are levelled out: no run is faster than with
equal shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.model.fidelity import WORKING_BUFFERS
from sti.model.manifest import Manifest
from sti.pipeline.trace import PLAN, TOKENIZE, Trace
from sti.planning.plan import Plan
from sti.planning.timeline import Lane, TimelineStep, simulate

_LANES = (Lane(STORAGE), Lane(DECODE), Lane(COMPUTE))
_BEFORE = (TOKENIZE, PLAN)
_EMBEDDINGS, _EMBED, _HEAD = "embeddings", "embed", "head"
_FLOW_STARTS = 0
"""The step before which neither a group nor a token embedding can be read."""


@dataclass(frozen=True, slots=True)
class Ideal:
    """Seconds from text to answer."""

    limited_s: float
    """With the plan's ring and the working buffers as they are."""
    unlimited_s: float
    """With room for every group, compressed and decoded."""


def ideal(plan: Plan, manifest: Manifest, trace: Trace) -> Ideal:
    """The ideal schedule of a run of ``plan``, pipelined or sequential.

    Raises:
        ValueError: the trace lacks a step of the plan, so it is of another run.
    """
    times = _Times(trace)
    slots = plan.read_ahead + 1
    buffers = {kind.name: WORKING_BUFFERS for kind in manifest.kinds}
    endless = dict.fromkeys(buffers, len(plan.steps))
    return Ideal(
        limited_s=_total_s(_steps(plan, times, slots, buffers)),
        unlimited_s=_total_s(_steps(plan, times, len(plan.steps), endless)),
    )


class _Times:
    """How long each piece of work of a trace took, by lane and name; decode threads averaged."""

    def __init__(self, trace: Trace) -> None:
        self._found: dict[tuple[str, str], list[float]] = {}
        for lane, spans in trace.lanes.items():
            for span in spans:
                self._found.setdefault((lane, span.name), []).append(span.duration_s)

    def of(self, lane: str, name: str) -> float:
        """Seconds of a step that every run has."""
        found = self.get(lane, name)
        if found is None:
            raise ValueError(f"the trace has no {name!r} on the {lane} lane: it is of another run")
        return found

    def get(self, lane: str, name: str) -> float | None:
        """Seconds of a step that a run may lack: what is preloaded whole is not read."""
        found = self._found.get((lane, name))
        return None if found is None else sum(found) / len(found)


def _steps(plan: Plan, times: _Times, slots: int, buffers: dict[str, int]) -> list[TimelineStep]:
    """The steps of the run. Slots and buffers are freed, and taken, oldest first."""
    steps = [
        TimelineStep(COMPUTE, sum(times.get(COMPUTE, name) or 0.0 for name in _BEFORE)),
        TimelineStep(COMPUTE, times.of(STORAGE, _EMBEDDINGS)),
        TimelineStep(COMPUTE, times.of(COMPUTE, _EMBED)),
    ]
    freed_slots = [_FLOW_STARTS] * slots
    freed_buffers = {kind: [_FLOW_STARTS] * count for kind, count in buffers.items()}
    for step in plan.steps:
        name = step.name
        read, decode, compute = range(len(steps), len(steps) + 3)
        read_s = times.get(STORAGE, name)
        slot = _FLOW_STARTS
        if read_s is not None:
            slot = freed_slots.pop(0)
            freed_slots.append(decode)
        buffer = freed_buffers[step.kind].pop(0)
        freed_buffers[step.kind].append(compute)
        steps.append(TimelineStep(STORAGE, read_s or 0.0, after=(slot,)))
        steps.append(TimelineStep(DECODE, times.of(DECODE, name), after=(read, buffer)))
        steps.append(TimelineStep(COMPUTE, times.of(COMPUTE, name), after=(decode,)))
    steps.append(TimelineStep(COMPUTE, times.of(COMPUTE, _HEAD)))
    return steps


def _total_s(steps: Sequence[TimelineStep]) -> float:
    return simulate(_LANES, steps).spans[-1].end_s
