"""Importance from gradients: what it says is what lowering shards one by one does, nearly."""

from __future__ import annotations

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
from tests.checkpoints import Shape, write_checkpoint
from tests.training import examples, opened, sentences

LADDER = (2, 4, 8)
TEXTS = sentences(40)


def measured_gains(
    network: ElasticNetwork, checkpoint: Path, *, regression: bool
) -> dict[str, NDArray[np.float64]]:
    """Every shard lowered alone to every level, absence left out: ``[planes - 1, slices]``."""
    found = examples(checkpoint, TEXTS)
    sizes = network.sizes
    top = len(LADDER) - 1
    levels = torch.full((sizes.layers, 2, sizes.slices), top)
    every = tuple(range(sizes.layers))
    base = answers(network, found, Pass(every, sizes.slices, levels)).astype(np.float64)
    gains = {}
    for layer in every:
        for block, kind in enumerate(("attention", "ffn")):
            losses = np.zeros((top, sizes.slices))
            for level in range(top):
                for number in range(sizes.slices):
                    lowered = levels.clone()
                    lowered[layer, block, number] = level
                    now = answers(network, found, Pass(every, sizes.slices, lowered))
                    losses[level, number] = loss_of(base, now.astype(np.float64), regression)
            gains[f"{layer}.{kind}"] = gains_of(losses)
    return gains


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
    for plane, least in ((1, 0.8), (2, 0.95)):  # to second order: the smaller, the better
        estimate = np.concatenate([found[name][plane] for name in found])
        truth = np.concatenate([wanted[name][plane - 1] for name in found])
        assert spearman(estimate, truth) > least
        assert 0.7 < estimate.sum() / truth.sum() < 1.4


def test_a_slice_that_adds_nothing_is_worth_nothing(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, task="mean_classification")
    with opened(checkpoint) as network:
        with torch.no_grad():
            for name in ("o", "q", "k", "v"):
                network.layer(0)[name][2] = 0.0
        network.use_code(LADDER)
        line = Progress(1.0, shown=False)
        found = fisher_gains(network, examples(checkpoint, TEXTS), line, regression=False, seed=0)
    worth = found["0.attention"].sum(axis=0)
    assert worth[2] < 1e-3 * worth[[0, 1, 3]].min()
