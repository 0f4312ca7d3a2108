"""Which submodels and fidelities a step trains.

In: the model's sizes, the layers of each depth, the ladder, a step's number and the seed. Out: the
passes of that step: the full model, the smallest one, the one with half of both, and random ones
(after the sandwich rule of Yu and Huang, 2019), with fidelities that favour the low end, where
training has most to mend.
The same step of the same seed gives the same passes, whatever ran before. Knows nothing of torch's
random state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch

from shard_tools.checkpoint.elastic import middle, smallest
from shard_tools.train.network import Pass

_FULL_SIZE_SHARE = 0.5
_MIXED_SHARE = 0.25
_LOWEST_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws passes. ``ladder`` empty: float weights, no fidelities in the loop."""

    depths: Mapping[int, tuple[int, ...]]
    slices: int
    ladder: tuple[int, ...]
    seed: int
    passes: int
    """Random passes a step, besides the three that every step has."""

    def full(self) -> Pass:
        """The full model at the top fidelity."""
        return self._uniform(max(self.depths), self.slices, len(self.ladder) - 1)

    def others(self, step: int) -> list[tuple[str, Pass]]:
        """The smallest submodel, the middle one, and random ones; named."""
        random = Random(f"passes {self.seed} {step}")
        sizes = len(self.depths), self.slices
        found = [
            ("smallest", self._at_some_fidelity(random, *smallest(*sizes))),
            ("middle", self._at_some_fidelity(random, *middle(*sizes))),
        ]
        for _ in range(self.passes):
            if self.ladder and random.random() < _FULL_SIZE_SHARE:
                depth, width = max(self.depths), self.slices
            else:
                depth, width = _largish(random, len(self.depths)), _largish(random, self.slices)
            found.append(("random", self._at_some_fidelity(random, depth, width)))
        return found

    def uniform(self, depth: int, width: int, bits: int) -> Pass:
        """A submodel with all shards at one fidelity (float weights where there is no ladder)."""
        return self._uniform(depth, width, self.ladder.index(bits) if self.ladder else 0)

    def _at_some_fidelity(self, random: Random, depth: int, width: int) -> Pass:
        if not self.ladder:
            return self._uniform(depth, width, 0)
        count = len(self.ladder)
        if random.random() < _MIXED_SHARE:
            levels = [
                [
                    [min(random.randrange(count), random.randrange(count)) for _ in range(width)]
                    for _ in range(2)
                ]
                for _ in range(depth)
            ]
            return Pass(self.depths[depth], width, torch.tensor(levels))
        lowest = random.random() < _LOWEST_SHARE
        return self._uniform(depth, width, 0 if lowest else random.randrange(count))

    def _uniform(self, depth: int, width: int, level: int) -> Pass:
        levels = torch.full((depth, 2, width), level) if self.ladder else None
        return Pass(self.depths[depth], width, levels)


def _largish(random: Random, most: int) -> int:
    """One to ``most``, large numbers more often: small submodels learn along with large ones."""
    return max(random.randint(1, most), random.randint(1, most))


def milestones(layers: int, slices: int, ladder: Sequence[int]) -> list[tuple[int, int, int]]:
    """Depth, width and bits of the submodels that progress is judged by."""
    top, low = ladder[-1], ladder[0]
    between = ladder[len(ladder) // 2]
    half = middle(layers, slices)
    small = smallest(layers, slices)
    return [
        (layers, slices, top),
        (layers, slices, low),
        (*half, between),
        (*half, low),
        (*small, low),
    ]
