"""Threads and the steps that queue on them: when does each step run?

Purpose: judge a plan without running it. Steps are given in the order in which they are taken. One
waits for a thread and for earlier steps: either for the first free one of several threads, or for
the thread that has just ended the steps that it joins. Knows nothing of packs, groups or devices,
nor which lanes there are. In: steps with their work in seconds and what they wait for. Out: when
each runs, on which thread, and why not earlier. Pure. It replaces the accumulated IO budget of the
paper ("Planner").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sti.planning.span import Span


class TimelineStep(NamedTuple):
    """Work of one lane, done by one thread.

    It takes ``work_s`` seconds; it starts when its thread is free and every step listed in
    ``after`` (indices of earlier steps) has ended.
    """

    lane: str
    work_s: float
    threads: tuple[int, ...] = ()
    """Numbers of the threads that may do it: the one does that is free first, of several the one
    of the lowest number."""
    apart: tuple[int, ...] = ()
    """Earlier steps whose threads cannot do it: they wait for it."""
    joins: tuple[int, ...] = ()
    """Instead of ``threads``: earlier steps that it waits for, and whose thread does it, that of
    the one which ends last, of several the first one."""
    after: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The outcome of ``simulate``: one entry a step, in the order the steps were given."""

    spans: tuple[Span, ...]
    threads: tuple[int, ...]
    """The number of the thread that does each step."""
    held_by: tuple[int, ...]
    """For each step the one whose end let it start; -1 where it started at once."""

    def path(self, step: int) -> tuple[int, ...]:
        """The chain of steps, each waiting for the one before it, that ends with ``step``."""
        chain = [step]
        while self.held_by[chain[-1]] >= 0:
            chain.append(self.held_by[chain[-1]])
        return tuple(reversed(chain))


def simulate(steps: Sequence[TimelineStep]) -> Schedule:
    """Start every step as soon as its thread and what it waits for allow.

    Args:
        steps: each waits for earlier ones only; a thread does its own in this order.
    """
    count = 1 + max((thread for step in steps for thread in step.threads), default=0)
    free_s, latest = [0.0] * count, [-1] * count  # of each thread: since when, and after what
    ends_s: list[float] = []
    spans: list[Span] = []
    threads: list[int] = []
    held_by: list[int] = []
    for index, (_, work_s, choices, apart, joins, after, name) in enumerate(steps):
        if joins:
            thread = threads[max(joins, key=ends_s.__getitem__)]
        else:
            if apart:
                taken = [threads[other] for other in apart]
                choices = tuple(choice for choice in choices if choice not in taken)
            thread = min(choices, key=free_s.__getitem__)
        start_s, holder = free_s[thread], latest[thread]
        for other in joins + after:
            if ends_s[other] > start_s:
                start_s, holder = ends_s[other], other
        end_s = start_s + work_s
        ends_s.append(end_s)
        spans.append(Span(start_s, end_s, name))
        threads.append(thread)
        held_by.append(holder if start_s > 0.0 else -1)
        free_s[thread], latest[thread] = end_s, index
    return Schedule(tuple(spans), tuple(threads), tuple(held_by))
