"""Everything an evaluation runs, planned before anything has run. Pure.

In: an open pack, a device profile, a workload, targets and preloads. Out: for each target and
preload the plan and the baselines under the same limits; besides, some submodels at every fidelity.
Knows nothing of data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from shard_tools.checkpoint.elastic import middle, smallest
from shard_tools.evaluation.baselines import Baseline, Baselines, Contender, planned
from shard_tools.measuring.forward import Precision, precision_of
from sti.device.profile import DeviceProfile
from sti.errors import InfeasibleError
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.uniform import uniform_plan


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell before anything has run."""

    target: Target
    plan: Contender | None
    """None where the target cannot be met."""
    needed_s: float | None
    """The latency that could be met, where there is no plan."""
    baselines: tuple[Baseline, ...]

    @property
    def contenders(self) -> list[Contender]:
        """Everything there is to run."""
        found = (self.plan, *(item.best for item in self.baselines))
        return [item for item in found if item is not None]


@dataclass(frozen=True, slots=True)
class PlannedEvaluation:
    """Everything there is to run."""

    cells: tuple[PlannedCell, ...]
    uniform: tuple[Contender, ...]
    """Some submodels at every fidelity, whatever they take; everything the pack has comes last."""

    @property
    def full(self) -> Contender:
        """The full model with every shard at the top fidelity."""
        return self.uniform[-1]

    @property
    def plans(self) -> list[Contender]:
        """The cells' plans."""
        return [cell.plan for cell in self.cells if cell.plan is not None]

    @property
    def contenders(self) -> list[Contender]:
        """The full model, plans and baselines."""
        return [self.full, *(item for cell in self.cells for item in cell.contenders)]

    @property
    def scored(self) -> list[Contender]:
        """All whose answers are scored."""
        return [*self.contenders, *self.uniform]

    @property
    def timed(self) -> tuple[Contender, ...]:
        """All that the engine can execute; of those that it would execute alike, one."""
        distinct = {item.execution: item for item in self.contenders if item.mode != "layerwise"}
        return tuple(distinct.values())

    def precisions(self, manifest: Manifest) -> list[Precision]:
        """What is computed: plans with equal ones give the same answers."""
        return list(dict.fromkeys(precision_of(item.plan, manifest) for item in self.scored))


def plan_evaluation(
    reader: PackReader,
    profile: DeviceProfile,
    workload: Workload,
    targets_s: Sequence[float],
    preloads_bytes: Sequence[int],
) -> PlannedEvaluation:
    """A cell for each target with each preload, and submodels at every fidelity."""
    manifest, pack_id = reader.manifest, reader.pack_id
    baselines = Baselines(manifest, pack_id, profile, workload)
    cells = []
    for latency_s, preload in product(targets_s, preloads_bytes):
        target = Target(latency_s, preload)
        plan, needed_s = None, None
        try:
            plan = planned(make_plan(PlanRequest(manifest, pack_id, workload, target), profile))
        except InfeasibleError as error:
            needed_s = error.needed
        cells.append(PlannedCell(target, plan, needed_s, baselines.under(target)))
    return PlannedEvaluation(tuple(cells), tuple(_uniform(reader, profile, workload)))


def _uniform(reader: PackReader, profile: DeviceProfile, workload: Workload) -> Iterator[Contender]:
    """The smallest submodel that every step of training sees, the one with half of the layers and
    slices, and the full model, as far as the pack has them, each at every fidelity.
    """
    manifest = reader.manifest
    full = manifest.dimensions.layers, manifest.dimensions.slices
    for depth, width in dict.fromkeys((smallest(*full), middle(*full), full)):
        if manifest.submodel(depth, width) is None:
            continue
        for bits in manifest.ladder:
            plan = uniform_plan(
                PlanRequest(manifest, reader.pack_id, workload),
                bits=bits,
                profile=profile,
                depth=depth,
                width=width,
            )
            yield planned(plan)
