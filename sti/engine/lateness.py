"""Whether a run met its target, and what made it late.

In: how long a run took, its lanes, its plan. Out: seconds, and a phrase for people. Knows nothing
of texts or answers.
"""

from __future__ import annotations

from sti.device.lanes import COMPUTE, DECODE, STORAGE, by_work
from sti.engine.results import Result
from sti.units import format_time

_WORK = {STORAGE: "reading", DECODE: "decoding", COMPUTE: "computing"}
_PLANNING, _WAITING = "making the plan", "waiting for one another, for memory or for a core"


def describe_lateness(result: Result) -> str | None:
    """One line on a run that missed its target: by how much, and what took longer than predicted.

    None for a run that met its target, or had none.
    """
    if result.met is not False:
        return None
    said = f"late by {format_time(result.late_s)}"
    excess = _excess(result)
    cause = max(excess, key=excess.__getitem__, default=None)
    if cause is None or excess[cause] <= 0:
        return said
    took = format_time(excess[cause])
    return f"{said}: {cause} took {took}" + ("" if cause == _PLANNING else " more than predicted")


def _excess(result: Result) -> dict[str, float]:
    """Seconds beyond the prediction, by what took them; of all threads, divided among them.

    Empty where nothing was predicted.
    """
    predicted = result.plan.predicted
    if predicted is None:
        return {}
    measured, expected = by_work(result.timing.busy_s), by_work(predicted.busy_s)
    excess = {}
    for work, name in _WORK.items():
        workers = 1 if work == STORAGE else result.plan.threads.compute
        excess[name] = (measured[work] - expected[work]) / workers
    excess[_PLANNING] = result.timing.plan_s
    excess[_WAITING] = result.timing.stall_s - predicted.stall_s
    return excess
