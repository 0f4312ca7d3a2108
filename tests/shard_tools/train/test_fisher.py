"""Importance from gradients: what it says is what lowering shards one by one does, nearly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray

from shard_tools.measuring.metrics import spearman
from shard_tools.progress import Progress
from shard_tools.ranking.gains import gains_of
from shard_tools.train.fisher import fisher_gains
from shard_tools.train.network import ElasticNetwork, Pass
from shard_tools.train.scoring import answers
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.training import examples, opened, sentences

LADDER = (2, 4, 8)
SLICES = 4
TEXTS = sentences(40)


def measured_gains(
    network: ElasticNetwork, checkpoint: Path, *, regression: bool
) -> dict[str, NDArray[np.float64]]:
    """Every shard left out and lowered alone to every level: ``[planes, slices]``."""
    found = examples(checkpoint, TEXTS)
    sizes = network.sizes
    top = len(LADDER) - 1
    levels = torch.full((sizes.layers, 2, sizes.slices), top)
    every = tuple(range(sizes.layers))
    base = answers(network, found, Pass(every, sizes.slices, levels)).astype(np.float64)
    gains = {}
    for layer in every:
        for block, kind in enumerate(("attention", "ffn")):
            losses = np.zeros((top + 1, sizes.slices))
            for level, number in product(range(-1, top), range(sizes.slices)):
                lowered = levels.clone()
                lowered[layer, block, number] = max(level, 0)
                with absent(network, layer, kind, number if level < 0 else None):
                    now = answers(network, found, Pass(every, sizes.slices, lowered))
                losses[level + 1, number] = loss_of(base, now.astype(np.float64), regression)
            gains[f"{layer}.{kind}"] = gains_of(losses)
    return gains


@contextmanager
def absent(network: ElasticNetwork, layer: int, kind: str, number: int | None) -> Iterator[None]:
    """Without one slice of a block: its output matrix is zero, however it is coded."""
    name = f"{layer}.{'o' if kind == 'attention' else 'down'}"
    assert network.code is not None
    grid, matrix = network.code.grids[name], network.matrices()[name]
    step, weights = grid.step, matrix.detach().clone()
    if number is not None:
        grid.step = step.expand(SLICES, *step.shape[-1:]).clone()[:, None]
        grid.step[number] = 0.0
        with torch.no_grad():  # weights beyond the grid are exact
            matrix[number] = 0.0
    yield
    grid.step = step
    with torch.no_grad():
        matrix.copy_(weights)


def loss_of(base: NDArray[np.float64], now: NDArray[np.float64], regression: bool) -> float:
    if regression:
        return float(np.square(now[:, 0] - base[:, 0]).mean() / base[:, 0].var())
    first, second = (torch.from_numpy(logits).log_softmax(-1).numpy() for logits in (base, now))
    return float((np.exp(first) * (first - second)).sum(1).mean())


@pytest.mark.parametrize("regression", [False, True])
def test_the_estimate_is_what_lowering_one_shard_costs(tmp_path: Path, regression: bool) -> None:
    shape = Shape(hidden=64, heads=4, inner=128)
    checkpoint = write_checkpoint(tmp_path, task="mean_classification", shape=shape)
    with opened(checkpoint) as network:
        with torch.no_grad():
            network.classifier.mul_(20.0)  # answers that differ from text to text
        network.use_code(LADDER)
        line = Progress(1.0, shown=False)
        found = fisher_gains(
            network, examples(checkpoint, TEXTS), line, regression=regression, seed=0
        )
        wanted = measured_gains(network, checkpoint, regression=regression)
    assert found.keys() == wanted.keys()
    assert all(found[name].shape == (len(LADDER), 4) for name in found)
    # What a shard without planes from one on loses. To second order: the smaller, the better.
    for plane, least in ((0, 0.7), (1, 0.8), (2, 0.95)):
        estimate = np.concatenate([found[name][plane:].sum(axis=0) for name in found])
        truth = np.concatenate([wanted[name][plane:].sum(axis=0) for name in found])
        assert spearman(estimate, truth) > least
        if plane:
            assert 0.7 < estimate.sum() / truth.sum() < 1.4


def test_a_slice_that_adds_nothing_is_worth_nothing(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, task="mean_classification")
    with opened(checkpoint) as network:
        with torch.no_grad():
            network.layer(0)["o"][2] = 0.0
        network.use_code(LADDER)
        line = Progress(1.0, shown=False)
        found = fisher_gains(network, examples(checkpoint, TEXTS), line, regression=False, seed=0)
    worth = found["0.attention"].sum(axis=0)
    assert worth[2] < 0.05 * worth[[0, 1, 3]].min()
