"""The importance of each shard's planes, estimated from gradients instead of measured one by one.

In: a network with its code, and rows. Out: for every block, slice and plane the expected loss that
reading the plane saves. The loss is the divergence of answers from the full model's; around the
full model it is half the quadratic form of the Fisher matrix (Amari, 1998), here for the direction
in which lowering one shard moves its weights. So a shard is one number a direction and the matrix
is never made: with logits z, and p the softmax, the divergence is dz' (diag p - p p') dz / 2, of
which the few largest eigenvectors hold nearly all, and each needs one backward pass a row. For a
regression it is the squared change over the variance of the answers.

A second-order estimate: exact for small changes, and blind to what rounding of activations adds.
``sti-shard rank`` compares it with what it measures. Knows nothing of files or packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from shard_tools.progress import Progress
from shard_tools.ranking.gains import gains_of
from shard_tools.train.data import Examples, batches
from shard_tools.train.network import OUTPUTS_LAST, ElasticNetwork, Pass

Tensor = torch.Tensor
ROWS = 256
"""Rows the estimate is taken over; more change the ranks by less than measuring does."""
_DIRECTIONS = 3
"""Eigenvectors of the divergence a row."""
_LEAST_VARIANCE = 1e-12
_PARTS = {"attention": ("q", "k", "v", "o"), "ffn": ("up", "down")}


def fisher_gains(
    network: ElasticNetwork, examples: Examples, line: Progress, *, regression: bool, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Estimate the gains of all planes.

    Args:
        network: with a code attached (``use_code``).
        examples: rows to take ``ROWS`` of, by chance; those held out of training say most.
        line: is stepped by 1 a row.

    Returns:
        By ``layer.kind`` of a block float64 ``[planes, slices]``, the first plane counted from
        absence.
    """
    assert network.code is not None, "without a code there are no planes"
    ladder, slices = network.code.ladder, network.sizes.slices
    moves = _moves(network)
    sums = {name: torch.zeros(slices, len(ladder), dtype=torch.float64) for name in _blocks(moves)}
    rows = min(ROWS, len(examples))
    drawn = batches(examples, 1, shuffle=Random(f"fisher {seed}"))
    values = []
    for batch in islice(drawn, rows):
        logits, _ = network(batch.tokens, _at(network, len(ladder) - 1))
        values.append(float(logits.detach()[0, 0]))
        matrices = network.matrices()
        answers = list(_directions(logits[0], regression=regression))
        for number, answer in enumerate(answers):
            found = torch.autograd.grad(
                answer, list(matrices.values()), retain_graph=number < len(answers) - 1
            )
            _add(sums, moves, dict(zip(matrices, found, strict=True)))
        line.step(1.0, "estimating importance")
    unit = max(float(np.var(values)), _LEAST_VARIANCE) if regression else 2.0
    scale = 1.0 / (rows * unit)
    return {name: gains_of((total * scale).numpy().T) for name, total in sums.items()}


def _blocks(moves: Mapping[str, Tensor]) -> list[str]:
    layers = sorted({int(name.split(".")[0]) for name in moves})
    return [f"{layer}.{kind}" for layer in layers for kind in _PARTS]


def _at(network: ElasticNetwork, level: int) -> Pass:
    """The full model at one fidelity."""
    sizes = network.sizes
    levels = torch.full((sizes.layers, 2, sizes.slices), level)
    return Pass(tuple(range(sizes.layers)), sizes.slices, levels)


@torch.no_grad()
def _moves(network: ElasticNetwork) -> dict[str, Tensor]:
    """How the weights of every slice move from the top of the ladder to each lower level.

    ``[slices, levels, weights]``; the first level is absence. As many floats a weight as the ladder
    has fidelities. What a slice adds is linear in its output matrix: without that one it is absent.
    """
    code = network.code
    assert code is not None
    found = {}
    for name, matrix in network.matrices().items():
        at = [
            code.weights(name, torch.full((len(matrix),), level), torch.float32).flatten(1)
            for level in range(len(code.ladder))
        ]
        top = at.pop()
        gone = -top if name.split(".")[1] in OUTPUTS_LAST else torch.zeros_like(top)
        found[name] = torch.stack([gone, *(lower - top for lower in at)], dim=1)
    return found


def _directions(logits: Tensor, *, regression: bool) -> Iterator[Tensor]:
    """Scalars whose squared changes add up to twice the divergence of one row's answer."""
    if regression:
        yield logits[0]
        return
    chances = logits.detach().double().softmax(-1)
    values, vectors = torch.linalg.eigh(chances.diag() - chances.outer(chances))
    for place in range(1, min(_DIRECTIONS, len(chances) - 1) + 1):
        scaled = vectors[:, -place] * values[-place].clamp(min=0.0).sqrt()
        yield (scaled.float() * logits).sum()


def _add(
    sums: Mapping[str, Tensor], moves: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> None:
    """Add the squared change of one answer, for every shard at every level."""
    for block, total in sums.items():
        layer, kind = block.split(".")
        change = torch.zeros_like(total)
        for part in _PARTS[kind]:
            name = f"{layer}.{part}"
            change += torch.bmm(moves[name], gradients[name].flatten(1)[:, :, None])[:, :, 0]
        total += change.square()
