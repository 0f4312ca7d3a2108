"""Stages of a chain: which layers of a plan run on which device. Pure.

A chain runs one plan over several devices: each has some consecutive layers, a stage, and gets the
hidden states that the stage before computed. In: a plan, the stages. Out: the part of the plan that
is a device's. Answers are those of the plan on one device, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sti.planning.plan import Plan


class Stage(NamedTuple):
    """Some consecutive layers, on one device."""

    device: str
    first: int
    """The first layer."""
    last: int
    """The last layer, inclusive."""

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


def are_whole(stages: Sequence[Stage], depth: int) -> bool:
    """Whether stages have the layers 0 to ``depth - 1``, one after another, each device once."""
    layers = [layer for stage in stages for layer in stage.layers]
    devices = {stage.device for stage in stages}
    return layers == list(range(depth)) and len(devices) == len(stages)
