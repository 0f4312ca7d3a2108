"""Whether a run met its target, and what made it late.

In: how long a run took, its lanes, its plan. Out: seconds, and a phrase for people. Knows nothing
of texts or answers.
"""

from __future__ import annotations

from sti.device.lanes import COMPUTE, DECODE, STORAGE, by_work
from sti.engine.results import Result
from sti.units import format_time

_WORK = {STORAGE: "reading", DECODE: "decoding", COMPUTE: "computing"}
_PLANNING, _WAITING = "making the plan", "waiting for one another or for memory"
_EXPECTED = "a plan that was expected to be late"
_TAKEN = "a core that others used"


def describe_lateness(result: Result) -> str | None:
    """One line on a run that missed its target: by how much, and what took longer than predicted.

    None for a run that met its target, or had none. Of several batches it is about the latest.
    """
    if result.met is not False:
        return None
    result = max(result.parts, key=lambda part: part.late_s)
    said = f"late by {format_time(result.late_s)}"
    if result.outgrown:
        return f"{said}: the plan was made for {result.plan.workload.words}"
    excess = _excess(result)
    cause = cause_of_lateness(result)
    if cause is None:
        return said
    if cause == _EXPECTED:
        predicted = result.plan.predicted
        assert predicted is not None, "what was expected was predicted"
        return f"{said}: {_EXPECTED}, to take {format_time(predicted.total_s)}"
    took = format_time(excess[cause])
    if cause == _TAKEN:
        return f"{said}: waited {took} for {_TAKEN}"
    return f"{said}: {cause} took {took}" + ("" if cause == _PLANNING else " more than predicted")


def cause_of_lateness(result: Result) -> str | None:
    """What took most of the time beyond the prediction; None where that is not known."""
    excess = _excess(result)
    cause = max(excess, key=excess.__getitem__, default=None)
    return cause if cause is not None and excess[cause] > 0 else None


def _excess(result: Result) -> dict[str, float]:
    """Seconds beyond the prediction, by what took them; of all threads, divided among them.

    Waits for a core are told apart from the work during which they happened. Of those of several
    threads the longest counts, because they overlap. Only waits where nothing was predicted.
    """
    predicted, waits = result.plan.predicted, result.timing.waits_s or {}
    taken = {_TAKEN: max(waits.values())} if waits else {}
    if predicted is None:
        return taken
    measured, expected = by_work(result.timing.busy_s), by_work(predicted.busy_s)
    waited = by_work(waits)
    excess = {}
    for work, name in _WORK.items():
        workers = 1 if work == STORAGE else result.plan.threads.compute
        excess[name] = (measured[work] - waited[work] - expected[work]) / workers
    excess[_PLANNING] = result.timing.plan_s
    excess[_EXPECTED] = predicted.total_s - (result.plan.target.latency_s or predicted.total_s)
    excess[_WAITING] = result.timing.stall_s - predicted.stall_s - max(waits.values(), default=0.0)
    return excess | taken
