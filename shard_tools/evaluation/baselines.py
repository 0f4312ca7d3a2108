"""The paper's baselines: the best that each could do within the limits of a plan. Pure.

In: manifest, device profile, workload, a target. Out: for each baseline its best plan and the
seconds to expect of it, or the reason why it cannot meet the target. Paper, section "Evaluation".
Knows nothing of data: *best* is the least expected loss, then the fewest bytes. (The planner does
not spend bytes on differences that the pack's calibration cannot measure; baselines do.)

Every baseline chooses its submodel among all that the pack vouches for, and must keep the same
limits as the plan: the latency in 95 of 100 runs, and bytes held between runs within the preload.
All use the same kernels and the same nested code, which makes them stronger than the paper's:

* *in memory*: every shard at one fidelity is held between runs, compressed; only decoding and
  computing remain, and are shared out as the engine does. A submodel larger than the preload does
  not fit.
* *load then execute*: nothing is held; all shards are read, then decoded and computed one after the
  other, without overlap. It may choose its fidelity, too.
* *layer pipeline*: the standard pipeline. Every shard at one fidelity, nothing held; a layer is
  read while the one before it is decoded and then computed, as the paper decompresses just before
  use. The engine has no such mode: its time is always simulated.
* *our pipeline*: every shard at one fidelity in the engine: group by group, under the threads that
  suit it best and with the plan's preload. Not in the paper: it shows how much of
  the plan's advantage comes from choosing a fidelity for each shard.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sti.device.lanes import COMPUTE, SEQUENTIAL, STORAGE, LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, Submodel
from sti.model.quality import Estimate
from sti.model.workload import Workload
from sti.planning.cost_model import FIRST_STEPS, TEXT, deadline_s, promised_s, run_costs
from sti.planning.memory import ring_bytes
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.prediction import simulate_run
from sti.planning.timeline import TimelineStep, simulate
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import total_bytes
from sti.units import format_size, format_time

Mode = Literal["planned", "sequential", "layerwise"]
"""As the engine's ``run`` takes it, which knows no ``layerwise``."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A plan, how it is executed, and what to expect of it."""

    plan: Plan
    """With a prediction, whose times are those of the plan's threads."""
    mode: Mode
    total_s: float
    """Median seconds from text to answer, executed as ``mode`` says."""

    @property
    def loss(self) -> float:
        """Expected loss."""
        assert self.plan.predicted is not None
        return self.plan.predicted.loss

    @property
    def quality(self) -> Estimate:
        """The metric to expect, where the pack's quality was measured."""
        assert self.plan.predicted is not None
        assert self.plan.predicted.quality is not None
        return self.plan.predicted.quality

    @property
    def bytes_read(self) -> int:
        """Bytes of weights read from storage in a run."""
        assert self.plan.predicted is not None
        return self.plan.predicted.bytes_read

    @property
    def execution(self) -> Hashable:
        """What is executed, and how: contenders with equal ones take the same time."""
        plan = self.plan
        return plan.steps, plan.threads, plan.read_ahead, self.mode

    @property
    def rank(self) -> tuple[float, int, float]:
        """The least is the best."""
        return self.loss, self.bytes_read, self.total_s


@dataclass(frozen=True, slots=True)
class Baseline:
    """One baseline under one target."""

    name: str
    in_paper: bool
    best: Contender | None
    why_not: str
    """Why there is none; empty where there is one."""


class Baselines:
    """All baselines of a pack on one machine. Caches what does not depend on the target."""

    def __init__(
        self, manifest: Manifest, pack_id: str, profile: DeviceProfile, workload: Workload
    ) -> None:
        self._manifest, self._pack_id = manifest, pack_id
        self._profile, self._workload = profile, workload
        self._bits = manifest.ladder[::-1]
        self._in_memory = {bits: tuple(self._held(bits)) for bits in self._bits}
        self._serial = tuple(self._one_after_the_other())
        self._layerwise = {bits: tuple(self._layer_by_layer(bits)) for bits in self._bits}
        self._pipelines: dict[tuple[int, int], tuple[Contender, ...]] = {}

    def under(self, target: Target) -> tuple[Baseline, ...]:
        """Each baseline's best within the target. Without a preload, those that need one are left
        out.
        """
        preload = target.preload_bytes
        schemes: list[tuple[str, bool, Sequence[Contender]]] = []
        if preload:
            schemes += [(f"in memory, {b} bits", True, self._in_memory[b]) for b in self._bits]
        schemes += [("load then execute", True, self._serial)]
        schemes += [(f"layer pipeline, {b} bits", True, self._layerwise[b]) for b in self._bits]
        schemes += [
            (f"our pipeline, {b} bits", False, self._pipeline(b, preload)) for b in self._bits
        ]
        return tuple(
            Baseline(name, in_paper, *self._best(options, target))
            for name, in_paper, options in schemes
        )

    def _best(self, options: Sequence[Contender], target: Target) -> tuple[Contender | None, str]:
        """The best that keeps the target; else why there is none."""
        held = [item for item in options if _held_bytes(item) <= target.preload_bytes]
        if not held:
            return None, f"needs a preload of {format_size(min(map(_held_bytes, options)))}"
        in_time = [item for item in held if self._in_time(item, target)]
        if not in_time:
            least_s = min(
                promised_s(self._profile, item.total_s, item.plan.threads) for item in held
            )
            return None, f"needs {format_time(least_s)}"
        best = min(in_time, key=lambda item: item.rank)
        return replace(best, plan=replace(best.plan, target=target)), ""

    def _in_time(self, contender: Contender, target: Target) -> bool:
        deadline = deadline_s(self._profile, target, contender.plan.threads)
        return deadline is None or contender.total_s <= deadline

    def _held(self, bits: int) -> Iterator[Contender]:
        for submodel in self._manifest.submodels:
            size = sum(
                total_bytes(group_ranges(group, uniform_counts(group, submodel.width, bits)))
                for group in groups_of(self._manifest, submodel)
            )
            yield self._contender(submodel, bits, size)

    def _one_after_the_other(self) -> Iterator[Contender]:
        for submodel in self._manifest.submodels:
            for bits in self._manifest.ladder:
                contender = self._contender(submodel, bits, 0, SEQUENTIAL)
                yield replace(contender, mode="sequential")

    def _layer_by_layer(self, bits: int) -> Iterator[Contender]:
        for submodel in self._manifest.submodels:
            plan = self._contender(submodel, bits, 0, SEQUENTIAL).plan
            total_s = layerwise_s(self._manifest, self._profile, submodel, plan)
            yield Contender(plan, "layerwise", total_s)

    def _pipeline(self, bits: int, preload: int) -> tuple[Contender, ...]:
        if (bits, preload) not in self._pipelines:
            self._pipelines[bits, preload] = tuple(
                self._contender(submodel, bits, preload) for submodel in self._manifest.submodels
            )
        return self._pipelines[bits, preload]

    def _contender(
        self, submodel: Submodel, bits: int, preload: int, threads: LaneThreads | None = None
    ) -> Contender:
        """A submodel at one fidelity; its target's preload is what it may hold."""
        return planned(
            uniform_plan(
                PlanRequest(self._manifest, self._pack_id, self._workload, Target(None, preload)),
                bits=bits,
                profile=self._profile,
                threads=threads,
                depth=submodel.depth,
                width=submodel.width,
            )
        )


def planned(plan: Plan) -> Contender:
    """A plan that is executed as it is meant to be. It must have a prediction."""
    assert plan.predicted is not None
    return Contender(plan, "planned", plan.predicted.total_s)


def layerwise_s(
    manifest: Manifest, profile: DeviceProfile, submodel: Submodel, plan: Plan
) -> float:
    """Median seconds of a run in two stages: reading a layer, and decoding and computing it.

    Two layers fit into memory: the one worked on, and the one being read. Neither stage is slowed
    by the other: the work takes what it takes on one thread.
    """
    costs = run_costs(manifest, profile, plan.workload, plan.width, threads=SEQUENTIAL)
    run = simulate_run(costs, groups_of(manifest, submodel), plan.steps, read_ahead=plan.read_ahead)
    reader, worker = (0,), (1,)
    steps = [
        TimelineStep(TEXT, costs.tokenize_s + costs.rows_s, reader),
        TimelineStep(COMPUTE, costs.embed_s, worker, after=(0,)),
    ]
    blocks = range(FIRST_STEPS, len(run.steps) - 1)
    done: list[int] = []
    for first in blocks[:: len(blocks) // plan.depth]:
        busy_s = run.busy_s(blocks[first - FIRST_STEPS :][: len(blocks) // plan.depth])
        read_s = busy_s.pop(STORAGE)
        steps.append(TimelineStep(STORAGE, read_s, reader, after=tuple(done[-2:-1])))
        work_s = sum(busy_s.values())
        steps.append(TimelineStep(COMPUTE, work_s, worker, after=(len(steps) - 1,)))
        done.append(len(steps) - 1)
    steps.append(TimelineStep(COMPUTE, costs.head_s, worker))
    return simulate(steps).spans[-1].end_s + costs.fixed_s


def _steps_a_layer(plan: Plan) -> int:
    """Slice groups in use of each layer."""
    return len(plan.steps) // plan.depth


def memory_bytes(manifest: Manifest, contender: Contender) -> int:
    """What a contender takes for the encoder's weights.

    Preload buffer, ring and working buffers (decoded slice groups, a byte a weight); where
    everything is read first, all of it instead of the ring, and two layers where layers are read.
    Without token embeddings, graphs and states.
    """
    plan = contender.plan
    sizes = [
        total_bytes(group_ranges(manifest.group(item.layer, item.kind, item.group), item.counts))
        for item in plan.steps
    ]
    buffer = max(max(kind.groups) * kind.shard_weights for kind in manifest.kinds)
    buffers = plan.threads.buffers * buffer
    if contender.mode == "sequential":
        return sum(sizes) + buffers
    if contender.mode == "layerwise":
        each = _steps_a_layer(plan)
        layers = [sum(sizes[first : first + each]) for first in range(0, len(sizes), each)]
        return ring_bytes(layers, 2) + buffers
    return _held_bytes(contender) + ring_bytes(sizes, plan.read_ahead + 1) + buffers


def _held_bytes(contender: Contender) -> int:
    return sum(item.preload_bytes for item in contender.plan.steps)
