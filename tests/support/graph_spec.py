"""What the graphs of a pack compute, in NumPy: as integers, and as the floats they represent.

In: the feeds of a graph. Out: its output. ``exact=True`` follows the integer path to the letter
(scales, rounding, zero points); ``exact=False`` is the block on dequantized weights without any
quantization of activations, which is what the graph approximates. Knows nothing of ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]
F = np.float32
_erf = np.vectorize(math.erf, otypes=[float])


def signed(weights: Array) -> Array:
    """Integer values of int8 weights, or of uint8 ones with zero point 128."""
    zero = 128 if weights.dtype == np.uint8 else 0
    return weights.astype(np.int64) - zero


def quantize(
    x: Array, largest: Array, top: int, zero_point: int, least: float
) -> tuple[Array, Array]:
    """``x [T, n]`` as integers around zero, and the scales ``[T, 1]``."""
    scale = np.maximum(largest.astype(F) * F(1.0 / top), F(least))[:, None]
    levels = np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point
    return levels.astype(np.int64), scale


def quantize_signed(x: Array) -> tuple[Array, Array]:
    return quantize(x, np.abs(x).max(axis=1), 127, 128, 0.0)


def quantize_activation(x: Array, activation: str) -> tuple[Array, Array]:
    if activation == "relu":
        return quantize(x, x.max(axis=1), 255, 0, 0.0)
    least = 0.17 if activation == "gelu" else 0.1701
    return quantize(x, x.max(axis=1), 239, 16, least / 16)


def inner(feeds: Feeds, name: str, x: Array, xq: tuple[Array, Array] | None) -> Array:
    """The block's input ``x [T, d]`` times the slices of ``name`` -> ``[m, T, n]``."""
    weights, scale = signed(feeds[name]), feeds[f"{name}_scale"]
    if xq is None:
        y = np.einsum("td,mdn->mtn", x.astype(float), weights * scale.astype(float))
    else:
        sums = np.einsum("td,mdn->mtn", xq[0], weights)
        y = (sums.astype(F) * scale) * xq[1]
    if f"{name}_bias" in feeds:
        y = y + feeds[f"{name}_bias"]
    if f"{name}_idx" in feeds:
        y = y + (x[:, feeds[f"{name}_idx"]] @ feeds[f"{name}_w"]).astype(y.dtype)
    return np.asarray(y)


def outer(feeds: Feeds, name: str, x: Array, xq: tuple[Array, Array] | None) -> Array:
    """Concatenated channels ``x [T, m * n]`` times all slices of ``name`` -> ``[T, d]``."""
    weights = signed(feeds[name]).reshape(x.shape[1], -1)
    scale = feeds[f"{name}_scale"]
    if xq is None:
        y = x.astype(float) @ (weights * scale.astype(float))
    else:
        y = ((xq[0] @ weights).astype(F) * scale) * xq[1]
    if f"{name}_idx" in feeds:
        y = y + (x[:, feeds[f"{name}_idx"]] @ feeds[f"{name}_w"]).astype(y.dtype)
    return np.asarray(y)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def attention(feeds: Feeds, *, exact: bool) -> Array:
    batch, tokens, hidden = feeds["h"].shape
    x = feeds["h"].reshape(-1, hidden)
    xq = quantize_signed(x) if exact else None
    q, k, v = (inner(feeds, name, x, xq) for name in "qkv")
    slices, _, head = q.shape
    q, k, v = (part.reshape(slices, batch, tokens, head) for part in (q, k, v))
    scores = np.einsum("mbsh,mbth->mbst", q.astype(float), k.astype(float))
    context = softmax(scores + feeds.get("mask", np.zeros((1, 1, 1)))) @ v.astype(float)
    context = context.reshape(slices, batch * tokens, head).transpose(1, 0, 2)
    context = context.reshape(batch * tokens, slices * head)
    if exact:
        context = context.astype(F)
    cq = quantize_signed(context) if exact else None
    return outer(feeds, "o", context, cq).reshape(batch, tokens, hidden)


def activate(x: Array, activation: str) -> Array:
    x = x.astype(float)
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu_new":
        inside = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inside)))
    return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2))))


def ffn(feeds: Feeds, *, activation: str, exact: bool) -> Array:
    batch, tokens, hidden = feeds["h"].shape
    x = feeds["h"].reshape(-1, hidden)
    u = activate(inner(feeds, "up", x, quantize_signed(x) if exact else None), activation)
    u = u.transpose(1, 0, 2).reshape(batch * tokens, -1)
    if exact:
        u = u.astype(F)
    uq = quantize_activation(u, activation) if exact else None
    return outer(feeds, "down", u, uq).reshape(batch, tokens, hidden)


def layer_norm(x: Array, feeds: Feeds, epsilon: float) -> Array:
    x = x.astype(float)
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return np.asarray(centred / deviation * feeds["gamma"] + feeds["beta"])


def connect(feeds: Feeds, *, epsilon: float) -> Array:
    return layer_norm(feeds["partial"] + feeds["bias"] + feeds["residual"], feeds, epsilon)


def embed(feeds: Feeds, *, epsilon: float) -> Array:
    tokens = feeds["words"].shape[1]
    total = feeds["words"] + feeds["positions"][:tokens] + feeds["types"][feeds["type_ids"]]
    return layer_norm(total, feeds, epsilon)


def mean_pool(feeds: Feeds) -> Array:
    weights = feeds["tokens"].astype(float)[:, :, None]
    return np.asarray((feeds["h"] * weights).sum(axis=1) / weights.sum(axis=1))
