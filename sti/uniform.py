"""Plans with every shard at one fidelity, and what all plans are made of.

Which blocks a submodel runs, the counts of a uniform fidelity, where a preload lies, what is lost.
Apart from the planner and from predictions, so that a start that needs neither imports neither.
Knows nothing of times. In: manifest, submodel. Out: plans without a search. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sti.errors import InputError
from sti.manifest import Block, Manifest, Submodel
from sti.plan import BlockPlan, Plan, Target, Workload, fidelities
from sti.profile import DeviceProfile
from sti.reads import block_ranges, total_bytes

Counts = tuple[int, ...]

READ_AHEAD = 3
"""Blocks that may be read beyond the one being decoded, unless the caller says otherwise.

With one, large blocks are waited for where small ones are decoded, and whenever storage is late.
With three, the ring holds the blocks of two layers, which follow one another in it without gaps;
two would leave gaps, and wait now and then (docs/experiments.md).
"""
_NO_TARGET = Target()


def uniform_plan(
    manifest: Manifest,
    pack_id: str,
    workload: Workload,
    *,
    bits: int,
    target: Target = _NO_TARGET,
    profile: DeviceProfile | None = None,
    decode_threads: int | None = None,
    depth: int | None = None,
    width: int | None = None,
    read_ahead: int = READ_AHEAD,
) -> Plan:
    """A plan with every shard at ``bits``, whatever the latency.

    Args:
        target: its preload is placed; its latency is only written down.
        profile: adds a prediction, and its decode threads where ``decode_threads`` is None
            (without either: 1).
        depth, width: of the submodel; the full model's where None.

    Raises:
        InputError: the pack has no such fidelity or submodel; names those it has.
        ProfileError: the profile lacks a graph or a fidelity of the pack.
    """
    check_target(target)
    if bits not in manifest.ladder:
        known = ", ".join(str(step) for step in manifest.ladder)
        raise InputError(f"a fidelity of {bits} bits is not in the pack; it has {known} bits")
    submodel = _find(manifest, depth, width)
    if decode_threads is None:
        decode_threads = 1 if profile is None else profile.decoders
    blocks = blocks_of(manifest, submodel)
    counts = [uniform_counts(block, submodel.width, bits) for block in blocks]
    placed = place(blocks, counts, target.preload_bytes)
    plan = bare_plan(pack_id, workload, target, submodel, placed, decode_threads, read_ahead)
    if profile is None:
        return plan
    from sti.prediction import predict  # a start without a profile needs none of it

    return replace(plan, predicted=predict(manifest, profile, plan))


def place_preload(
    manifest: Manifest, blocks: Sequence[BlockPlan], budget: int
) -> tuple[BlockPlan, ...]:
    """The same blocks, with ``budget`` bytes of preload given to the first bytes that they read.

    Whole blocks first, in order of execution, then a part of the next. What is left of the budget
    when everything is held stays unused. Earlier placements are forgotten.
    """
    stored = {(block.layer, block.kind): block for block in manifest.blocks}
    chosen = [stored[item.layer, item.kind] for item in blocks]
    return place(chosen, [item.counts for item in blocks], budget)


def place(blocks: Sequence[Block], counts: Sequence[Counts], budget: int) -> tuple[BlockPlan, ...]:
    """Block plans with these counts, preloads placed as ``place_preload`` says."""
    placed = []
    for block, chosen in zip(blocks, counts, strict=True):
        held = min(budget, total_bytes(block_ranges(block, chosen)))
        budget -= held
        placed.append(BlockPlan(block.layer, block.kind, chosen, held))
    return tuple(placed)


def blocks_of(manifest: Manifest, submodel: Submodel) -> list[Block]:
    """The blocks a submodel runs, in order of execution."""
    return [block for block in manifest.blocks if block.layer in submodel.layers]


def uniform_counts(block: Block, width: int, bits: int) -> Counts:
    """The counts that bring the first ``width`` slices, and no others, to ``bits``."""
    return tuple(
        1 + max(place for place, index in enumerate(plane.order) if index < width)
        if plane.bits <= bits
        else 0
        for plane in block.planes
    )


def loss_of(submodel: Submodel, blocks: Sequence[Block], counts: Sequence[Counts]) -> float:
    """Expected loss of a submodel where slices in use lack planes, by its curve."""
    return submodel.loss_at(missing_of(submodel, blocks, counts))


def missing_of(submodel: Submodel, blocks: Sequence[Block], counts: Sequence[Counts]) -> float:
    """The gains of all planes that slices in use lack."""
    missing = 0.0
    for block, chosen in zip(blocks, counts, strict=True):
        reached = fidelities(block, chosen)[: submodel.width]
        for plane in block.planes:
            missing += sum(
                gain for gain, bits in zip(plane.gains, reached, strict=False) if bits < plane.bits
            )
    return missing


def bare_plan(
    pack_id: str,
    workload: Workload,
    target: Target,
    submodel: Submodel,
    blocks: tuple[BlockPlan, ...],
    decode_threads: int,
    read_ahead: int,
) -> Plan:
    """A plan without a prediction."""
    return Plan(
        pack=pack_id,
        workload=workload,
        target=target,
        depth=submodel.depth,
        width=submodel.width,
        decode_threads=decode_threads,
        read_ahead=read_ahead,
        blocks=blocks,
        predicted=None,
    )


def check_target(target: Target) -> None:
    """Refuse a target that means nothing.

    Raises:
        InputError: a latency that is not above zero, or a preload below zero.
    """
    if target.latency_s is not None and not target.latency_s > 0.0:
        raise InputError(f"latency must be above zero, found {target.latency_s} s")
    if target.preload_bytes < 0:
        raise InputError(f"preload must not be below zero, found {target.preload_bytes} bytes")


def _find(manifest: Manifest, depth: int | None, width: int | None) -> Submodel:
    full = manifest.submodels[0]
    wanted = (depth or full.depth, width or full.width)
    for submodel in manifest.submodels:
        if (submodel.depth, submodel.width) == wanted:
            return submodel
    known = ", ".join(f"{item.depth} x {item.width}" for item in manifest.submodels)
    raise InputError(
        f"depth {wanted[0]} x width {wanted[1]} is not a submodel of the pack; it has {known}"
    )
