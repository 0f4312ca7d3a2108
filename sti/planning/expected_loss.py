"""The loss to expect of a plan, with a prediction or without. Pure.

In a module of its own, so that a run with a cached plan need not import the cost model.
"""

from __future__ import annotations

from sti.errors import PlanError
from sti.model.fidelity import groups_of, loss_of
from sti.model.manifest import Manifest, Submodel
from sti.planning.plan import Plan


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
    counts = [item.counts for item in plan.steps]
    return loss_of(submodel, groups_of(manifest, submodel), counts)
