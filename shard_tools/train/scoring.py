"""How well a network answers: its logits and its metric on examples, for any pass.

In: a network, examples, a pass. Out: accuracy, or Spearman's rank correlation of predicted and true
values, as `sti-shard evaluate` measures them. Knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shard_tools.measuring.metrics import spearman
from shard_tools.train.data import Examples, batches
from shard_tools.train.network import ElasticNetwork, Pass
from shard_tools.train.sampling import Sampler, milestones

_BATCH = 128


@dataclass(frozen=True, slots=True)
class DevScore:
    """The metric of one submodel at one fidelity on dev rows; ``bits`` 0: float weights."""

    depth: int
    width: int
    bits: int
    value: float


@torch.no_grad()
def answers(network: ElasticNetwork, examples: Examples, run: Pass) -> NDArray[np.float32]:
    """Logits ``[n, outputs]`` in the order of the examples; a new array."""
    found = np.empty((len(examples), network.sizes.outputs), dtype=np.float32)
    for batch in batches(examples, _BATCH):
        found[list(batch.rows)] = network(batch.tokens, run)[0].numpy()
    return found


def metric(network: ElasticNetwork, examples: Examples, run: Pass, *, regression: bool) -> float:
    """Accuracy, or the rank correlation of predicted and true values."""
    found, targets = answers(network, examples, run), examples.targets
    if regression:
        return spearman(found[:, 0].astype(np.float64), targets.astype(np.float64))
    return float((found.argmax(1) == targets).mean())


def milestone_scores(
    network: ElasticNetwork, sampler: Sampler, examples: Examples, *, regression: bool
) -> list[DevScore]:
    """The metric of the submodels that progress is judged by, with the weights as they are.

    Grids and codebook, where the network has a code, are fitted to the weights first.
    """
    if network.code is not None:
        network.code.refit()
    sizes, ladder = network.sizes, sampler.ladder
    found = []
    for depth, width, bits in dict.fromkeys(milestones(sizes.layers, sizes.slices, ladder or (0,))):
        run = sampler.uniform(depth, width, bits)
        value = metric(network, examples, run, regression=regression)
        found.append(DevScore(depth, width, bits, round(value, 5)))
    return found
