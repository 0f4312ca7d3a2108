"""Targets a little off the one that was asked for, and what plans for them change. Pure.

In: a target and the plan for it; then plans for the others. Out: targets, and differences. Knows
nothing of how plans are made: whoever asks makes them as the first one was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sti.planning.plan import Plan, Target

MORE_LATENCY, MORE_PRELOAD, MORE_MEMORY, LESS_LATENCY = (
    "more latency",
    "more preload",
    "more memory",
    "less latency",
)

MORE_S = 0.01
"""Seconds of latency more."""
MORE_BYTES = 10**6
"""Bytes of memory or preload more."""
LESS_SHARE = 0.1
"""Share of the latency less."""
_DIGITS = 9
"""Decimal places of a latency in seconds, so that it can be written, and asked for, in full."""


def nearby_targets(target: Target, promised_s: float) -> Mapping[str, Target]:
    """The targets whose plans show what more would buy, and less would cost, by name.

    Without a latency there is no more of it; less is then less than the plan needs. Where memory is
    limited, there is more of that; what it leaves for a preload follows from it.

    Args:
        promised_s: seconds within which the plan for ``target`` is promised to end.
    """
    latency_s = target.latency_s
    found = {}
    if latency_s is not None:
        found[MORE_LATENCY] = target._replace(latency_s=round(latency_s + MORE_S, _DIGITS))
    if target.memory_bytes is None:
        found[MORE_PRELOAD] = target._replace(preload_bytes=target.preload_bytes + MORE_BYTES)
    else:
        found[MORE_MEMORY] = target._replace(memory_bytes=target.memory_bytes + MORE_BYTES)
    less_s = (1.0 - LESS_SHARE) * (promised_s if latency_s is None else latency_s)
    found[LESS_LATENCY] = target._replace(latency_s=round(less_s, _DIGITS))
    return found


class PlanChange(NamedTuple):
    """What differs between the plans for two targets: new minus old."""

    loss: float
    """Expected loss, in the pack's unit."""
    metric: float | None
    """The metric to expect; None where the pack states no quality."""
    bytes_read: int
    total_s: float
    """Predicted seconds."""


def plan_change(before: Plan, after: Plan) -> PlanChange:
    """What differs between two plans that were predicted alike; both have predictions."""
    old, new = before.predicted, after.predicted
    assert old is not None, "a plan without a prediction"
    assert new is not None, "a plan without a prediction"
    metric = None
    if old.quality is not None and new.quality is not None:
        metric = new.quality.value - old.quality.value
    return PlanChange(
        loss=new.loss - old.loss,
        metric=metric,
        bytes_read=new.bytes_read - old.bytes_read,
        total_s=new.total_s - old.total_s,
    )
