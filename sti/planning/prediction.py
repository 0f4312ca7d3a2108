"""What to expect of a given plan: its timeline, its bytes, its loss and accuracy.

Used by the planner and for pinned plans alike. Knows nothing of targets or of how fidelities are
chosen. In: manifest, device profile, groups with counts and preloads. Out: ``Prediction``. Pure.
Bytes come from ``sti.model.group_layout``, as they do for the executors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sti.device.lanes import LANES, lane_of
from sti.device.profile import DeviceProfile
from sti.model.fidelity import fidelities, groups_of
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.cost_model import FIRST_STEPS, RunCosts, StepWork, run_costs, run_steps
from sti.planning.expected_loss import loss_of_steps, submodel_of
from sti.planning.plan import QUALITY, Plan, PlanStep, Prediction
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

    @property
    def stall_s(self) -> float:
        """Seconds in which the calling thread has nothing to do from ``embed`` on."""
        spans, threads = self.schedule.spans, self.schedule.threads
        first = FIRST_STEPS - 1
        own = zip(spans[first:], threads[first:], strict=True)
        busy_s = sum(span.duration_s for span, thread in own if thread == 0)
        return max(0.0, spans[-1].end_s - spans[first].start_s - busy_s)

    def busy_s(self, steps: Iterable[int]) -> dict[str, float]:
        """Seconds each lane spends on these steps, on all of its threads."""
        busy = dict.fromkeys(LANES, 0.0)
        for index in steps:
            lane, span = self.steps[index].lane, self.schedule.spans[index]
            if lane in busy:
                busy[lane] += span.duration_s
        return busy

    @property
    def lanes(self) -> dict[str, tuple[Span, ...]]:
        """What each lane does, in order, without steps that take no time (bytes that are held).

        The threads that share compute, and decode what they compute, have lanes of their own.
        """
        sharing = range(1, self.costs.threads.compute)
        found: dict[str, list[Span]] = {
            lane_of(lane, thread): [] for thread in (0, *sharing) for lane in LANES
        }
        for step, thread, span in zip(
            self.steps, self.schedule.threads, self.schedule.spans, strict=True
        ):
            if step.lane in LANES and span.duration_s > 0.0:
                found[lane_of(step.lane, thread if thread in sharing else 0)].append(span)
        used = (lane for lane, spans in found.items() if spans or lane in LANES)
        return {lane: tuple(found[lane]) for lane in used}

    @property
    def limiting_lane(self) -> str:
        """The lane with the largest part of the chain of waits that ends with the answer."""
        busy = self.busy_s(self.schedule.path(len(self.steps) - 1))
        return max(busy, key=lambda lane: busy[lane])


class StepLoad(NamedTuple):
    """What one step of a plan reads, decodes and computes, on any machine."""

    group: SliceGroup
    requests: int
    read_bytes: int
    shards: Mapping[int, int]
    """Fidelity to how many shards are decoded at it."""
    variant: str
    name: str


def loads_of(groups: Sequence[SliceGroup], items: Sequence[PlanStep]) -> list[StepLoad]:
    """What running ``items`` takes, the steps of ``groups``."""
    loads = []
    for group, item in zip(groups, items, strict=True):
        ranges = skip(group_ranges(group, item.counts), item.preload_bytes)
        shards = Counter(bits for bits in fidelities(group, item.counts) if bits)
        loads.append(
            StepLoad(group, len(ranges), total_bytes(ranges), shards, item.variant, item.name)
        )
    return loads


def simulate_loads(costs: RunCosts, loads: Sequence[StepLoad], *, read_ahead: int) -> Run:
    """Simulate a run of these loads."""
    works = [
        StepWork(
            item.group,
            costs.read_s(item.requests, item.read_bytes),
            costs.decode_s(item.group, item.shards),
            costs.compute_s(item.group, item.variant),
            item.name,
        )
        for item in loads
    ]
    steps = run_steps(costs, works, read_ahead=read_ahead)
    return Run(costs, steps, simulate(steps), sum(item.read_bytes for item in loads))


def simulate_run(
    costs: RunCosts, groups: Sequence[SliceGroup], items: Sequence[PlanStep], *, read_ahead: int
) -> Run:
    """Simulate running ``items``, the steps of ``groups``, as ``simulate_loads``."""
    return simulate_loads(costs, loads_of(groups, items), read_ahead=read_ahead)


def predict(manifest: Manifest, profile: DeviceProfile, plan: Plan) -> Prediction:
    """The timeline the machine is expected to follow when it runs ``plan``.

    Args:
        plan: one that fits the manifest (``sti.planning.check.check_plan``).

    Raises:
        PlanError: the plan's submodel is not in the pack.
        ProfileError: the profile lacks a graph or a fidelity of the pack, or the plan's threads.
    """
    submodel = submodel_of(manifest, plan)
    costs = run_costs(manifest, profile, plan.workload, plan.width, threads=plan.threads)
    groups = groups_of(manifest, submodel)
    run = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
    return predict_run(manifest, plan, run, loss_of_steps(manifest, submodel, groups, plan.steps))


def predict_run(manifest: Manifest, plan: Plan, run: Run, loss: float) -> Prediction:
    """The prediction for a plan whose run was simulated and whose loss is known."""
    return Prediction(
        total_s=run.total_s,
        stall_s=run.stall_s,
        bytes_read=run.read_bytes,
        loss=loss,
        limited_by=QUALITY if _best(manifest, plan, loss) else run.limiting_lane,
        lanes=run.lanes,
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
