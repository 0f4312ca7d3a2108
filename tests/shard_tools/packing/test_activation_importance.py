"""Importance: gains predict what happens to the head's input when shards lose planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shard_tools.architectures.base import Model, TokenBatch
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.packing.activation_importance import Meter, scaled_gains
from shard_tools.quantization.blocks import QuantizedBlock, quantize_block
from sti.arrays import Float32Array
from tests.support.checkpoints import Shape, write_checkpoint

SHAPE = Shape(layers=3, hidden=64, heads=4, inner=128)
COARSE = {2: 24, 4: 6, 8: 1}
"""Fidelity to the step its values are rounded to: a code book without a code."""


def values() -> dict[int, Float32Array]:
    ints = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    return {bits: (np.rint(ints / step) * step).astype(np.float32) for bits, step in COARSE.items()}


@dataclass
class Case:
    """A model whose blocks are on their grids, and sentences to run through it."""

    model: Model
    blocks: list[QuantizedBlock]
    residents: dict[str, Float32Array]
    batch: TokenBatch

    def readout(self, fidelities: Sequence[Sequence[int]]) -> Float32Array:
        """What the head reads when slice ``s`` of block ``b`` has ``fidelities[b][s]`` bits."""
        hidden = self.model.embed(self.batch, self.residents)
        for block, bits in zip(self.blocks, fidelities, strict=True):
            parts = []
            for index, bit in enumerate(bits):
                found = self.model.contributions(
                    block.layout.name,
                    hidden,
                    self.batch.lengths,
                    block.operands(values()[bit]),
                    block.vectors,
                )
                parts.append(found[index])
            hidden = self.model.connect(hidden + np.sum(parts, axis=0), block.vectors)
        return self.model.readout(hidden, self.batch.lengths)

    def loss(self, fidelities: Sequence[Sequence[int]]) -> float:
        """Relative squared error of what the head reads."""
        exact = self.readout([[8] * 4] * len(self.blocks))
        found = self.readout(fidelities)
        return float(np.square(found - exact).sum() / np.square(exact).sum())

    def gains(self) -> np.ndarray:
        """``[blocks, planes, slices]``."""
        meter = Meter(self.model, self.batch, self.residents, values())
        taken = [meter.measure(block) for block in self.blocks]
        shares = meter.arriving()
        return np.array([scaled_gains(t, s) for t, s in zip(taken, shares, strict=True)])


@pytest.fixture(params=["embedding", "classification", "tagging"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    write_checkpoint(tmp_path, task=request.param, shape=SHAPE)
    rng = np.random.default_rng(1)
    lengths = (9, 4, 12, 7)
    total = sum(lengths)
    with Checkpoint(tmp_path) as checkpoint:
        model = open_model(checkpoint)
        blocks = [
            quantize_block(layer, kind, model.block(layer, kind.name), grid_sigmas=8.0)
            for layer in range(model.layers)
            for kind in model.kinds
        ]
        batch = TokenBatch(
            rng.integers(0, model.vocabulary, total),
            np.zeros(total, np.int64),
            np.concatenate([np.arange(length) for length in lengths]),
            lengths,
        )
        yield Case(model, blocks, model.residents(SHAPE.positions), batch)


def test_gains_predict_the_loss_of_plans_nobody_measured(case: Case) -> None:
    gains = case.gains()
    rng = np.random.default_rng(2)
    steps = list(COARSE)
    predicted, measured = [], []
    for _ in range(12):
        levels = rng.integers(0, 3, (len(case.blocks), 4)).clip(0, rng.integers(1, 3))
        fidelities = [[steps[level] for level in row] for row in levels]
        lost = [
            gains[block, levels[block, index] + 1 :, index].sum()
            for block in range(len(case.blocks))
            for index in range(4)
        ]
        predicted.append(sum(lost))
        measured.append(case.loss(fidelities))
    ratio = np.log(np.array(measured) / predicted)
    assert np.abs(ratio).max() < np.log(2)
    assert np.corrcoef(np.log(measured), np.log(predicted))[0, 1] > 0.8


def test_one_block_lowered_costs_what_its_gains_say(case: Case) -> None:
    gains = case.gains()
    for block in range(len(case.blocks)):
        fidelities = [[4 if index == block else 8] * 4 for index in range(len(case.blocks))]
        assert gains[block, 2:].sum() == pytest.approx(case.loss(fidelities), rel=0.02)


def test_no_gain_is_negative_and_slices_differ(case: Case) -> None:
    gains = case.gains()
    assert gains.shape == (6, 3, 4)
    assert (gains >= 0).all()
    assert (gains[:, 1].max(axis=1) > gains[:, 1].min(axis=1)).all()


def test_a_ladder_of_one_step_ranks_by_absence(case: Case) -> None:
    meter = Meter(case.model, case.batch, case.residents, {8: values()[8]})
    taken = [meter.measure(block) for block in case.blocks]
    assert all(rows.shape == (1, 4) and (rows > 0).all() for rows in taken)
    assert meter.arriving() == [1.0] * 6
