"""Checks of plans against the pack they are for, and of targets. Pure."""

from __future__ import annotations

import math

from sti.errors import InputError, PlanError
from sti.model.fidelity import fidelities, groups_of
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.expected_loss import loss_of_steps
from sti.planning.lane_threads import are_known
from sti.planning.plan import EXACT, LOCAL, NARROW, VARIANTS, Plan, PlanStep, Prediction, Target
from sti.planning.variants import NARROW_MOST_BITS

_ALIKE = 1e-6
"""Sums of one machine and another differ by less."""


def check_plan(plan: Plan, manifest: Manifest, pack_id: str, *, where: str) -> None:
    """Refuse a plan that does not fit the pack.

    Raises:
        PlanError: it was made for another pack, names groups or counts the pack does not have, or
            asks for what this release does not run; or what it expects of its answers does not
            follow from its steps.
    """
    if plan.pack != pack_id:
        raise PlanError(f"{where}: the plan was made for another pack ({plan.pack}); make it again")
    planes = len(manifest.ladder)
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
    if not are_known(plan.threads):
        found = ", ".join(f"{lane} {count}" for lane, count in plan.threads._asdict().items())
        raise PlanError(
            f"{where}: this release does not know how to use these threads together: {found}; "
            "make the plan again"
        )
    held = sum(step.preload_bytes for step in plan.steps)
    if held > plan.target.preload_bytes:
        raise PlanError(
            f"{where}: its steps preload {held} bytes, its target allows "
            f"{plan.target.preload_bytes}"
        )
    for step, group in zip(plan.steps, groups, strict=True):
        _check_step(step, group, plan.width, planes, where=f"{where}: step {step.name!r}")
    if plan.predicted is not None:
        loss = loss_of_steps(manifest, submodel, groups, plan.steps)
        _check_prediction(plan.predicted, loss, manifest, where=where)


def _check_prediction(found: Prediction, loss: float, manifest: Manifest, *, where: str) -> None:
    """Refuse an expected loss, or quality, that does not follow from the steps.

    Answers depend on it: what a pack rejects, and which planes may be left out. Times are those of
    the machine that the plan was made on.
    """
    if not math.isclose(found.loss, loss, rel_tol=_ALIKE, abs_tol=_ALIKE):
        raise PlanError(
            f"{where}: predicts a loss of {found.loss:g}, its steps have one of {loss:g}; make the "
            "plan again, or take out what is predicted (`predicted`: null)"
        )
    if found.quality is None or manifest.quality is None:
        return
    quality = manifest.quality.estimate(loss)
    same = zip(found.quality[1:], quality[1:], strict=True)
    if found.quality.metric != quality.metric or not all(
        math.isclose(one, other, rel_tol=_ALIKE, abs_tol=_ALIKE) for one, other in same
    ):
        raise PlanError(
            f"{where}: predicts another {found.quality.metric!r:.60} than the pack states for its "
            "steps; make the plan again, or take out what is predicted (`predicted`: null)"
        )


def _check_step(step: PlanStep, group: SliceGroup, width: int, planes: int, *, where: str) -> None:
    """Refuse a step that this release cannot run, or whose counts do not fit its group."""
    if step.variant not in VARIANTS or step.device != LOCAL:
        known = " or ".join(repr(variant) for variant in VARIANTS)
        raise PlanError(
            f"{where}: variant {step.variant!r}, device {step.device!r}; this release runs "
            f"{known}, {LOCAL!r}; make the plan again"
        )
    counts, used = step.counts, group.used(width)
    if len(counts) != planes or counts[0] != used or max(counts) > group.slices:
        raise PlanError(
            f"{where}: counts {list(counts)} must be {planes} numbers of at most "
            f"{group.slices}, the first of them the slices in use, {used}"
        )
    bits = fidelities(group, counts)[:used]
    if 0 in bits:
        raise PlanError(f"{where}: a slice in use has no plane")
    if step.variant == NARROW and max(bits) > NARROW_MOST_BITS:
        raise PlanError(
            f"{where}: variant {NARROW!r} is for at most {NARROW_MOST_BITS} bits, and a slice has "
            f"{max(bits)}; make the plan again, or the step {EXACT!r}"
        )


def check_target(target: Target) -> None:
    """Refuse a target without a meaning.

    Raises:
        InputError: a latency that is not above zero, a preload below zero, or a share that is none.
    """
    if target.latency_s is not None and not target.latency_s > 0.0:
        raise InputError(f"latency must be above zero, found {target.latency_s} s")
    if target.preload_bytes < 0:
        raise InputError(f"preload must not be below zero, found {target.preload_bytes} bytes")
    if not 0.0 < target.quantile < 1.0:
        raise InputError(f"quantile must lie between 0 and 1, found {target.quantile}")
    if not 0.0 <= target.floor <= 1.0:
        raise InputError(f"floor must lie between 0 and 1, found {target.floor}")
