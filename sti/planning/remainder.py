"""What is left to do of a predicted run from each of its steps on. Pure.

In: a plan with its prediction, and the pack's manifest. Out: for each step the seconds that reading
it takes up to each plane, and those that are needed at least, from its bytes being there to the
answer. A run that is under way judges by them which planes still come in time
(``sti.planning.deadlines``). Needs no device profile: the prediction holds what there is to know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sti.arrays import Float64Array
from sti.device.lanes import COMPUTE, STORAGE, same_work
from sti.model.fidelity import groups_of, missing_of
from sti.model.group_layout import group_ranges, prefixes
from sti.model.manifest import Manifest, SliceGroup
from sti.model.quality import reach
from sti.planning.chains import chains
from sti.planning.expected_loss import submodel_of
from sti.planning.plan import Plan, PlanStep, Prediction

_ANY_DECODING = 0.5
"""Share of a step's decoding that takes as long at any fidelity; the rest grows with its bits."""


_ALIKE = 0.1
"""Share of a predicted total by which another may differ for the same tables."""


class Reads(NamedTuple):
    """Reading one step."""

    least: int
    """Planes that are always there: the lowest, and those that are preloaded whole."""
    most: int
    """Planes that the plan reads."""
    seconds: tuple[float, ...]
    """To read the step up to each number of planes, 0 among them; of preloaded bytes, none."""


@dataclass(frozen=True)
class Remainder:
    """Tables of one plan, each made when it is first asked for. The plan has a prediction."""

    plan: Plan
    manifest: Manifest

    def is_of(self, plan: Plan) -> bool:
        """Whether a plan has the same steps, lanes and target, and nearly the same total."""
        if plan.predicted is None or plan.target != self.plan.target:
            return False
        known_s, total_s = self._predicted.total_s, plan.predicted.total_s
        if abs(total_s - known_s) > _ALIKE * known_s:
            return False
        return plan.steps is self.plan.steps and plan.predicted.lanes is self._predicted.lanes

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Names of the steps, to where they stand in the plan."""
        return {step.name: number for number, step in enumerate(self.plan.steps)}

    @cached_property
    def planes(self) -> tuple[int, ...]:
        """How many planes the plan reads of each step."""
        return tuple(sum(count > 0 for count in step.counts) for step in self.plan.steps)

    @property
    def serial(self) -> bool:
        """Whether one thread reads, decodes and computes."""
        return not self.plan.threads.storage

    @cached_property
    def usual_left_s(self) -> tuple[float, ...]:
        """Seconds that are usually left when each step is begun to be read.

        By the prediction; 0 for steps that it does not read.
        """
        spans = self._predicted.lanes.get(STORAGE, ())
        starts_s = {span.name: span.start_s for span in spans}
        # Of the lanes' own times: the total may be corrected as a whole by what runs took.
        ends_s = [span.end_s for found in self._predicted.lanes.values() for span in found]
        total_s = max(ends_s, default=self._predicted.total_s)
        return tuple(total_s - starts_s.get(step.name, total_s) for step in self.plan.steps)

    @cached_property
    def computing_s(self) -> dict[str, float]:
        """Names of steps to the seconds that one share of each is computed."""
        found: dict[str, list[float]] = {}
        for lane, spans in self._predicted.lanes.items():
            if same_work(lane, COMPUTE):
                for span in spans:
                    found.setdefault(span.name, []).append(span.duration_s)
        return {name: sum(each) / len(each) for name, each in found.items() if name in self.numbers}

    @cached_property
    def reads(self) -> tuple[Reads, ...]:
        """Of each step."""
        spans = self._predicted.lanes.get(STORAGE, ())
        seconds = {span.name: span.duration_s for span in spans}
        return tuple(
            _reads(step, group, seconds.get(step.name, 0.0))
            for step, group in zip(self.plan.steps, self._groups, strict=True)
        )

    @cached_property
    def most_read_s(self) -> Float64Array:
        """``[steps + 1]``: seconds to read all of the first steps."""
        return np.cumsum([0.0, *(item.seconds[item.most] for item in self.reads)])

    @cached_property
    def least_read_s(self) -> Float64Array:
        """``[steps + 1]``: seconds to read as little as possible of the first steps."""
        return np.cumsum([0.0, *(item.seconds[item.least] for item in self.reads)])

    @cached_property
    def most(self) -> tuple[Float64Array, Float64Array]:
        """As ``Chains``, ``[steps]`` and ``[steps + 1]``, where every plane is decoded."""
        return self._chains({})

    @cached_property
    def least(self) -> tuple[Float64Array, Float64Array]:
        """As ``most``, where every step is decoded as far as it is always there."""
        shares = {}
        for step, group, item in zip(self.plan.steps, self._groups, self.reads, strict=True):
            bits = group.planes[item.least - 1].bits / group.planes[item.most - 1].bits
            shares[step.name] = _ANY_DECODING + (1.0 - _ANY_DECODING) * bits
        return self._chains(shares)

    def missing(self, number: int, planes: int) -> float:
        """What a step's shards lose by having at most so many planes, as sum of gains."""
        step, group = self.plan.steps[number], self._groups[number]
        submodel = submodel_of(self.manifest, self.plan)
        return missing_of(submodel, [group], [_lowered(step, planes)]) - missing_of(
            submodel, [group], [step.counts]
        )

    def spare(self, floor: float) -> float:
        """What the plan may lose and still reach a share of the full model's metric.

        As sum of gains; infinite for a pack that does not know its metric.
        """
        quality, planned = self.manifest.quality, self._predicted.loss
        if quality is None:
            return math.inf
        least = floor * quality.estimate(0.0).value
        loss = reach(quality.losses, [-value for value in quality.values], -least)
        submodel = submodel_of(self.manifest, self.plan)
        return max(0.0, submodel.missing_at(loss) - max(0.0, submodel.missing_at(planned)))

    @property
    def _predicted(self) -> Prediction:
        assert self.plan.predicted is not None, "a plan without a prediction"
        return self.plan.predicted

    @cached_property
    def _groups(self) -> list[SliceGroup]:
        return groups_of(self.manifest, submodel_of(self.manifest, self.plan))

    def _chains(self, shares: Mapping[str, float]) -> tuple[Float64Array, Float64Array]:
        found = chains(self.plan, self._predicted, shares)
        return np.array(found.decode_s), np.array(found.compute_s)


def _reads(step: PlanStep, group: SliceGroup, whole_s: float) -> Reads:
    """Reading a step of which all takes ``whole_s`` seconds to read."""
    most = sum(count > 0 for count in step.counts)
    ranges = group_ranges(group, step.counts)
    _, *planes = prefixes(group, step.counts)
    sizes = [0]  # up to each plane; what lies between two that are read together is read as well
    for plane in planes[:most]:
        sizes.append(sum(max(0, min(item.end, plane.end) - item.offset) for item in ranges))
    left = [max(0, size - step.preload_bytes) for size in sizes]
    held = sum(not size for size in left[1:])
    whole = max(1, left[-1])
    return Reads(max(1, held), most, tuple(whole_s * size / whole for size in left))


def _lowered(step: PlanStep, planes: int) -> tuple[int, ...]:
    """The step's counts with the first ``planes`` planes alone."""
    return tuple(count if place < planes else 0 for place, count in enumerate(step.counts))
