"""Which bytes a preload buffer holds: the first ones that a plan reads, or some all along. Pure.

The first ones let a run begin at once. Where storage limits it, it is to work from the beginning
to the end, for which the ring is too small if the first ones are all held: whole groups at even
distances are better then.

In a module of its own, so that a start with a cached plan need not import the planner.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.device.lanes import LaneThreads
from sti.model.fidelity import Counts, fidelities
from sti.model.group_layout import group_ranges
from sti.model.manifest import SliceGroup, Submodel
from sti.planning.plan import EXACT, NARROW, Plan, PlanRequest, PlanStep
from sti.planning.variants import variant_of
from sti.storage.byte_ranges import total_bytes

READ_AHEAD = 3
"""Groups that may be read beyond the one being decoded, unless the caller says otherwise.

With one, decoding of small groups waits for large ones, and for every late read; three leave room
for late reads without much memory (docs/experiments.md).
"""


_WORTH = 0.02
"""Share of a run that has to be gained by a placement other than the usual one."""
_ROUNDING = 1e-9


def place(
    groups: Sequence[SliceGroup],
    counts: Sequence[Counts],
    budget: int,
    variants: Sequence[str] = (EXACT,),
) -> tuple[PlanStep, ...]:
    """Steps with these counts, with ``budget`` bytes of preload given to the first bytes they read.

    Whole groups first, in order of execution, then part of the next one. Budget beyond what all
    groups read stays unused. Each is computed by what suits it of ``variants``.
    """
    placed = []
    for group, chosen in zip(groups, counts, strict=True):
        held = min(budget, total_bytes(group_ranges(group, chosen))) if budget else 0
        budget -= held
        bits = fidelities(group, chosen) if NARROW in variants else ()
        variant = variant_of(bits, variants)
        placed.append(PlanStep(group.layer, group.kind, group.number, chosen, held, variant))
    return tuple(placed)


def place_spread(
    groups: Sequence[SliceGroup],
    counts: Sequence[Counts],
    budget: int,
    variants: Sequence[str] = (EXACT,),
) -> tuple[PlanStep, ...]:
    """As ``place``, with whole groups held at even distances, the first one always.

    Budget that is left over goes to the first bytes of the first group that is not held.
    """
    sizes = [
        total_bytes(group_ranges(group, chosen))
        for group, chosen in zip(groups, counts, strict=True)
    ]
    share, due, left = budget / max(1, sum(sizes)), 1.0, budget
    held = [0] * len(sizes)
    for number, size in enumerate(sizes):
        if due >= 1.0 - _ROUNDING and size <= left:
            held[number] = size
            left -= size
            due -= 1.0
        due += share
    for number, size in enumerate(sizes):
        more = min(left, size - held[number])
        held[number] += more
        left -= more
    steps = place(groups, counts, 0, variants)
    return tuple(step._replace(preload_bytes=size) for step, size in zip(steps, held, strict=True))


def placements(
    groups: Sequence[SliceGroup],
    counts: Sequence[Counts],
    budget: int,
    variants: Sequence[str] = (EXACT,),
) -> list[tuple[PlanStep, ...]]:
    """The placements worth a comparison, the usual one first."""
    usual = place(groups, counts, budget, variants)
    if not budget or sum(step.preload_bytes for step in usual) < budget:
        return [usual]  # nothing, or all of it, is held
    return [usual, place_spread(groups, counts, budget, variants)]


def better(usual_s: float, spread_s: float) -> bool:
    """Whether a run is so much shorter with what is held spread that it is worth to hold others."""
    return spread_s < usual_s * (1.0 - _WORTH)


def bare_plan(
    request: PlanRequest,
    submodel: Submodel,
    steps: tuple[PlanStep, ...],
    threads: LaneThreads,
    read_ahead: int,
) -> Plan:
    """A plan without a prediction."""
    return Plan(
        pack=request.pack_id,
        workload=request.workload,
        target=request.target,
        depth=submodel.depth,
        width=submodel.width,
        threads=threads,
        read_ahead=read_ahead,
        steps=steps,
        predicted=None,
    )
