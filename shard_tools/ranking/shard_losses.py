"""The loss of each shard: how far answers move when only that shard's fidelity is lowered.

In: a pack in memory, calibration texts, a judge. Out: for every block, slice and fidelity below the
top the loss of each text, paired (the same texts, the same base). The model runs from the block in
question on; hidden states in front of it are kept. Every measurement is a step of a journal. Knows
nothing of how the losses are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shard_tools.measuring.forward import Batches, BlockPrecision, Forward, Precision, States
from shard_tools.measuring.judge import LOSS, Judge
from shard_tools.progress import Progress
from shard_tools.ranking.journal import Journal
from sti.arrays import Float32Array

ABSENT = 0
"""The fidelity of a shard that is left out."""

_DISTURBANCE = 1e-3
"""Noise in hidden states: about a tenth of a step of the grid that activations are rounded to."""
_DISTURBANCES = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything a measurement needs."""

    forward: Forward
    batches: Batches
    judge: Judge
    base: Precision
    """The full model at the top fidelity."""
    journal: Journal
    line: Progress

    def measure(
        self, name: str, precision: Precision, what: str, *, start: States | None = None
    ) -> Float32Array:
        """``Judge.judge`` of the answers at a precision; the journal's step ``name``."""
        fresh = name not in self.journal
        found = self.journal.step(
            name,
            lambda: self.judge.judge(self.forward.logits(self.batches, precision, start=start)),
        )
        self.line.step(work(precision) if fresh else 0.0, what)
        return found


def work(precision: Precision) -> float:
    """The cost of measuring a precision, in slices to compute; for the progress line."""
    return float(sum(len(item.bits) for item in precision))


def names(base: Precision, levels: Sequence[int], *, whole: bool) -> Iterator[tuple[str, float]]:
    """The steps of ``shard_losses`` and ``rounding_losses``, with the work of each."""
    for number, item in enumerate(base):
        rest = work(base[number:])
        for part in _parts(item, whole=whole):
            for bits in levels:
                yield _name(item, part, bits), rest
        for name in _rounding_names(item):
            yield name, work(base[number + 1 :])


def shard_losses(bench: Bench, levels: Sequence[int], *, whole: bool = False) -> Float32Array:
    """Losses of each text with one shard lowered.

    Args:
        levels: the fidelities to lower shards to; ``ABSENT`` leaves them out.
        whole: lower all slices of a block together instead of one by one.

    Returns:
        float32 ``[3, levels, blocks, slices, n]`` (slices 1 where ``whole``): the first extent as
        ``Judge.judge``.
    """
    base, found = bench.base, []
    states: States | None = None
    for number, item in enumerate(base):
        rows = []
        for part in _parts(item, whole=whole):
            lowered = [
                (replace(item, bits=_lowered(item.bits, part, bits)), *base[number + 1 :])
                for bits in levels
            ]
            rows.append(
                [
                    bench.measure(
                        _name(item, part, bits), precision, f"layer {item.layer} {item.kind}",
                        start=states,
                    )
                    for bits, precision in zip(levels, lowered, strict=True)
                ]
            )  # fmt: skip
        found.append(rows)
        states = bench.forward.states(bench.batches, (item,), start=states)
    return np.asarray(found, dtype=np.float32).transpose(3, 2, 0, 1, 4)


def rounding_losses(bench: Bench, *, seed: int) -> NDArray[np.float64]:
    """The loss that any change behind each block brings about, however small: ``[blocks]``.

    Activations are rounded to 8 bits in front of every product. A change too small to matter still
    makes some of them round the other way, which changes others, until the rounding of the layers
    to come has nothing to do with that of the base any more. This part of a loss is the same
    whichever shard is lowered, and is there once however many are: it says nothing about shards.
    """
    found = []
    states: States | None = None
    for number, item in enumerate(bench.base):
        states = bench.forward.states(bench.batches, (item,), start=states)
        rng = np.random.default_rng((seed, number))
        rows = [
            bench.measure(
                name, bench.base[number + 1 :], "rounding", start=_disturbed(states, rng)
            )[LOSS]
            for name in _rounding_names(item)
        ]
        found.append(float(np.mean(rows, dtype=np.float64)))
    return np.array(found)


def _disturbed(states: States, rng: np.random.Generator) -> States:
    """The states with a little noise, relative to the spread of each token's numbers."""
    found = []
    for hidden in states:
        noise = rng.standard_normal(hidden.shape, dtype=np.float32)
        noise *= np.float32(_DISTURBANCE) * hidden.std(axis=-1, keepdims=True)
        found.append(hidden + noise)
    return tuple(found)


def _rounding_names(item: BlockPrecision) -> list[str]:
    return [f"rounding/{item.layer}/{item.kind}/{repeat}" for repeat in range(_DISTURBANCES)]


def mean_losses(measured: Float32Array) -> NDArray[np.float64]:
    """``[levels, blocks, slices]``: means over the texts."""
    return np.asarray(measured[LOSS].mean(axis=-1, dtype=np.float64))


def _parts(item: BlockPrecision, *, whole: bool) -> list[tuple[int, ...]]:
    """Which slices are lowered together."""
    every = tuple(range(len(item.bits)))
    return [every] if whole else [(number,) for number in every]


def _lowered(bits: Sequence[int], part: Sequence[int], to: int) -> tuple[int, ...]:
    return tuple(to if number in part else kept for number, kept in enumerate(bits))


def _name(item: BlockPrecision, part: Sequence[int], bits: int) -> str:
    which = str(part[0]) if len(part) == 1 else "all"
    return f"shard/{item.layer}/{item.kind}/{which}/{bits}"
