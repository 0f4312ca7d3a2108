"""What a given plan will take and give: its timeline, its bytes, its loss and accuracy.

Purpose: judge plans, whether the planner is still choosing or someone pinned one. Knows nothing of
targets' limits or of how fidelities are chosen. In: manifest, device profile, blocks with counts
and preloads. Out: ``Prediction``. Pure. Bytes come from ``sti.storage.byte_ranges``, as in the
executors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sti.device.profile import DeviceProfile
from sti.errors import PlanError
from sti.model.block_layout import block_ranges
from sti.model.fidelity import blocks_of, fidelities, loss_of
from sti.model.manifest import Block, Manifest
from sti.planning.cost_model import (
    COMPUTE,
    DECODE,
    FIRST_STEPS,
    STEPS_PER_BLOCK,
    STORAGE,
    BlockWork,
    RunCosts,
    run_costs,
    run_steps,
)
from sti.planning.plan import BlockPlan, BlockTimes, Plan, Prediction
from sti.planning.timeline import Schedule, TimelineStep, simulate
from sti.storage.byte_ranges import skip, total_bytes


@dataclass(frozen=True, slots=True)
class Run:
    """A simulated run: ``sti.planning.cost_model.run_steps`` and when each happens."""

    costs: RunCosts
    steps: Sequence[TimelineStep]
    schedule: Schedule
    read_bytes: int
    """Bytes of blocks read from storage, without the token embeddings."""

    @property
    def total_s(self) -> float:
        """Median seconds from text to answer."""
        return self.schedule.spans[-1].end_s + self.costs.fixed_s

    def busy_s(self, steps: Sequence[int] | range) -> dict[str, float]:
        """Seconds each lane spends on these steps."""
        busy = dict.fromkeys((STORAGE, DECODE, COMPUTE), 0.0)
        for index in steps:
            lane, span = self.steps[index].lane, self.schedule.spans[index]
            if lane in busy:
                busy[lane] += span.end_s - span.start_s
        return busy

    @property
    def limiting_lane(self) -> str:
        """The lane with the largest part of the chain of waits that ends with the answer."""
        busy = self.busy_s(self.schedule.path(len(self.steps) - 1))
        return max(busy, key=lambda lane: busy[lane])


def simulate_run(
    costs: RunCosts, blocks: Sequence[Block], items: Sequence[BlockPlan], *, read_ahead: int
) -> Run:
    """Simulate running ``items``, the plans of ``blocks``."""
    works = []
    read_bytes = 0
    for block, item in zip(blocks, items, strict=True):
        ranges = skip(block_ranges(block, item.counts), item.preload_bytes)
        size = total_bytes(ranges)
        read_bytes += size
        storage_s = costs.storage.read_s(len(ranges), size)
        decode_s = costs.decode_s(block, fidelities(block, item.counts))
        works.append(BlockWork(block.kind, storage_s, decode_s, shards=item.counts[0]))
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
    size = plan.depth, plan.width
    submodel = next((m for m in manifest.submodels if (m.depth, m.width) == size), None)
    if submodel is None:
        raise PlanError(f"depth {plan.depth} x width {plan.width} is not in the pack; plan again")
    threads = plan.decode_threads
    costs = run_costs(manifest, profile, plan.workload, plan.width, threads=threads)
    blocks = blocks_of(manifest, submodel)
    run = simulate_run(costs, blocks, plan.blocks, read_ahead=plan.read_ahead)
    spans = run.schedule.spans
    busy = run.busy_s(range(len(spans)))
    loss = loss_of(submodel, blocks, [item.counts for item in plan.blocks])
    stall_s = spans[-1].end_s - spans[FIRST_STEPS - 1].start_s - busy[COMPUTE]
    return Prediction(
        total_s=run.total_s,
        storage_s=busy[STORAGE],
        decode_s=busy[DECODE],
        compute_s=busy[COMPUTE],
        stall_s=max(0.0, stall_s),
        bytes_read=run.read_bytes,
        loss=loss,
        limited_by="quality" if _best(manifest, plan, loss) else run.limiting_lane,
        blocks=tuple(
            BlockTimes(*spans[first : first + STEPS_PER_BLOCK])
            for first in range(FIRST_STEPS, len(spans) - 1, STEPS_PER_BLOCK)
        ),
        quality=None if manifest.quality is None else manifest.quality.estimate(loss),
    )


def mean_bits(manifest: Manifest, plan: Plan) -> float:
    """Bits a weight on average over the slices in use."""
    stored = {(block.layer, block.kind): block for block in manifest.blocks}
    weights = bits = 0
    for item in plan.blocks:
        block = stored[item.layer, item.kind]
        weights += block.shard_weights * plan.width
        bits += block.shard_weights * sum(fidelities(block, item.counts)[: plan.width])
    return bits / weights


def _best(manifest: Manifest, plan: Plan, loss: float) -> bool:
    """Whether nothing in the pack is better, as far as its calibration can tell."""
    if manifest.quality is not None and loss <= manifest.quality.indistinct_from(0.0):
        return True
    slices = manifest.dimensions.slices
    whole = plan.depth == manifest.dimensions.layers
    return whole and all(set(item.counts) == {slices} for item in plan.blocks)


def expected_loss(manifest: Manifest, plan: Plan) -> float:
    """The loss to expect of a plan that fits the pack, predicted or not, in the pack's unit."""
    if plan.predicted is not None:
        return plan.predicted.loss
    size = plan.depth, plan.width
    submodel = next(item for item in manifest.submodels if (item.depth, item.width) == size)
    counts = [item.counts for item in plan.blocks]
    return loss_of(submodel, blocks_of(manifest, submodel), counts)
