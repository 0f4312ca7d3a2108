"""The longest chain of work from each step of a predicted run to its answer. Pure.

In: a plan and its prediction. Out: seconds that are needed at least once the step's bytes are
there, whatever storage does meanwhile. Knows nothing of reads, deadlines or the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.planning.plan import Plan, Prediction, connect_name
from sti.planning.span import Span

_HEAD = "head"


class Chains(NamedTuple):
    """Seconds until the answer, if no thread had to wait for storage."""

    decode_s: tuple[float, ...]
    """Of each step, from the beginning of its decoding."""
    compute_s: tuple[float, ...]
    """Of each step, from the beginning of its computation; at the end, of the head."""


def chains(plan: Plan, predicted: Prediction, shares: Mapping[str, float]) -> Chains:
    """The chains of a plan's steps: each thread does its work in the order that is predicted.

    Args:
        plan: its threads and steps.
        predicted: when each lane works on what.
        shares: names of steps to how much of their decoding there is, where it is not all.
    """
    blocks = {step.name: (step.layer, step.kind) for step in plan.steps}
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()))}
    places = {name: numbers[block] for name, block in blocks.items()}
    ends = {connect_name(*block): number for block, number in numbers.items()}
    entered = dict.fromkeys(range(len(numbers) + 1), _head_s(predicted))
    """Of each block: from the first computation on; from its end, if nothing is computed in it."""
    connected: dict[int, float] = {}
    decoded: dict[str, float] = {}
    computed: dict[str, float] = {}
    free: dict[str, float] = {}
    """Of each thread: from its next work on."""
    for lane, thread, span in _work(plan, predicted):
        name, took_s = span.name, span.duration_s
        if lane == COMPUTE and name in ends:
            block = ends[name]
            connected[block] = took_s + max(entered[block + 1], free.get(thread, 0.0))
            free[thread] = connected[block]
            for earlier in range(block + 1):
                entered[earlier] = connected[block]
        elif lane == COMPUTE and name in places:
            block = places[name]
            rest_s = connected.get(block, entered[block + 1])
            free[thread] = took_s + max(rest_s, free.get(thread, 0.0))
            computed[name] = max(free[thread], computed.get(name, 0.0))
            for earlier in range(block + 1):
                entered[earlier] = max(entered[earlier], free[thread])
        elif lane == DECODE:
            took_s *= shares.get(name, 1.0)
            free[thread] = took_s + max(computed.get(name, 0.0), free.get(thread, 0.0))
            decoded[name] = max(free[thread], decoded.get(name, 0.0))
    compute_s = [computed.get(name, entered[block]) for name, block in places.items()]
    decode_s = [decoded.get(name, compute_s[number]) for number, name in enumerate(places)]
    return Chains(tuple(decode_s), (*compute_s, _head_s(predicted)))


def _head_s(predicted: Prediction) -> float:
    """Seconds of the head, and of what no lane's work stands for."""
    head = predicted.span(COMPUTE, _HEAD)
    ended_s = max((spans[-1].end_s for spans in predicted.lanes.values() if spans), default=0.0)
    return max(0.0, predicted.total_s - ended_s) + (head.duration_s if head else 0.0)


def _work(plan: Plan, predicted: Prediction) -> Iterator[tuple[str, str, Span]]:
    """Lane, thread and span of all that is decoded or computed; what starts last comes first."""
    work = []
    for name, spans in predicted.lanes.items():
        lane, _, number = name.partition(" ")
        if lane != STORAGE:
            thread = lane if plan.threads.decode else number
            work += [(lane, thread, span) for span in spans]
    return iter(sorted(work, key=lambda item: item[2].start_s, reverse=True))
