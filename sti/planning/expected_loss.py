"""The loss to expect of a plan, with a prediction or without. Pure.

In a module of its own, so that a run with a cached plan need not import the cost model.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.errors import PlanError
from sti.model.fidelity import groups_of, missing_of
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.planning.plan import NARROW, Plan, PlanStep


def submodel_of(manifest: Manifest, plan: Plan) -> Submodel:
    """The submodel that a plan runs.

    Raises:
        PlanError: the pack does not have it.
    """
    found = manifest.submodel(plan.depth, plan.width)
    if found is None:
        raise PlanError(f"depth {plan.depth} x width {plan.width} is not in the pack; plan again")
    return found


def expected_loss(manifest: Manifest, plan: Plan) -> float:
    """The loss to expect of a plan that fits the pack, predicted or not, in the pack's unit."""
    if plan.predicted is not None:
        return plan.predicted.loss
    submodel = submodel_of(manifest, plan)
    return loss_of_steps(manifest, submodel, groups_of(manifest, submodel), plan.steps)


def loss_of_steps(
    manifest: Manifest,
    submodel: Submodel,
    groups: Sequence[SliceGroup],
    steps: Sequence[PlanStep],
) -> float:
    """Expected loss of a submodel whose ``groups`` are run as ``steps`` say.

    From its curve, for the planes that slices in use lack and for products that are narrow.
    """
    missing = missing_of(submodel, groups, [step.counts for step in steps])
    if any(step.variant == NARROW for step in steps):
        from sti.planning.variants import narrow_missing  # few machines plan such steps

        missing += narrow_missing(manifest, groups, steps)
    return submodel.loss_at(missing)
