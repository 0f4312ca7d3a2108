"""Which bytes a preload buffer holds: the first ones that a plan reads. Pure.

In a module of its own, so that a start with a cached plan need not import the planner.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.model.block_layout import block_ranges
from sti.model.fidelity import Counts
from sti.model.manifest import Block, Submodel
from sti.planning.plan import Plan, PlanRequest, PlanStep
from sti.storage.byte_ranges import total_bytes

READ_AHEAD = 3
"""Blocks that may be read beyond the one being decoded, unless the caller says otherwise.

With one, decoding of small blocks waits for large ones, and for every late read. With three, the
ring holds the blocks of two layers, which lie in it without gaps; two would leave gaps, and stalls
(docs/experiments.md).
"""


def place(blocks: Sequence[Block], counts: Sequence[Counts], budget: int) -> tuple[PlanStep, ...]:
    """Steps with these counts, with ``budget`` bytes of preload given to the first bytes they read.

    Whole blocks first, in order of execution, then part of the next one. Budget beyond what all
    blocks read stays unused.
    """
    placed = []
    for block, chosen in zip(blocks, counts, strict=True):
        held = min(budget, total_bytes(block_ranges(block, chosen)))
        budget -= held
        placed.append(PlanStep(block.layer, block.kind, chosen, held))
    return tuple(placed)


def bare_plan(
    request: PlanRequest,
    submodel: Submodel,
    steps: tuple[PlanStep, ...],
    decode_threads: int,
    read_ahead: int,
) -> Plan:
    """A plan without a prediction."""
    return Plan(
        pack=request.pack_id,
        workload=request.workload,
        target=request.target,
        depth=submodel.depth,
        width=submodel.width,
        decode_threads=decode_threads,
        read_ahead=read_ahead,
        steps=steps,
        predicted=None,
    )
