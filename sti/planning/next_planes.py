"""Why each block of a plan has its bits: what one plane more would buy, one less would lose. Pure.

In: a plan that fits its manifest, and the conditions it was predicted and decided with. Out: for
each block its bits, both changes and the reason why it has no more. A plane more is the lowest one
that some slice in use lacks, read for all of them; a plane less is without the highest one that any
slice in use has. Every other block stays as it is, and the preload is placed anew. Knows nothing of
how plans are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Literal, NamedTuple

from sti.model.fidelity import Counts, fidelities, groups_of, loss_of, uniform_counts
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.conditions import Conditions
from sti.planning.expected_loss import loss_of_steps, submodel_of
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import Plan, PlanStep
from sti.planning.preload_placement import place, place_spread
from sti.planning.variants import variants_of

Reason = Literal["highest", "asked", "late", "unnoticed", "not considered"]
"""Why a block has no plane more:

- ``highest``: the pack has none for it;
- ``asked``: its bits were asked for, by a plan or a fidelity that was given;
- ``late``: the run would miss the latency;
- ``unnoticed``: what it buys, alone, is not noticed (``Quality.indistinct_from``);
- ``not considered``: it is in time and noticed, but no plan that was compared has just this plane
  more.
"""


class PlaneChange(NamedTuple):
    """What differs where a block has a plane more, or one less: new minus old."""

    bits: int
    """The plane, by the fidelity that it raises a shard to."""
    loss: float
    """Expected loss, in the pack's unit."""
    loss_share: float
    """The same as a share of what the submodel loses with every shard at the lowest fidelity."""
    metric: float | None
    """The metric to expect, from 0 to 1; None where the pack states no quality."""
    bytes_read: int
    """Bytes that a run reads, without what is preloaded."""
    total_s: float
    """Typical seconds of a run."""


class BlockBits(NamedTuple):
    """The bits of one block, and what others would mean."""

    layer: int
    kind: str
    bits: float
    """On average over the slices in use."""
    least_bits: int
    most_bits: int
    reason: Reason
    """Why it has no more."""
    late_s: float | None
    """Seconds by which the run would miss the latency with a plane more, as promised; None where
    that is not the reason."""
    more: PlaneChange | None
    """None: the pack has no plane more."""
    less: PlaneChange | None
    """None: there is none less, either."""


def explain_blocks(
    manifest: Manifest, plan: Plan, shown: Conditions, decided: Conditions, *, asked: bool
) -> list[BlockBits]:
    """The bits of each block that a plan runs, in the order of execution.

    Args:
        plan: one that fits the manifest (``sti.planning.check.check_plan``).
        shown: what changes are predicted with.
        decided: what the plan was found with: says what would be late.
        asked: its fidelities were given, so that none was decided.

    Raises:
        PlanError: the plan's submodel is not in the pack.
        ProfileError: a profile lacks a graph or a fidelity of the pack, or the plan's threads.
    """
    trial = _Trial(manifest, plan, shown, decided)
    return [_explained(trial, numbers, asked=asked) for numbers in _blocks(trial.groups)]


def _blocks(groups: Sequence[SliceGroup]) -> Iterator[list[int]]:
    """For each block the numbers of its groups, counted in the submodel."""

    def block(number: int) -> tuple[int, str]:
        return groups[number].layer, groups[number].kind

    for _, numbers in groupby(range(len(groups)), block):
        yield list(numbers)


def _explained(trial: _Trial, numbers: Sequence[int], *, asked: bool) -> BlockBits:
    used = [bits for number in numbers for bits in trial.used(number)]
    least, most, ladder = min(used), max(used), trial.manifest.ladder
    more = less = late_s = None
    reason: Reason = "highest"
    if least < ladder[-1]:
        bits = ladder[ladder.index(least) + 1]
        steps = trial.with_counts({number: trial.raised(number, bits) for number in numbers})
        more = trial.change(bits, steps)
        reason = "asked"
        if not asked:
            reason, late_s = trial.reason(steps)
    if most > ladder[0]:
        steps = trial.with_counts({number: trial.lowered(number, most) for number in numbers})
        less = trial.change(most, steps)
    first = trial.groups[numbers[0]]
    mean = sum(used) / len(used)
    return BlockBits(first.layer, first.kind, mean, least, most, reason, late_s, more, less)


class _Trial:
    """A plan, and what it would be with other counts."""

    def __init__(
        self, manifest: Manifest, plan: Plan, shown: Conditions, decided: Conditions
    ) -> None:
        self.manifest, self._plan = manifest, plan
        self._shown, self._decided = shown, decided
        self._submodel = submodel_of(manifest, plan)
        self.groups = groups_of(manifest, self._submodel)
        self._is_spread = False
        self._is_spread = plan.steps != self.with_counts({})
        self._loss = self._loss_of(plan.steps)
        run = shown.run(manifest, plan)
        self._read_bytes, self._total_s = run.read_bytes, shown.typical_s(run)
        lowest = [uniform_counts(group, plan.width, manifest.ladder[0]) for group in self.groups]
        self._most_loss = loss_of(self._submodel, self.groups, lowest)

    def used(self, number: int) -> tuple[int, ...]:
        """Bits of the slices in use of a group."""
        group = self.groups[number]
        return fidelities(group, self._plan.steps[number].counts)[: group.used(self._plan.width)]

    def raised(self, number: int, bits: int) -> Counts:
        """The counts of a group with all slices in use at ``bits`` or above."""
        least = uniform_counts(self.groups[number], self._plan.width, bits)
        return tuple(map(max, least, self._plan.steps[number].counts))

    def lowered(self, number: int, bits: int) -> Counts:
        """The counts of a group without the planes from ``bits`` on."""
        planes = zip(self.groups[number].planes, self._plan.steps[number].counts, strict=True)
        return tuple(count if plane.bits < bits else 0 for plane, count in planes)

    def with_counts(self, changed: Mapping[int, Counts]) -> tuple[PlanStep, ...]:
        """The plan's steps with other counts for some groups, and the preload placed anew."""
        steps, budget = self._plan.steps, self._plan.target.preload_bytes
        counts = [changed.get(number, step.counts) for number, step in enumerate(steps)]
        variants = variants_of(self.manifest, self._shown.profile)
        placing = place_spread if self._is_spread else place
        placed = placing(self.groups, counts, budget, variants)
        return tuple(
            new if number in changed else new._replace(variant=old.variant)
            for number, (new, old) in enumerate(zip(placed, steps, strict=True))
        )

    def change(self, bits: int, steps: tuple[PlanStep, ...]) -> PlaneChange:
        """What differs with these steps."""
        run = self._shown.run(self.manifest, replace(self._plan, steps=steps))
        loss, quality = self._loss_of(steps), self.manifest.quality
        metric = None
        if quality is not None:
            metric = quality.estimate(loss).value - quality.estimate(self._loss).value
        return PlaneChange(
            bits=bits,
            loss=loss - self._loss,
            loss_share=(loss - self._loss) / self._most_loss if self._most_loss else 0.0,
            metric=metric,
            bytes_read=run.read_bytes - self._read_bytes,
            total_s=self._shown.typical_s(run) - self._total_s,
        )

    def reason(self, steps: tuple[PlanStep, ...]) -> tuple[Reason, float | None]:
        """Why a plan with these steps was not taken, and by how much it would be late."""
        latency_s = self._decided.terms.latency_s
        if latency_s is not None:
            kinds = measured_choices(self._decided.profile, self._plan.target.threads)
            plan = replace(self._plan, steps=steps)
            runs = (self._decided.run(self.manifest, plan, threads) for threads in kinds)
            late_s = min(map(self._decided.promised_s, runs)) - latency_s
            if late_s > 0.0:
                return "late", late_s
        loss, quality = self._loss_of(steps), self.manifest.quality
        alike = loss if quality is None else quality.indistinct_from(loss)
        return "unnoticed" if self._loss <= alike else "not considered", None

    def _loss_of(self, steps: tuple[PlanStep, ...]) -> float:
        return loss_of_steps(self.manifest, self._submodel, self.groups, steps)
