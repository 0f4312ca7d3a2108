"""Downgrades: planes of a slice group that a run left out. Pure.

In: a plan, and what its run left out. Out: the plan as it was really run, which gives the same
answer again, to the bit, and what to expect of it. Knows nothing of how damage is found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from sti.model.fidelity import groups_of
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.expected_loss import loss_of_steps, submodel_of
from sti.planning.plan import Plan, PlanStep, step_name
from sti.storage.byte_ranges import total_bytes

DAMAGED = "damaged"
"""Reason: a shard of the plane does not match its checksum."""


class Downgrade(NamedTuple):
    """A plane of a slice group that was left out, and with it all planes above it."""

    layer: int
    kind: str
    group: int
    bits: int
    """The plane, by the fidelity that it raises a shard to."""
    slice: int | None
    """The slice, counted in the block, whose shard was the reason, if it was one."""
    reason: str = DAMAGED

    @property
    def step(self) -> str:
        """Name of the step."""
        return step_name(self.layer, self.kind, self.group)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return self._asdict()


def downgraded(plan: Plan, manifest: Manifest, downgrades: Iterable[Downgrade]) -> Plan:
    """The plan without the planes that were left out; its prediction says what to expect now.

    Bytes and times of the prediction stay those of the whole plan.
    """
    least = {(item.layer, item.kind, item.group): item.bits for item in downgrades}
    if not least:
        return plan
    submodel = submodel_of(manifest, plan)
    groups = groups_of(manifest, submodel)
    steps = tuple(
        _without(step, group, least.get((step.layer, step.kind, step.group)))
        for step, group in zip(plan.steps, groups, strict=True)
    )
    predicted = plan.predicted
    if predicted is not None:
        loss = loss_of_steps(manifest, submodel, groups, steps)
        quality = None if manifest.quality is None else manifest.quality.estimate(loss)
        predicted = replace(predicted, loss=loss, quality=quality)
    return replace(plan, steps=steps, predicted=predicted)


def _without(step: PlanStep, group: SliceGroup, bits: int | None) -> PlanStep:
    """The step without the planes from ``bits`` on."""
    if bits is None:
        return step
    planes = zip(group.planes, step.counts, strict=True)
    counts = tuple(count if plane.bits < bits else 0 for plane, count in planes)
    held = min(step.preload_bytes, total_bytes(group_ranges(group, counts)))
    return step._replace(counts=counts, preload_bytes=held)
