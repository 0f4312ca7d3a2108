"""Stages of a chain: which layers of a plan run on which device. Pure.

A chain runs one plan over several devices: each has some consecutive layers, a stage, and gets the
hidden states that the stage before computed. In: a plan, the stages. Out: the part of the plan that
is a device's. Answers are those of the plan on one device, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sti.planning.plan import LOCAL, Plan

CHAIN = "chain"
"""Strategy: consecutive layers on several devices."""
STRATEGIES = (LOCAL, CHAIN)


class Stage(NamedTuple):
    """Some consecutive layers, on one device."""

    device: str
    first: int
    """The first layer."""
    last: int
    """The last layer, inclusive."""

    @property
    def words(self) -> str:
        """For people: ``layer 3``, ``layers 0-2``."""
        if self.first == self.last:
            return f"layer {self.first}"
        return f"layers {self.first}-{self.last}"

    @property
    def layers(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)


def part_of(plan: Plan, stage: Stage) -> Plan:
    """The part of a plan that is a stage's, which nothing is predicted of.

    It has the steps of the stage's layers, of which each says where it runs.
    """
    steps = tuple(
        step._replace(device=stage.device) for step in plan.steps if step.layer in stage.layers
    )
    return replace(plan, steps=steps, predicted=None)


def layers_of(plan: Plan) -> tuple[int, ...]:
    """The layers that a plan runs, in order."""
    return tuple(dict.fromkeys(step.layer for step in plan.steps))


def are_whole(stages: Sequence[Stage], layers: Sequence[int]) -> bool:
    """Whether stages have all of these layers, one after another, and each device is there once."""
    each = [[layer for layer in layers if layer in stage.layers] for stage in stages]
    found = [layer for inside in each for layer in inside]
    devices = {stage.device for stage in stages}
    return found == list(layers) and all(each) and len(devices) == len(stages)
