"""BERT's arithmetic in float32 NumPy: the reference that importance is measured with.

In: float tensors in the orientation of the pack's graphs. Out: hidden states ``[T, d]`` of
sentences laid end to end. Written for clarity and BLAS, not for latency; the run time computes
with the pack's graphs instead. Knows no names, files or codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shard_tools.model import Floats

_GELU_NEW = np.float32(0.7978845608)  # sqrt(2 / pi)


def layer_norm(x: Floats, gamma: Floats, beta: Floats, epsilon: float) -> Floats:
    """Normalize each row."""
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(epsilon))
    centred /= spread
    centred *= gamma
    centred += beta
    return centred


def erf(x: Floats) -> Floats:
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
    return np.copysign(1.0 - poly, x)


def activate(x: Floats, kind: str) -> Floats:
    """``gelu``, ``gelu_new`` (tanh) or ``relu``."""
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "gelu_new":
        return 0.5 * x * (1.0 + np.tanh(_GELU_NEW * (x + np.float32(0.044715) * x * x * x)))
    return 0.5 * x * (1.0 + erf(x * np.float32(0.7071067811865476)))


def attention(
    x: Floats,
    lengths: Sequence[int],
    *,
    query: Floats,
    key: Floats,
    value: Floats,
    output: Floats,
    query_bias: Floats,
    value_bias: Floats,
) -> Floats:
    """Partial sum of some heads.

    Args:
        x: ``[T, d]``.
        lengths: tokens of each sentence, summing to T.
        query, key, value: ``[heads, d, head]``, the query scaled already.
        output: ``[heads, head, d]``.
        query_bias, value_bias: ``[heads, 1, head]``; a bias of the keys cancels in the softmax.

    Returns:
        ``[T, d]``, without bias and residual.
    """
    heads, hidden, size = query.shape
    queries, keys, values = (
        (x @ w.transpose(1, 0, 2).reshape(hidden, heads * size)).reshape(-1, heads, size)
        for w in (query, key, value)
    )
    queries = queries + query_bias[:, 0]
    mixed = np.empty_like(values)
    start = 0
    for length in lengths:
        span = slice(start, start + length)
        scores = queries[span].transpose(1, 0, 2) @ keys[span].transpose(1, 2, 0)
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        mixed[span] = (scores @ values[span].transpose(1, 0, 2)).transpose(1, 0, 2)
        start += length
    mixed += value_bias[:, 0]
    summed: Floats = mixed.reshape(-1, heads * size) @ output.reshape(heads * size, hidden)
    return summed


def feed_forward(x: Floats, *, up: Floats, up_bias: Floats, down: Floats, kind: str) -> Floats:
    """Partial sum of some groups of neurons: ``up`` ``[n, d, size]``, ``down`` ``[n, size, d]``."""
    groups, hidden, size = up.shape
    inner = x @ up.transpose(1, 0, 2).reshape(hidden, groups * size)
    inner += up_bias.reshape(groups * size)
    summed: Floats = activate(inner, kind) @ down.reshape(groups * size, hidden)
    return summed
