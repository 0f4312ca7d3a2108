"""Checks of plans against the pack they are for, and of targets. Pure."""

from __future__ import annotations

from sti.errors import InputError, PlanError
from sti.model.fidelity import fidelities
from sti.model.manifest import Manifest
from sti.planning.plan import EXACT, LOCAL, Plan, Target


def check_plan(plan: Plan, manifest: Manifest, pack_id: str, *, where: str) -> None:
    """Refuse a plan that does not fit the pack.

    Raises:
        PlanError: it was made for another pack, or names blocks or counts the pack does not have.
    """
    if plan.pack != pack_id:
        raise PlanError(f"{where}: the plan was made for another pack ({plan.pack}); make it again")
    slices, planes = manifest.dimensions.slices, len(manifest.ladder)
    submodel = manifest.submodel(plan.depth, plan.width)
    if submodel is None:
        known = ", ".join(f"{item.depth}x{item.width}" for item in manifest.submodels)
        raise PlanError(
            f"{where}: depth {plan.depth} x width {plan.width} is not a submodel the pack vouches "
            f"for; it has {known}"
        )
    expected = [
        (block.layer, block.kind) for block in manifest.blocks if block.layer in submodel.layers
    ]
    if [(step.layer, step.kind) for step in plan.steps] != expected:
        raise PlanError(f"{where}: its steps are not the blocks of the submodel, in order")
    if plan.decode_threads > slices:
        raise PlanError(
            f"{where}: {plan.decode_threads} decode threads are more than the {slices} slices"
        )
    held = sum(step.preload_bytes for step in plan.steps)
    if held > plan.target.preload_bytes:
        raise PlanError(
            f"{where}: its steps preload {held} bytes, its target allows "
            f"{plan.target.preload_bytes}"
        )
    for item in plan.steps:
        counts = item.counts
        if (item.group, item.variant, item.device) != (0, EXACT, LOCAL):
            raise PlanError(
                f"{where}: layer {item.layer} {item.kind}: group {item.group}, variant "
                f"{item.variant!r}, device {item.device!r}; this release runs group 0, {EXACT!r}, "
                f"{LOCAL!r}; make the plan again"
            )
        if len(counts) != planes or counts[0] != plan.width or max(counts) > slices:
            raise PlanError(
                f"{where}: layer {item.layer} {item.kind}: counts {list(counts)} must be {planes} "
                f"numbers of at most {slices}, the first of them the width {plan.width}"
            )
        bits = fidelities(manifest.block(item.layer, item.kind), counts)
        if any(bit == 0 for bit in bits[: plan.width]):
            raise PlanError(f"{where}: layer {item.layer} {item.kind}: a slice in use has no plane")


def check_target(target: Target) -> None:
    """Refuse a target without a meaning.

    Raises:
        InputError: a latency that is not above zero, or a preload below zero.
    """
    if target.latency_s is not None and not target.latency_s > 0.0:
        raise InputError(f"latency must be above zero, found {target.latency_s} s")
    if target.preload_bytes < 0:
        raise InputError(f"preload must not be below zero, found {target.preload_bytes} bytes")
