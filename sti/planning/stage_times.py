"""How long a device takes for some layers of a plan, and when it would be done. Pure.

A device reads ahead from the moment that it hears of a run, while others compute the layers before
its own. So what its stage takes depends on when the hidden states arrive: it ends at
``StageTimes.end_s(arrival_s)``. Storage that is slow is hidden behind the devices in front, which
is what a chain gains in latency. In: a plan, what a device is and has room for. Out: seconds,
bytes. The steps are those of ``cost_model.run_steps``, with the wait for hidden states in place of
tokenizer and embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.cost_model import RunCosts, run_costs
from sti.planning.memory import ring_bytes, slot_size
from sti.planning.plan import Plan, PlanStep, connect_name
from sti.planning.prediction import Run, StepLoad, loads_of, simulate_loads
from sti.planning.stages import Stage, layers_of, part_of
from sti.storage.byte_ranges import total_bytes

_MOST_AHEAD = 1023
"""Steps that a plan may read ahead."""
LATE_S = 1e3
"""An arrival at which everything was read long ago."""


class Member(NamedTuple):
    """A device as plans see it."""

    name: str
    profile: DeviceProfile
    threads: LaneThreads
    preload_bytes: int = 0
    """Of its stage, held between runs."""
    room_bytes: int | None = None
    """Memory for what is held and what is read ahead; None: as much as it takes."""
    first: int = 0
    last: int | None = None
    """The layers that it has; None: all from ``first`` on."""
    factor: float = 1.0
    """What runs took on it, over what was predicted."""
    others: tuple[LaneThreads, ...] = ()
    """Threads that it may run with as well: the faster ones are taken."""

    def has(self, stage: Stage) -> bool:
        """Whether it has the layers of a stage."""
        return self.first <= stage.first and (self.last is None or stage.last <= self.last)


class _Steps(NamedTuple):
    """The steps of a plan from some layer on, as they lie on a device."""

    loads: Sequence[StepLoad]
    slots: Sequence[int]
    """Bytes of each in a ring."""
    held: Sequence[int]
    """Bytes that are held of each."""


class StageTimes:
    """What the stages of one plan take on one device, by its profile. Not thread-safe: it
    remembers.

    ``Member.factor`` is not part of it, so that it stays true while runs move that.

    Args:
        manifest: of the pack.
        plan: whose layers are divided; its preload and threads do not count.
        member: the device.
        workload: what goes through the chain at a time.
        keeps: whether the stages keep the preload that the plan has, and its threads unless others
            are faster: those of the machine that it was made for.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        member: Member,
        workload: Workload,
        *,
        keeps: bool = False,
    ) -> None:
        self._manifest, self._member, self._keeps = manifest, member, keeps
        self._plan = replace(plan, workload=workload, predicted=None)
        self._layers = layers_of(plan)
        choices = (plan.threads if keeps else member.threads, *member.others)
        self._costs = min(map(self._costs_on, choices), key=self._worked_s)
        self._plan = replace(self._plan, threads=self._costs.threads)
        self._from: dict[int, _Steps] = {}
        self._parts: dict[tuple[int, int], Plan | None] = {}
        self._ends: dict[tuple[int, float], tuple[float, ...]] = {}

    def _costs_on(self, threads: LaneThreads) -> RunCosts:
        plan, profile = self._plan, self._member.profile
        return run_costs(self._manifest, profile, plan.workload, plan.width, threads=threads)

    def _worked_s(self, costs: RunCosts) -> float:
        """Seconds to decode and compute all layers, as if they were read long ago."""
        steps = self._plan.steps
        costs = replace(costs, tokenize_s=0.0, rows_s=0.0, embed_s=LATE_S)
        loads = loads_of(self._groups(steps), steps)
        return simulate_loads(costs, loads, read_ahead=min(len(steps), _MOST_AHEAD)).total_s

    def part(self, stage: Stage) -> Plan | None:
        """The part of the plan that the device would run; None where it has no room for it.

        All of it is read ahead where there is room, as the hidden states come late.
        """
        key = stage.first, stage.last
        if key not in self._parts:
            self._parts[key] = self._made(stage)
        return self._parts[key]

    def run(self, stage: Stage, part: Plan, arrival_s: float) -> Run:
        """The simulated run of a part.

        Args:
            arrival_s: when the hidden states are there; the device hears of the run at 0. Of the
                first stage nothing arrives: it embeds.
        """
        costs = self._stage_costs(stage, arrival_s)
        loads = loads_of(self._groups(part.steps), part.steps)
        return simulate_loads(costs, loads, read_ahead=part.read_ahead)

    def end_s(self, stage: Stage, part: Plan, arrival_s: float) -> float:
        """When a part is done."""
        return self.run(stage, part, arrival_s).total_s

    def read_bytes(self, part: Plan) -> int:
        """What a run of a part reads of groups."""
        return sum(item.read_bytes for item in loads_of(self._groups(part.steps), part.steps))

    def ends_s(self, first: int, arrival_s: float) -> tuple[float, ...]:
        """``end_s`` of every stage that begins with a layer.

        Args:
            first: the place of that layer among those of the plan.

        Returns:
            Of each place of a last layer, from ``first`` on; infinite where there is no room.
        """
        key = first, arrival_s
        if key not in self._ends:
            self._ends[key] = self._all_ends_s(first, arrival_s)
        return self._ends[key]

    def _all_ends_s(self, first: int, arrival_s: float) -> tuple[float, ...]:
        """One simulation gives all of them that read ahead as far: what is computed first does not
        depend on what comes after it.
        """
        layers, found = self._layers[first:], [math.inf] * (len(self._layers) - first)
        steps = self._steps_from(layers[0])
        counts = self._step_counts(layers)
        aheads = [
            self._read_ahead(layers[0], steps, count)
            if self._member.has(Stage(self._member.name, layers[0], last))
            else None
            for last, count in zip(layers, counts, strict=True)
        ]
        # Whoever reads all of its steps ahead never waits for room.
        alike = [
            None if ahead is None else max(ahead, counts[-1] - 1) if ahead >= count - 1 else ahead
            for ahead, count in zip(aheads, counts, strict=True)
        ]
        for ahead in dict.fromkeys(item for item in alike if item is not None):
            last = max(place for place, item in enumerate(alike) if item == ahead)
            stage = Stage(self._member.name, layers[0], layers[last])
            costs = self._stage_costs(stage, arrival_s)
            loads = steps.loads[: counts[last]]
            run = simulate_loads(costs, loads, read_ahead=min(ahead, _MOST_AHEAD))
            ends = self._layer_ends_s(run)
            for place, item in enumerate(alike):
                if item == ahead:
                    found[place] = (
                        run.total_s if place == last else ends[layers[place]] + costs.fixed_s
                    )
        return tuple(found)

    def _layer_ends_s(self, run: Run) -> dict[int, float]:
        """Of each layer of a run, when its last block was done."""
        last = {step.layer: connect_name(step.layer, step.kind) for step in self._plan.steps}
        layer_of = {name: layer for layer, name in last.items()}
        return {
            layer_of[step.name]: span.end_s
            for step, span in zip(run.steps, run.schedule.spans, strict=True)
            if step.name in layer_of
        }

    def _step_counts(self, layers: Sequence[int]) -> list[int]:
        """Of each layer, the steps from the first one's first to its own last."""
        last = {step.layer: place for place, step in enumerate(self._plan.steps)}
        begin = next(
            place for place, step in enumerate(self._plan.steps) if step.layer == layers[0]
        )
        return [last[layer] + 1 - begin for layer in layers]

    def _made(self, stage: Stage) -> Plan | None:
        if not self._member.has(stage):
            return None
        part, steps = part_of(self._plan, stage), self._steps_from(stage.first)
        ahead = self._read_ahead(stage.first, steps, len(part.steps))
        if ahead is None:
            return None
        held = steps.held[: len(part.steps)]
        placed = tuple(
            step._replace(preload_bytes=size) for step, size in zip(part.steps, held, strict=True)
        )
        return replace(part, steps=placed, read_ahead=ahead)

    def _read_ahead(self, first: int, steps: _Steps, count: int) -> int | None:
        """How many steps a stage of so many may read ahead; None where there is no room."""
        ahead = self._plan.read_ahead
        limited = self._keeps and self._plan.target.memory_bytes is not None
        if first != self._layers[0] and not limited:
            ahead = min(max(ahead, count - 1), _MOST_AHEAD)
        if self._member.room_bytes is None:
            return ahead
        sizes = steps.slots[:count]
        room = self._member.room_bytes - sum(steps.held[:count])
        if ring_bytes(sizes, ahead + 1) <= room:
            return ahead
        if ring_bytes(sizes, 2) > room:
            return None
        fits, most = 1, ahead
        while most - fits > 1:
            middle = (fits + most) // 2
            fits, most = (middle, most) if ring_bytes(sizes, middle + 1) <= room else (fits, middle)
        return fits

    def _stage_costs(self, stage: Stage, arrival_s: float) -> RunCosts:
        costs = replace(self._costs, tokenize_s=0.0)
        if stage.first != self._layers[0]:
            costs = replace(costs, rows_s=0.0, embed_s=arrival_s)
        if stage.last < self._layers[-1]:
            costs = replace(costs, head_s=0.0)
        return costs

    def _steps_from(self, layer: int) -> _Steps:
        """The steps of a layer and all behind it, as a stage has them that begins there."""
        if layer not in self._from:
            own = [step for step in self._plan.steps if step.layer >= layer]
            groups = self._groups(own)
            steps = own if self._keeps else self._placed(groups, own)
            self._from[layer] = _Steps(
                loads_of(groups, steps),
                _slot_sizes(groups, steps),
                [step.preload_bytes for step in steps],
            )
        return self._from[layer]

    def _groups(self, steps: Sequence[PlanStep]) -> list[SliceGroup]:
        return [self._manifest.group(step.layer, step.kind, step.group) for step in steps]

    def _placed(self, groups: Sequence[SliceGroup], steps: Sequence[PlanStep]) -> list[PlanStep]:
        """The steps with the device's preload given to the first bytes that they read."""
        budget, placed = self._member.preload_bytes, []
        for group, step in zip(groups, steps, strict=True):
            held = min(budget, total_bytes(group_ranges(group, step.counts))) if budget else 0
            budget -= held
            placed.append(step._replace(preload_bytes=held))
        return placed


def weights_bytes(manifest: Manifest, plan: Plan) -> int:
    """Bytes of weights that a plan, or a part of one, has in memory: what is held, and the ring."""
    groups = [manifest.group(step.layer, step.kind, step.group) for step in plan.steps]
    held = sum(step.preload_bytes for step in plan.steps)
    return held + ring_bytes(_slot_sizes(groups, plan.steps), plan.read_ahead + 1)


def _slot_sizes(groups: Sequence[SliceGroup], steps: Sequence[PlanStep]) -> list[int]:
    """Bytes of each step in a ring."""
    return [slot_size(group, step) for group, step in zip(groups, steps, strict=True)]
