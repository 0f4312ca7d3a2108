"""Lanes with capacities and the steps that queue on them: when does each step run?

Purpose: judge a plan without running it. A lane does its steps one after the other, in the order
given; a step made of equal parts runs up to ``capacity`` of them at once. Knows nothing of packs,
groups or devices, nor which lanes there are. In: lanes, and steps with their work in seconds and
what they wait for. Out: when each runs, and why not earlier. Pure. It replaces the accumulated IO
budget of the paper ("Planner").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sti.planning.span import Span


@dataclass(frozen=True, slots=True)
class Lane:
    """A resource that does one step at a time, ``capacity`` parts of it side by side."""

    name: str
    capacity: int = 1


class TimelineStep(NamedTuple):
    """Work for one lane.

    ``work_s`` seconds in all, in ``parts`` equal parts; it starts when the lane has done the steps
    before it and every step listed in ``after`` (indices of earlier steps) has ended.
    """

    lane: str
    work_s: float
    parts: int = 1
    after: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The outcome of ``simulate``: one entry a step, in the order the steps were given."""

    spans: tuple[Span, ...]
    held_by: tuple[int, ...]
    """For each step the one whose end let it start; -1 where it started at once."""

    def path(self, step: int) -> tuple[int, ...]:
        """The chain of steps, each waiting for the one before it, that ends with ``step``."""
        chain = [step]
        while self.held_by[chain[-1]] >= 0:
            chain.append(self.held_by[chain[-1]])
        return tuple(reversed(chain))


def rounds_s(work_s: float, parts: int, capacity: int) -> float:
    """Seconds ``work_s`` takes in ``parts`` equal parts, ``capacity`` of them at a time."""
    return work_s * -(-parts // capacity) / parts


def simulate(lanes: Sequence[Lane], steps: Sequence[TimelineStep]) -> Schedule:
    """Start every step as soon as its lane and what it waits for allow.

    Args:
        lanes: every lane named by a step; names differ.
        steps: in an order in which each step waits for earlier ones only, which is also the order
            in which each lane does its own.
    """
    capacity = {lane.name: lane.capacity for lane in lanes}
    latest = dict.fromkeys(capacity, -1)
    spans: list[Span] = []
    held_by: list[int] = []
    for index, step in enumerate(steps):
        start_s, holder = 0.0, -1
        for other in (latest[step.lane], *step.after):
            if other >= 0 and spans[other].end_s > start_s:
                start_s, holder = spans[other].end_s, other
        span_s = rounds_s(step.work_s, step.parts, capacity[step.lane])
        spans.append(Span(start_s, start_s + span_s, step.name))
        held_by.append(holder)
        latest[step.lane] = index
    return Schedule(tuple(spans), tuple(held_by))
