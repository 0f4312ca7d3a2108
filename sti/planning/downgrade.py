"""Downgrades: planes of a slice group that a run left out. Pure.

In: a plan, and what its run left out. Out: the plan as it was really run, which gives the same
answer again, to the bit, and what to expect of it. Knows nothing of how damage is found, or how
lateness is foreseen (``sti.planning.deadlines``).
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
LATE = "late"
"""Reason: the answer would have come too late for its target with the plane."""
USUAL_FLOOR = 0.95
"""Share of the full model's metric below which planes are waited for, however late they are."""


class Adapt(NamedTuple):
    """What a run may leave out of its plan."""

    damaged: bool = False
    """Planes above the lowest that are damaged; else the run fails."""
    deadline: float | None = None
    """When the answer is due, in seconds of ``time.perf_counter``: planes above the lowest that
    would come too late are left out. None: they are waited for."""
    floor: float = USUAL_FLOOR
    """Planes are left out for lateness only as far as this share of the full model's metric is to
    be expected, if the pack knows it."""


AS_PLANNED = Adapt()
"""Nothing may be left out."""


class Downgrade(NamedTuple):
    """A plane of a slice group that was left out, and with it all planes above it."""

    layer: int
    kind: str
    group: int
    bits: int
    """The plane, by the fidelity that it raises a shard to."""
    slice: int | None
    """The slice, counted in the block, whose shard was the reason; None where it was the time."""
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
    least: dict[tuple[int, str, int], int] = {}
    for item in downgrades:
        key = item.layer, item.kind, item.group
        least[key] = min(item.bits, least.get(key, item.bits))
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
