"""What the graphs of a pack compute, in NumPy: as integers, and as the floats they represent.

In: the feeds of a graph, ``h`` always among them. Out: its first output. ``exact=True`` follows the
integer path to the letter (scales, rounding, zero points); ``exact=False`` is the block on
dequantized weights without any quantization of activations, which is what the graph approximates.
``unit`` is 2 where weights are halves. Knows nothing of ONNX.
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
    """``x [S, B, n]`` as integers around zero, and the scales ``[S, B, 1]``."""
    scale = np.maximum(largest.astype(F) * F(1.0 / top), F(least))
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.clip(np.rint(np.nan_to_num(x / scale)) + zero_point, 0, 255) - zero_point
    return levels.astype(np.int64), scale


def quantize_signed(x: Array) -> tuple[Array, Array]:
    return quantize(x, np.abs(x).max(axis=-1, keepdims=True), 127, 128, 0.0)


def quantize_activation(x: Array, activation: str) -> tuple[Array, Array]:
    largest = x.max(axis=-1, keepdims=True)
    if activation == "relu":
        return quantize(x, largest, 255, 0, 0.0)
    if activation == "silu":
        return quantize(x, largest, 229, 26, 0.2785 / 26)
    least = 0.17 if activation == "gelu" else 0.1701
    return quantize(x, largest, 239, 16, least / 16)


def quantized_input(h: Array) -> Feeds:
    """What ``embed`` and ``connect`` give besides ``h [S, B, d]``."""
    levels, scale = quantize_signed(h)
    return {"xq": (levels + 128).astype(np.uint8), "xs": scale.astype(F)}


def own_tokens(feeds: Feeds, first: int = 0, last: int | None = None) -> Feeds:
    """The hidden states of the tokens whose attention a call computes: all by default."""
    own = {f"own_{name}": feeds[name][first:last] for name in ("h", "xq", "xs")}
    if "distances" in feeds:
        own["distances"] = feeds["distances"][first:last]
    return own


def product(feeds: Feeds, name: str, x: Array, xq: tuple[Array, Array] | None, unit: int) -> Array:
    """``x [S, B, n]`` times a matrix ``[n, m]`` of so many units: 2 for halves of weights."""
    weights, scale = signed(feeds[name]), feeds[f"{name}_scale"]
    if xq is None:
        return np.asarray(x.astype(float) @ (unit * weights * scale.astype(float)))
    return np.asarray(((xq[0] @ weights).astype(F) * scale) * (xq[1] * F(unit)))


def inner(feeds: Feeds, name: str, *, exact: bool, unit: int, own: str = "") -> Array:
    """The block's input times the matrix of all slices, bias and side input added.

    ``own`` is ``"own_"`` where only the call's own tokens are multiplied.
    """
    given = (feeds[f"{own}xq"].astype(np.int64) - 128, feeds[f"{own}xs"]) if exact else None
    y = product(feeds, name, feeds[f"{own}h"], given, unit)
    if f"{name}_bias" in feeds:
        y = y + feeds[f"{name}_bias"]
    if f"{name}_idx" in feeds:
        slices = feeds[f"{name}_w"]  # [m, k, n]
        joined = slices.transpose(1, 0, 2).reshape(slices.shape[1], len(slices) * slices.shape[2])
        y = y + (feeds[f"{own}h"][..., feeds[f"{name}_idx"]] @ joined).astype(y.dtype)
    return np.asarray(y)


def outer(feeds: Feeds, name: str, x: Array, xq: tuple[Array, Array] | None, unit: int) -> Array:
    """The channels of all slices ``x [S, B, n]`` times the matrix that joins them."""
    y = product(feeds, name, x, xq, unit)
    if f"{name}_idx" in feeds:
        y = y + (x[..., feeds[f"{name}_idx"]] @ feeds[f"{name}_w"]).astype(y.dtype)
    return np.asarray(y)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def attention(feeds: Feeds, *, head: int, exact: bool, unit: int = 1) -> Array:
    tokens, batch, _ = feeds["own_h"].shape
    q, k, v = (
        inner(feeds, name, exact=exact, unit=unit, own=own)
        .reshape(-1, batch, feeds["o"].shape[0] // head, head)
        .transpose(1, 2, 0, 3)
        .astype(float)
        for name, own in (("q", "own_"), ("k", ""), ("v", ""))
    )  # [B, m, R or S, head]
    scores = q @ k.swapaxes(2, 3) + feeds.get("mask", np.zeros((1, 1, 1, 1)))
    if "position_bias" in feeds:
        bias = feeds["position_bias"].reshape(scores.shape[1], -1)
        scores = scores + bias[:, feeds["distances"]]
    context = (softmax(scores) @ v).transpose(2, 0, 1, 3).reshape(tokens, batch, -1)
    if exact:
        context = context.astype(F)
    return outer(feeds, "o", context, quantize_signed(context) if exact else None, unit)


def activate(x: Array, activation: str) -> Array:
    x = x.astype(float)
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu_new":
        inside = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inside)))
    if activation == "silu":
        return np.asarray(x / (1 + np.exp(-x)))
    return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2))))


def ffn(feeds: Feeds, *, activation: str, exact: bool, unit: int = 1) -> Array:
    u = activate(inner(feeds, "up", exact=exact, unit=unit), activation)
    if exact:
        u = u.astype(F)
    return outer(feeds, "down", u, quantize_activation(u, activation) if exact else None, unit)


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
    return layer_norm(total, feeds, epsilon).swapaxes(0, 1)


def mean_pool(feeds: Feeds) -> Array:
    weights = feeds["tokens"].astype(float).T[:, :, None]
    return np.asarray((feeds["h"] * weights).sum(axis=0) / weights.sum(axis=0))
