"""The order of width: which heads and neurons matter most.

Once, between plain fine-tuning and elastic training: heads and FFN neurons are sorted by
importance, so that every width is a prefix (DynaBERT, Hou et al., 2020, section 2.1). Importance is
first-order: how much the loss would change if a head's or a neuron's contribution were switched off
(Michel et al., 2019). In: a fine-tuned network and training batches. Out: the network with its
parameters permuted, which computes the same function.

Depth needs no order: every depth keeps the last layer, whose output the head reads, the first, and
layers spread evenly between them (``spread_layers``). Other choices were tried
(docs/experiments.md): the layers that the fine-tuned model misses most are the last, and make
worse submodels; the first layers make good ones, but the state behind the last of them would have
to be an answer and what the next layer reads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from shard_tools.train.data import Batch
from shard_tools.train.network import ElasticNetwork

Tensor = torch.Tensor
Loss = Callable[[Tensor, Batch], Tensor]


def sort_slices(network: ElasticNetwork, batches: Sequence[Batch], loss: Loss) -> None:
    """Permute heads and neurons of every layer, most important first."""
    sizes = network.sizes
    gates = {}
    for number in range(sizes.layers):
        gates[f"{number}.attention"] = torch.ones(sizes.heads, requires_grad=True)
        gates[f"{number}.ffn"] = torch.ones(sizes.inner, requires_grad=True)
    found = {name: torch.zeros_like(gate) for name, gate in gates.items()}
    for batch in batches:
        logits, _ = network(batch.tokens, network.whole(), gates)
        gradients = torch.autograd.grad(loss(logits, batch), list(gates.values()))
        for name, gradient in zip(gates, gradients, strict=True):
            found[name] += gradient.abs()
    with torch.no_grad():
        for number in range(sizes.layers):
            layer = network.layer(number)
            each = sizes.heads // sizes.slices  # a slice of several heads moves as one
            heads = found[f"{number}.attention"].reshape(sizes.slices, each).sum(1)
            order = heads.argsort(descending=True, stable=True)
            for name in ("q", "k", "v", "o", "q_bias", "k_bias", "v_bias"):
                layer[name].copy_(layer[name][order])
            order = found[f"{number}.ffn"].argsort(descending=True, stable=True)
            for name in ("up", "down", "up_bias"):
                flat = layer[name].reshape(sizes.inner, -1)
                layer[name].copy_(flat[order].reshape(layer[name].shape))


def spread_layers(layers: int) -> dict[int, tuple[int, ...]]:
    """The layers that each depth keeps, of a model with so many."""
    found: dict[int, tuple[int, ...]] = {1: (layers - 1,)}
    for depth in range(2, layers + 1):
        found[depth] = tuple(i * (layers - 1) // (depth - 1) for i in range(depth))
    return found
