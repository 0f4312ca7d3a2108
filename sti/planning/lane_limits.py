"""Which lane limits a run, how long each works and waits, and where the caller waits. Pure.

In: a plan, and the conditions it was predicted with. Out: seconds of each lane, and the blocks
before which the calling thread has nothing to do. Knows nothing of targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sti.device.lanes import LANES
from sti.model.manifest import Manifest
from sti.planning.conditions import Conditions
from sti.planning.cost_model import FIRST_STEPS, TEXT
from sti.planning.plan import Plan, connect_name
from sti.planning.prediction import Run
from sti.planning.span import Span, busy_s

WAITING = "waiting"
"""What limits a run more than any lane: what runs take beyond what their lanes do."""
_LEAST_S = 1e-9
"""Shorter waits are rounding."""


class LaneUse(NamedTuple):
    """Seconds of one kind of work in a run."""

    busy_s: float
    """In which it is done, by all threads together."""
    waiting_s: float
    """Of the run, in which no thread does it."""
    path_s: float
    """On the chain of waits that ends with the answer: the run would be as much shorter, at most,
    if the work took no time."""


class CallerWait(NamedTuple):
    """Where the calling thread has nothing to do."""

    layer: int | None
    """Of the block that it waits for; None for what comes after the last one."""
    kind: str | None
    wait_s: float
    lanes: Mapping[str, float]
    """Lane to the seconds of it in which the work is done that is waited for; they add up to
    ``wait_s``."""


class LaneLimits(NamedTuple):
    """What the time of a run is made of: all ``path_s``, ``text_s`` and ``beyond_s`` add up."""

    limited_by: str
    """The lane with the largest ``path_s``, or ``WAITING`` where ``beyond_s`` is larger."""
    total_s: float
    """Typical seconds of the run."""
    text_s: float
    """Of the tokenizer."""
    beyond_s: float
    """What runs take beyond their lanes and the tokenizer; below 0 where they take less."""
    lanes: Mapping[str, LaneUse]
    """For each of ``sti.device.lanes.LANES``."""
    waits: tuple[CallerWait, ...]
    """In the order of the run, from ``embed`` on; they add up to ``Prediction.stall_s``."""


def lane_limits(manifest: Manifest, plan: Plan, shown: Conditions) -> LaneLimits:
    """What limits the run of a plan.

    Args:
        plan: one that fits the manifest (``sti.planning.check.check_plan``).
        shown: what it was predicted with.

    Raises:
        PlanError: the plan's submodel is not in the pack.
        ProfileError: the profile lacks a graph or a fidelity of the pack, or the plan's threads.
    """
    run = shown.run(manifest, plan)
    return limits_of(run, plan, shown.typical_s(run))


def limits_of(run: Run, plan: Plan, total_s: float) -> LaneLimits:
    """What limits a run that was simulated.

    Args:
        plan: whose run it is.
        total_s: typical seconds of it, which may differ from what was simulated.
    """
    path = run.schedule.path(len(run.steps) - 1)
    busy, on_path = run.busy_s(range(len(run.steps))), run.busy_s(path)
    text_s = sum(
        run.schedule.spans[step].duration_s for step in path if run.steps[step].lane == TEXT
    )
    beyond_s = total_s - text_s - sum(on_path.values())
    lanes = {
        lane: LaneUse(busy[lane], max(0.0, total_s - busy_s(_spans(run, lane))), on_path[lane])
        for lane in LANES
    }
    longest = {**on_path, WAITING: beyond_s}
    limited_by = max(longest, key=lambda lane: longest[lane])
    return LaneLimits(limited_by, total_s, text_s, beyond_s, lanes, _waits(run, plan))


def _spans(run: Run, lane: str) -> list[Span]:
    """When any thread does this work, in order."""
    steps = zip(run.steps, run.schedule.spans, strict=True)
    return sorted(span for step, span in steps if step.lane == lane)


def _waits(run: Run, plan: Plan) -> tuple[CallerWait, ...]:
    """Of the calling thread, one entry a block."""
    blocks = {step.name: (step.layer, step.kind) for step in plan.steps}
    blocks |= {connect_name(*block): block for block in blocks.values()}
    found: dict[tuple[int, str] | None, dict[str, float]] = {}
    free_s = run.schedule.spans[FIRST_STEPS - 1].start_s
    for index in range(FIRST_STEPS - 1, len(run.steps)):
        if run.schedule.threads[index] == 0:
            span = run.schedule.spans[index]
            if span.start_s - free_s > _LEAST_S:
                lanes = found.setdefault(blocks.get(run.steps[index].name), {})
                for lane, seconds in _waited_for(run, index, free_s).items():
                    lanes[lane] = lanes.get(lane, 0.0) + seconds
            free_s = span.end_s
    return tuple(
        CallerWait(
            layer=None if block is None else block[0],
            kind=None if block is None else block[1],
            wait_s=sum(lanes.values()),
            lanes=lanes,
        )
        for block, lanes in found.items()
    )


def _waited_for(run: Run, step: int, since_s: float) -> dict[str, float]:
    """Which lanes do what a step waits for, from ``since_s`` until it starts.

    Each step of the chain starts when the one before it ends, so that all of the time is some
    lane's.
    """
    until_s, lanes = run.schedule.spans[step].start_s, dict[str, float]()
    holder = run.schedule.held_by[step]
    while holder >= 0 and run.schedule.spans[holder].end_s > since_s:
        span, lane = run.schedule.spans[holder], run.steps[holder].lane
        seconds = min(span.end_s, until_s) - max(span.start_s, since_s)
        if seconds > 0.0:
            lanes[lane] = lanes.get(lane, 0.0) + seconds
        holder = run.schedule.held_by[holder]
    return lanes
