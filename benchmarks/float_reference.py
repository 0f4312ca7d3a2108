"""The float reference of a checkpoint: its hidden states behind the last block, in NumPy.

In: a model as its architecture reads it, token ids. Out: hidden states. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shard_tools.architectures.base import Model, TokenBatch
from sti.arrays import Float32Array


def reference_states(model: Model, rows: Sequence[Sequence[int]]) -> Float32Array:
    """Hidden states of all texts, end to end, new float32 ``[T, hidden]``.

    Args:
        model: its checkpoint is open.
        rows: the token ids of each text, special tokens included.
    """
    lengths = tuple(map(len, rows))
    ids = np.array([number for row in rows for number in row], dtype=np.int64)
    places = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
    batch = TokenBatch(ids, np.zeros_like(ids), places, lengths)
    hidden = model.embed(batch, model.residents(max(lengths)))
    for layer in range(model.layers):
        for kind in model.kinds:
            block = model.block(layer, kind.name)
            operands = {p.name: p.split(block.matrices[p.name]) for p in kind.products}
            parts = model.contributions(kind.name, hidden, lengths, operands, block.vectors)
            hidden = model.connect(hidden + parts.sum(axis=0), block.vectors)
    return hidden
