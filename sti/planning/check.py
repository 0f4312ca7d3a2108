"""Checks of plans against the pack they are for, and of targets. Pure."""

from __future__ import annotations

from sti.errors import InputError, PlanError
from sti.model.fidelity import fidelities, groups_of
from sti.model.manifest import Manifest
from sti.planning.plan import EXACT, LOCAL, Plan, Target


def check_plan(plan: Plan, manifest: Manifest, pack_id: str, *, where: str) -> None:
    """Refuse a plan that does not fit the pack.

    Raises:
        PlanError: it was made for another pack, or names groups or counts the pack does not have.
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
    groups = groups_of(manifest, submodel)
    expected = [(group.layer, group.kind, group.number) for group in groups]
    if [(step.layer, step.kind, step.group) for step in plan.steps] != expected:
        raise PlanError(f"{where}: its steps are not the slice groups of the submodel, in order")
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
    for item, group in zip(plan.steps, groups, strict=True):
        tag, counts, used = f"{where}: step {item.name!r}", item.counts, group.used(plan.width)
        if (item.variant, item.device) != (EXACT, LOCAL):
            raise PlanError(
                f"{tag}: variant {item.variant!r}, device {item.device!r}; this release runs "
                f"{EXACT!r}, {LOCAL!r}; make the plan again"
            )
        if len(counts) != planes or counts[0] != used or max(counts) > group.slices:
            raise PlanError(
                f"{tag}: counts {list(counts)} must be {planes} numbers of at most "
                f"{group.slices}, the first of them the slices in use, {used}"
            )
        if any(bit == 0 for bit in fidelities(group, counts)[:used]):
            raise PlanError(f"{tag}: a slice in use has no plane")


def check_target(target: Target) -> None:
    """Refuse a target without a meaning.

    Raises:
        InputError: a latency that is not above zero, or a preload below zero.
    """
    if target.latency_s is not None and not target.latency_s > 0.0:
        raise InputError(f"latency must be above zero, found {target.latency_s} s")
    if target.preload_bytes < 0:
        raise InputError(f"preload must not be below zero, found {target.preload_bytes} bytes")
