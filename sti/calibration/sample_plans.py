"""Which runs a machine is timed with: few, but varied. Pure.

In: a manifest, and how a machine computes products. Out: uniform plans: short sequential ones whose
steps are timed one by one, and whole ones, from the smallest submodel up, whose wall time is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import NamedTuple

from sti.device.lanes import SEQUENTIAL, LaneThreads
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.plan import Plan, PlanRequest
from sti.planning.stages import layers_of
from sti.planning.uniform import uniform_plan

WORKLOADS = ((1, 16), (1, 128), (4, 16), (1, 64), (1, 32), (2, 64), (1, 256))
"""Batch and tokens of the runs that graphs are timed with, the most informative first."""
ESSENTIAL_WORKLOADS = 4
RUN_WORKLOAD, LEAST_WORKLOAD = (1, 64), (1, 32)
"""Of whole runs, and of those of the smallest submodel."""


class Shot(NamedTuple):
    """A sequential run of a uniform plan."""

    bits: int
    variants: Sequence[str]
    """How its products may be computed."""
    workload: Workload
    depth: int
    width: int


class SamplePlans:
    """The plans to time one pack with.

    Args:
        manifest, pack_id: of the pack.
        variants: how the machine may compute products.
    """

    def __init__(self, manifest: Manifest, pack_id: str, variants: Sequence[str]) -> None:
        self._manifest, self._pack_id, self._variants = manifest, pack_id, variants

    @property
    def essential(self) -> int:
        """Of ``shots``, those that show each fidelity, and graphs at enough sizes."""
        return len(self._variants) * max(len(self._manifest.ladder), ESSENTIAL_WORKLOADS)

    def shots(self) -> Iterator[Shot]:
        """The sequential runs, the essential ones first."""
        manifest = self._manifest
        models = {model.width: model for model in manifest.submodels}
        sizes = [(model.depth, model.width) for model in models.values()]
        works = [self._workload(work) for work in WORKLOADS]
        # Exactly first, and then as the machine likes it, where that is another way.
        ways = [self._variants[:end] for end in range(1, len(self._variants) + 1)]
        count = max(len(manifest.ladder), len(works)) * len(sizes) * len(ways)
        for bits, way, work, (depth, width) in islice(
            zip(cycle(manifest.ladder), cycle(ways), cycle(works), cycle(sizes), strict=False),
            count,
        ):
            yield Shot(bits, way, work, depth, width)

    def of_shot(self, shot: Shot) -> Plan:
        """The whole plan of which a shot runs the first layers."""
        return self._plan(shot.bits, shot.workload, shot.depth, shot.width, shot.variants)

    def whole_runs(self, choices: Sequence[LaneThreads], layers: int) -> list[Plan]:
        """Runs under each kind of threads: the smallest submodel, a layer, and up to ``layers``."""
        manifest = self._manifest
        least = min(manifest.submodels, key=lambda model: (model.depth * model.width, model.depth))
        small = self._plan(
            manifest.ladder[0],
            self._workload(LEAST_WORKLOAD),
            least.depth,
            least.width,
            self._variants,
        )
        whole = self.middle()
        sizes = ((small, layers), (whole, 1), (whole, layers))
        cuts = dict.fromkeys((plan, first_steps(plan, most)) for plan, most in sizes)
        return [
            replace(plan, threads=threads, steps=plan.steps[:steps])
            for threads in choices
            for plan, steps in cuts
        ]

    def middle(self) -> Plan:
        """The full model at the middle of the ladder."""
        manifest, dims = self._manifest, self._manifest.dimensions
        bits = manifest.ladder[len(manifest.ladder) // 2]
        work = self._workload(RUN_WORKLOAD)
        return self._plan(bits, work, dims.layers, dims.slices, self._variants)

    def _workload(self, work: tuple[int, int]) -> Workload:
        return Workload(work[0], min(work[1], self._manifest.dimensions.max_tokens))

    def _plan(
        self, bits: int, workload: Workload, depth: int, width: int, variants: Sequence[str]
    ) -> Plan:
        plan = uniform_plan(
            PlanRequest(self._manifest, self._pack_id, workload),
            bits=bits,
            threads=SEQUENTIAL,
            variants=variants,
            depth=depth,
            width=width,
        )
        return plan if self._manifest.part is None else self._in_part(plan)

    def _in_part(self, plan: Plan) -> Plan:
        """The same steps in the layers that a part has: blocks of all layers cost the same."""
        there = dict(zip(layers_of(plan), self._manifest.held_layers, strict=False))
        steps = [
            step._replace(layer=there[step.layer]) for step in plan.steps if step.layer in there
        ]
        return replace(plan, steps=tuple(steps))


def first_steps(plan: Plan, layers: int) -> int:
    """How many steps the first ``layers`` layers of a plan have."""
    first = layers_of(plan)[:layers]
    return sum(step.layer in first for step in plan.steps)
