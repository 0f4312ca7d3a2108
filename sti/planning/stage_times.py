"""How long a device takes for some layers of a plan, and when it would be done. Pure.

A device reads ahead from the moment that it hears of a run, while others compute the layers before
its own. So what its stage takes depends on when the hidden states arrive: it ends at
``stage_end_s(arrival_s)``. Storage that is slow is hidden behind the devices in front, which is
what a chain gains in latency. In: a plan, what a device is and has room for. Out: seconds, bytes.
The steps are those of ``cost_model.run_steps``, with the wait for hidden states in place of
tokenizer and embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.cost_model import RunCosts, run_costs
from sti.planning.memory import ring_bytes
from sti.planning.plan import Plan, PlanStep
from sti.planning.prediction import Run, loads_of, simulate_loads
from sti.planning.stages import Stage, layers_of, part_of
from sti.storage.byte_ranges import cover, total_bytes

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

    def has(self, stage: Stage) -> bool:
        """Whether it has the layers of a stage."""
        return self.first <= stage.first and (self.last is None or stage.last <= self.last)


class StageTimes:
    """What the stages of one plan take on one device. Not thread-safe: it remembers.

    Args:
        manifest: of the pack.
        plan: whose layers are divided; its preload and threads do not count.
        member: the device.
        workload: what goes through the chain at a time.
        keeps: whether the stages keep the preload and the threads that the plan has: those of the
            machine that it was made for.
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
        threads = plan.threads if keeps else member.threads
        self._plan = replace(plan, threads=threads, workload=workload, predicted=None)
        self._layers = layers_of(plan)
        self._costs = run_costs(manifest, member.profile, workload, plan.width, threads=threads)

    def part(self, stage: Stage) -> Plan | None:
        """The part of the plan that the device would run; None where it has no room for it.

        All of it is read ahead where there is room, as the hidden states come late.
        """
        if not self._member.has(stage):
            return None
        part = part_of(self._plan, stage)
        groups = self._groups(part)
        steps = part.steps if self._keeps else self._placed(groups, part.steps)
        held = sum(step.preload_bytes for step in steps)
        sizes = _slot_sizes(groups, steps)
        room = self._member.room_bytes
        ahead = part.read_ahead
        limited = self._keeps and self._plan.target.memory_bytes is not None
        if stage.first != self._layers[0] and not limited:
            ahead = min(max(ahead, len(steps) - 1), _MOST_AHEAD)
        while room is not None and held + ring_bytes(sizes, ahead + 1) > room:
            if ahead == 1:
                return None
            ahead -= 1
        return replace(part, steps=steps, read_ahead=ahead)

    def run(self, stage: Stage, part: Plan, arrival_s: float) -> Run:
        """The simulated run of a part.

        Args:
            arrival_s: when the hidden states are there; the device hears of the run at 0. Of the
                first stage nothing arrives: it embeds.
        """
        costs = self._stage_costs(stage, arrival_s)
        loads = loads_of(self._groups(part), part.steps)
        return simulate_loads(costs, loads, read_ahead=part.read_ahead)

    def end_s(self, stage: Stage, part: Plan, arrival_s: float) -> float:
        """When a part is done, with what runs have shown of the device."""
        alone_s = self.run(stage, part, arrival_s).total_s
        waits_s = arrival_s if stage.first != self._layers[0] else 0.0
        # What runs have shown is of the device's own work, not of the wait before it.
        return waits_s + (alone_s - waits_s) * self._member.factor

    def _stage_costs(self, stage: Stage, arrival_s: float) -> RunCosts:
        costs = replace(self._costs, tokenize_s=0.0)
        if stage.first != self._layers[0]:
            costs = replace(costs, rows_s=0.0, embed_s=arrival_s)
        if stage.last < self._layers[-1]:
            costs = replace(costs, head_s=0.0)
        return costs

    def _groups(self, part: Plan) -> list[SliceGroup]:
        return [self._manifest.group(step.layer, step.kind, step.group) for step in part.steps]

    def _placed(
        self, groups: Sequence[SliceGroup], steps: Sequence[PlanStep]
    ) -> tuple[PlanStep, ...]:
        """The steps with the device's preload given to the first bytes that they read."""
        budget, placed = self._member.preload_bytes, []
        for group, step in zip(groups, steps, strict=True):
            held = min(budget, total_bytes(group_ranges(group, step.counts))) if budget else 0
            budget -= held
            placed.append(step._replace(preload_bytes=held))
        return tuple(placed)


def weights_bytes(manifest: Manifest, plan: Plan) -> int:
    """Bytes of weights that a plan, or a part of one, has in memory: what is held, and the ring."""
    groups = [manifest.group(step.layer, step.kind, step.group) for step in plan.steps]
    held = sum(step.preload_bytes for step in plan.steps)
    return held + ring_bytes(_slot_sizes(groups, plan.steps), plan.read_ahead + 1)


def _slot_sizes(groups: Sequence[SliceGroup], steps: Sequence[PlanStep]) -> list[int]:
    """Bytes of each step in a ring, in whole sectors: groups start at one."""
    return [
        sum(cover(item).length for item in group_ranges(group, step.counts))
        for group, step in zip(groups, steps, strict=True)
    ]
