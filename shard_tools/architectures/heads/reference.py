"""Heads in float32 NumPy: the reference that packs are compared with.

In: hidden states of texts end to end, and what was pooled of them. Out: new arrays, a row a text.
Knows nothing of tensor names, files or families.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shard_tools.architectures.encoder import reference
from shard_tools.graphs.embed_head import NORM_EPSILON, HeadActivation, Pooling
from sti.arrays import Float32Array

_LEAST_LENGTH = np.float32(1e-12)


def pool(pooling: Pooling, hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
    """Hidden states ``[T, d]`` of texts of these lengths, pooled one way (``HeadSpec``)."""
    counts = np.array(lengths)
    starts = np.cumsum((0, *lengths[:-1]))
    if pooling == "last":
        return np.asarray(hidden[starts + counts - 1])
    if pooling == "max":
        return np.asarray(np.maximum.reduceat(hidden, starts, axis=0))
    if pooling in ("mean", "sqrt_len"):
        divisor = counts if pooling == "mean" else np.sqrt(counts)
        means: Float32Array = np.add.reduceat(hidden, starts, axis=0)
        means /= divisor.astype(np.float32)[:, None]
        return means
    if pooling == "weighted_mean":
        places = np.concatenate([np.arange(1, count + 1, dtype=np.float32) for count in lengths])
        weighted = np.add.reduceat(hidden * places[:, None], starts, axis=0)
        weighted /= np.add.reduceat(places, starts)[:, None]
        return np.asarray(weighted)
    return np.asarray(hidden[starts])


def activated(x: Float32Array, activation: HeadActivation) -> Float32Array:
    """What follows a dense layer."""
    if activation == "none":
        return x
    return np.tanh(x) if activation == "tanh" else reference.activate(x, activation)


def normalized(x: Float32Array) -> Float32Array:
    """Each row scaled to length 1."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(lengths, _LEAST_LENGTH))


def layer_norm(x: Float32Array, gamma: Float32Array, beta: Float32Array) -> Float32Array:
    """Each row normalized, as a module behind the pooling does it."""
    return reference.layer_norm(x, gamma, beta, NORM_EPSILON)
