"""What to expect of a given plan: its timeline, its bytes, its loss and accuracy.

Used by the planner and for pinned plans alike. Knows nothing of targets or of how fidelities are
chosen. In: manifest, device profile, groups with counts and preloads. Out: ``Prediction``. Pure.
Bytes come from ``sti.model.group_layout``, as they do for the executors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sti.device.lanes import COMPUTE, LANES
from sti.device.profile import DeviceProfile
from sti.model.fidelity import fidelities, groups_of, loss_of
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.cost_model import FIRST_STEPS, RunCosts, StepWork, run_costs, run_steps
from sti.planning.expected_loss import submodel_of
from sti.planning.plan import Plan, PlanStep, Prediction
from sti.planning.span import Span
from sti.planning.timeline import Schedule, TimelineStep, simulate
from sti.storage.byte_ranges import skip, total_bytes


@dataclass(frozen=True, slots=True)
class Run:
    """A simulated run: ``sti.planning.cost_model.run_steps`` and when each happens."""

    costs: RunCosts
    steps: Sequence[TimelineStep]
    schedule: Schedule
    read_bytes: int
    """Bytes of groups read from storage, without the token embeddings."""

    @property
    def total_s(self) -> float:
        """Median seconds from text to answer."""
        return self.schedule.spans[-1].end_s + self.costs.fixed_s

    def busy_s(self, steps: Sequence[int] | range) -> dict[str, float]:
        """Seconds each lane spends on these steps."""
        busy = dict.fromkeys(LANES, 0.0)
        for index in steps:
            lane, span = self.steps[index].lane, self.schedule.spans[index]
            if lane in busy:
                busy[lane] += span.duration_s
        return busy

    def spans_of(self, lane: str) -> tuple[Span, ...]:
        """What a lane does, in order, without steps that take no time (bytes that are held)."""
        spans = zip(self.steps, self.schedule.spans, strict=True)
        return tuple(span for step, span in spans if step.lane == lane and span.duration_s > 0.0)

    @property
    def limiting_lane(self) -> str:
        """The lane with the largest part of the chain of waits that ends with the answer."""
        busy = self.busy_s(self.schedule.path(len(self.steps) - 1))
        return max(busy, key=lambda lane: busy[lane])


def simulate_run(
    costs: RunCosts, groups: Sequence[SliceGroup], items: Sequence[PlanStep], *, read_ahead: int
) -> Run:
    """Simulate running ``items``, the plans of ``groups``."""
    works = []
    read_bytes = 0
    for group, item in zip(groups, items, strict=True):
        ranges = skip(group_ranges(group, item.counts), item.preload_bytes)
        size = total_bytes(ranges)
        read_bytes += size
        storage_s = costs.storage.read_s(len(ranges), size)
        decode_s = costs.decode_s(group, fidelities(group, item.counts))
        works.append(StepWork(group, storage_s, decode_s, item.counts[0], item.name))
    steps = run_steps(costs, works, read_ahead=read_ahead)
    return Run(costs, steps, simulate(costs.lanes, steps), read_bytes)


def predict(manifest: Manifest, profile: DeviceProfile, plan: Plan) -> Prediction:
    """The timeline the machine is expected to follow when it runs ``plan``.

    Args:
        plan: one that fits the manifest (``sti.planning.check.check_plan``).

    Raises:
        PlanError: the plan's submodel is not in the pack.
        ProfileError: the profile lacks a graph or a fidelity of the pack.
    """
    submodel = submodel_of(manifest, plan)
    threads = plan.decode_threads
    costs = run_costs(manifest, profile, plan.workload, plan.width, threads=threads)
    groups = groups_of(manifest, submodel)
    run = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
    return predict_run(
        manifest, plan, run, loss_of(submodel, groups, [s.counts for s in plan.steps])
    )


def predict_run(manifest: Manifest, plan: Plan, run: Run, loss: float) -> Prediction:
    """The prediction for a plan whose run was simulated and whose loss is known."""
    spans = run.schedule.spans
    busy_s = run.busy_s(range(len(spans)))[COMPUTE]
    stall_s = spans[-1].end_s - spans[FIRST_STEPS - 1].start_s - busy_s
    return Prediction(
        total_s=run.total_s,
        stall_s=max(0.0, stall_s),
        bytes_read=run.read_bytes,
        loss=loss,
        limited_by="quality" if _best(manifest, plan, loss) else run.limiting_lane,
        lanes={lane: run.spans_of(lane) for lane in LANES},
        quality=None if manifest.quality is None else manifest.quality.estimate(loss),
    )


def mean_bits(manifest: Manifest, plan: Plan) -> float:
    """Bits a weight on average over the slices in use."""
    weights = bits = 0
    for item in plan.steps:
        group = manifest.group(item.layer, item.kind, item.group)
        used = group.used(plan.width)
        weights += group.shard_weights * used
        bits += group.shard_weights * sum(fidelities(group, item.counts)[:used])
    return bits / weights


def _best(manifest: Manifest, plan: Plan, loss: float) -> bool:
    """Whether nothing in the pack is better, as far as its calibration can tell."""
    if manifest.quality is not None and loss <= manifest.quality.indistinct_from(0.0):
        return True
    if len(plan.steps) != len(manifest.groups):
        return False
    steps = zip(plan.steps, manifest.groups, strict=True)
    return all(set(item.counts) == {group.slices} for item, group in steps)
