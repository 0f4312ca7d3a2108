"""Which bytes a preload buffer holds: the first ones that a plan reads. Pure.

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
