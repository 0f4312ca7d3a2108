"""The ideal schedule of a run that happened: its own step times, no time lost between them.

In: the plan that was followed, the pack's manifest, the run's trace. Out: the seconds the run would
have taken had every step begun the moment the pipeline allows it: once within the plan's ring and
the working buffers, and once without either limit. What a run takes beyond the first is the price
of threads, hand-overs and late wake-ups; what the first takes beyond the second is the price of
memory. Pure. Knows nothing of why a step took as long as it did: lanes that slow one another do so
in the ideal schedule, too.

Steps wait as in `sti.planning.cost_model.run_steps`, with two differences that keep the ideal below
any run of the executors. Token embeddings are read on the caller's thread, so groups may be read
meanwhile. And threads that share compute do the steps that they did, not those that they are free
for first.
"""

from __future__ import annotations

from dataclasses import dataclass

from sti.device.lanes import COMPUTE, DECODE, STORAGE, lane_of
from sti.pipeline.trace import PLAN, TOKENIZE, Trace
from sti.planning.plan import Plan, connect_name
from sti.planning.timeline import TimelineStep, simulate

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


def ideal(plan: Plan, trace: Trace) -> Ideal:
    """The ideal schedule of a run of ``plan``, under its threads or sequential.

    Raises:
        ValueError: the trace lacks a step of the plan, so it is of another run.
    """
    times, count = _Times(plan, trace), len(plan.steps)
    return Ideal(
        limited_s=_total_s(plan, times, plan.read_ahead + 1, plan.threads.buffers),
        unlimited_s=_total_s(plan, times, count, count),
    )


class _Times:
    """How long each piece of work of a trace took, by lane and name."""

    def __init__(self, plan: Plan, trace: Trace) -> None:
        self._threads = plan.threads.compute
        self._found = {
            (lane, span.name): span.duration_s
            for lane, spans in trace.lanes.items()
            for span in spans
        }

    def of(self, lane: str, name: str) -> float:
        """Seconds of a step that every run has."""
        found = self.get(lane, name)
        if found is None:
            raise ValueError(f"the trace has no {name!r} on the {lane} lane: it is of another run")
        return found

    def get(self, lane: str, name: str) -> float | None:
        """Seconds of a step that a run may lack: what is preloaded whole is not read."""
        return self._found.get((lane, name))

    def shares(self, lane: str, name: str) -> dict[int, float]:
        """The threads that did a step, or a share of it, and their seconds."""
        found = {
            thread: self._found[lane_of(lane, thread), name]
            for thread in range(self._threads)
            if (lane_of(lane, thread), name) in self._found
        }
        return found or {0: self.of(lane, name)}


def _total_s(plan: Plan, times: _Times, slots: int, buffers: int) -> float:
    """Seconds of the run. Slots and buffers are freed, and taken, oldest first."""
    threads = plan.threads
    decoder, storage = threads.compute, threads.compute + threads.decode
    storing = (storage,) if threads.storage else (0,)
    steps = [
        TimelineStep(COMPUTE, sum(times.get(COMPUTE, name) or 0.0 for name in _BEFORE), (0,)),
        TimelineStep(COMPUTE, times.of(STORAGE, _EMBEDDINGS), (0,)),
        TimelineStep(COMPUTE, times.of(COMPUTE, _EMBED), (0,)),
    ]
    ready = len(steps) - 1
    freed_slots: list[tuple[int, ...]] = [(_FLOW_STARTS,)] * slots
    freed_buffers: list[tuple[int, ...]] = [(_FLOW_STARTS,)] * buffers
    decoded: list[int] = []
    block: list[int] = []
    for step, after in zip(plan.steps, (*plan.steps[1:], None), strict=True):
        name, read_s = step.name, times.get(STORAGE, step.name)
        slot = (_FLOW_STARTS,) if read_s is None else freed_slots.pop(0)
        read = len(steps)
        steps.append(TimelineStep(STORAGE, read_s or 0.0, storing, after=slot))
        buffer = freed_buffers.pop(0) if threads.decode else ()
        for thread, seconds in times.shares(DECODE, name).items():
            doing = (decoder if threads.decode else thread,)
            decoded.append(len(steps))
            steps.append(TimelineStep(DECODE, seconds, doing, after=(read, *buffer)))
        if read_s is not None:
            freed_slots.append(tuple(decoded))
        needed = (*range(read + 1, len(steps)), ready)
        computed = []
        for thread, seconds in times.shares(COMPUTE, name).items():
            computed.append(len(steps))
            steps.append(TimelineStep(COMPUTE, seconds, (thread,), after=needed))
        freed_buffers.append(tuple(computed))
        block += computed
        if after is None or (after.layer, after.kind) != (step.layer, step.kind):
            name, ready = connect_name(step.layer, step.kind), len(steps)
            for thread, seconds in times.shares(COMPUTE, name).items():
                steps.append(TimelineStep(COMPUTE, seconds, (thread,), after=tuple(block)))
            block = []
    steps.append(TimelineStep(COMPUTE, times.of(COMPUTE, _HEAD), (0,), after=(ready,)))
    return simulate(steps).spans[-1].end_s
