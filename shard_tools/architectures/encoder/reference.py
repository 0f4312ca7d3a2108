"""The encoders' arithmetic in float32 NumPy: the reference that importance is measured with.

In: float tensors in the orientation of the pack's graphs. Out: hidden states ``[T, d]`` of
sentences concatenated end to end. Written for clarity and BLAS, not for latency; the run time
computes with the pack's graphs instead. Knows nothing of tensor names, files or codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sti.arrays import Float32Array
from sti.backend.token_distances import token_distances

_GELU_NEW = np.float32(0.7978845608)  # sqrt(2 / pi)


def layer_norm(
    x: Float32Array, gamma: Float32Array, beta: Float32Array, epsilon: float
) -> Float32Array:
    """Normalize each row of ``x [T, d]``; returns a new array."""
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(epsilon))
    centred /= spread
    centred *= gamma
    centred += beta
    return np.asarray(centred, dtype=np.float32)


def erf(x: Float32Array) -> Float32Array:
    """The error function to 2e-7 (Abramowitz and Stegun, 7.1.26)."""
    size = np.abs(x)
    t = 1.0 / (1.0 + np.float32(0.3275911) * size)
    poly = np.full_like(x, 1.061405429)
    for term in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly *= t
        poly += np.float32(term)
    poly *= t
    np.square(size, out=size)
    np.negative(size, out=size)
    np.exp(size, out=size)
    poly *= size
    found: Float32Array = np.copysign(1.0 - poly, x)
    return found


def activate(x: Float32Array, kind: str) -> Float32Array:
    """``gelu``, ``gelu_new`` (tanh), ``relu`` or ``silu``."""
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "silu":
        # The same as x / (1 + exp(-x)), which overflows.
        return np.asarray(x * (0.5 + 0.5 * np.tanh(0.5 * x)), dtype=np.float32)
    if kind == "gelu_new":
        inner: Float32Array = np.tanh(_GELU_NEW * (x + np.float32(0.044715) * x * x * x))
    else:
        inner = erf(x * np.float32(0.7071067811865476))
    inner += 1.0
    inner *= x
    inner *= 0.5
    return inner


def attention(
    x: Float32Array,
    lengths: Sequence[int],
    *,
    query: Float32Array,
    key: Float32Array,
    value: Float32Array,
    output: Float32Array,
    query_bias: Float32Array,
    value_bias: Float32Array,
    position_bias: Float32Array | None = None,
) -> Float32Array:
    """What each head adds to the block's sum.

    Args:
        x: ``[T, d]``.
        lengths: tokens of each sentence, summing to T.
        query, key, value: ``[heads, d, head]``, the query already scaled.
        output: ``[heads, head, d]``.
        query_bias, value_bias: ``[heads, 1, head]``; a bias of the keys cancels in the softmax.
        position_bias: ``[heads, 1, 2 r + 1]``, added to scores by distance; None for none.

    Returns:
        ``[heads, T, d]``, without bias and residual.
    """
    queries, keys, values = (_per_part(x, weights) for weights in (query, key, value))
    queries += query_bias
    values += value_bias
    mixed = np.empty_like(values)
    start = 0
    for length in lengths:
        span = slice(start, start + length)
        scores = queries[:, span] @ keys[:, span].transpose(0, 2, 1)
        if position_bias is not None:
            reach = position_bias.shape[-1] // 2
            scores += position_bias[:, 0, token_distances(length, reach)]
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        np.matmul(scores, values[:, span], out=mixed[:, span])
        start += length
    return mixed @ output


def feed_forward(
    x: Float32Array, *, up: Float32Array, up_bias: Float32Array, down: Float32Array, kind: str
) -> Float32Array:
    """What each group of neurons adds: ``up`` ``[n, d, size]``, ``down`` ``[n, size, d]``."""
    return activate(_per_part(x, up) + up_bias, kind) @ down


def _per_part(x: Float32Array, weights: Float32Array) -> Float32Array:
    """``[T, d]`` by ``[n, d, size]`` -> ``[n, T, size]``, as one large product, faster in BLAS."""
    parts, hidden, size = weights.shape
    joined = x @ weights.transpose(1, 0, 2).reshape(hidden, parts * size)
    return joined.reshape(-1, parts, size).transpose(1, 0, 2)
