"""The ONNX graphs of a pack between its two ends: attention, ffn and connect.

In: the fixed sizes of a model (hidden width, slice widths, activation). Out: serialized ONNX
models, the same bytes for the same arguments. Batch ``B``, tokens ``S``, slices in use ``m`` and
side channels ``k`` stay symbolic, and every weight is an input: one session serves all layers at
all widths, and decoded bytes are used as operands where they are. Knows nothing of checkpoints,
packs or fidelities.

Blocks return the *partial* sum over the slices given, without bias and residual, which ``connect``
adds; so a block can be split between any slices. The tokens of a batch are flattened for the
products, which read each weight once, and separated only around attention.

Weights beyond the int8 grid are exact through side inputs: ``<product>_idx [k]`` picks input
channels, whose unquantized values times ``<product>_w`` are added to the integer product.

A slice of one block is a shard of the STI paper: one head with its q, k, v rows and o columns, or
1/M of the FFN; the number formats are this project's own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np

from shard_tools.graphs.writer import (
    FLOAT,
    FUSED,
    INT64,
    WEIGHT_TYPES,
    GraphWriter,
    Quantized,
    Weights,
    product,
    quantize_above,
    quantize_signed,
)
from sti.errors import InputError

Activation = Literal["gelu", "gelu_new", "relu"]
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_new", "relu")
ATTENTION_SIDES = frozenset({"q", "k", "v", "o"})
FFN_SIDES = frozenset({"up", "down"})

_LEAST: dict[Activation, float] = {"gelu": -0.17, "gelu_new": -0.1701, "relu": 0.0}
"""A lower bound of each activation function."""
_ZERO_POINTS: dict[Activation, int] = {"gelu": 16, "gelu_new": 16, "relu": 0}


def build_attention(
    *, hidden: int, head: int, weights: Weights, masked: bool, side: Collection[str] = ()
) -> bytes:
    """Self-attention over the heads given -> ``partial``.

    ``q_scale``, ``q_bias`` and ``q_w`` include the factor 1 / sqrt(head). Keys have no bias: it
    would add the same number to all scores of a query, which the softmax cancels.
    """
    _check_side(side, ATTENTION_SIDES)
    g = GraphWriter("attention")
    h = g.input("h", FLOAT, ("B", "S", hidden))
    if masked:
        g.input("mask", FLOAT, ("B", 1, "S"))
    for name in "qkv":
        g.input(name, WEIGHT_TYPES[weights], ("m", hidden, head))
    g.input("o", WEIGHT_TYPES[weights], ("m", head, hidden))
    for name in ("q_scale", "k_scale", "v_scale", "q_bias", "v_bias"):
        g.input(name, FLOAT, ("m", 1, head))
    g.input("o_scale", FLOAT, (hidden,))
    _side_inputs(g, side, inner="qkv", inner_width=head, outer="o", outer_width=hidden)

    x = g.node("Reshape", h, g.ints(1, -1, hidden))
    xq = quantize_signed(g, x, axis=1, over=(0, 2))
    scale = g.node("Reshape", xq.scale, g.ints(-1, 1))
    q, k, v = (
        _slices(g, name, x, xq, scale, weights, biased=name != "k", side=side) for name in "qkv"
    )
    context = _attend(g, h, q, k, v, head=head, masked=masked)
    context = g.node("Reshape", context, g.node("Shape", v))
    context = g.node("Transpose", context, perm=[1, 0, 2])  # [T, m, head]
    cq = quantize_signed(g, context, axis=0, over=(1, 2))
    flat = ""
    if "o" in side:
        flat = g.node("Gather", g.node("Reshape", context, g.ints(0, -1)), "o_idx", axis=1)
    return _close(g, h, "o", cq.values, cq, flat, hidden=hidden, weights=weights)


def build_ffn(
    *,
    hidden: int,
    neurons: int,
    weights: Weights,
    activation: Activation,
    side: Collection[str] = (),
) -> bytes:
    """Feed-forward over the slices given, ``neurons`` each -> ``partial``."""
    _check_side(side, FFN_SIDES)
    g = GraphWriter("ffn")
    h = g.input("h", FLOAT, ("B", "S", hidden))
    g.input("up", WEIGHT_TYPES[weights], ("m", hidden, neurons))
    g.input("down", WEIGHT_TYPES[weights], ("m", neurons, hidden))
    for name in ("up_scale", "up_bias"):
        g.input(name, FLOAT, ("m", 1, neurons))
    g.input("down_scale", FLOAT, (hidden,))
    _side_inputs(g, side, inner=("up",), inner_width=neurons, outer="down", outer_width=hidden)

    x = g.node("Reshape", h, g.ints(1, -1, hidden))
    xq = quantize_signed(g, x, axis=1, over=(0, 2))
    scale = g.node("Reshape", xq.scale, g.ints(-1, 1))
    u = _slices(g, "up", x, xq, scale, weights, biased=True, side=side)
    u = _activate(g, u, activation)  # [m, T, neurons]
    uq = quantize_above(
        g, u, axis=1, over=(0, 2), least=_LEAST[activation], zero_point=_ZERO_POINTS[activation]
    )
    by_token = g.node("Transpose", uq.values, perm=[1, 0, 2])  # a quarter of the bytes of floats
    flat = _gather_neurons(g, u, neurons) if "down" in side else ""
    return _close(g, h, "down", by_token, uq, flat, hidden=hidden, weights=weights)


def build_connect(*, hidden: int, epsilon: float) -> bytes:
    """Post-norm: ``h = LayerNorm(partial + bias + residual)``; ``h`` is also the next residual."""
    g = GraphWriter("connect")
    partial, residual = (
        g.input(name, FLOAT, ("B", "S", hidden)) for name in ("partial", "residual")
    )
    bias, gamma, beta = (g.input(name, FLOAT, (hidden,)) for name in ("bias", "gamma", "beta"))
    total = g.node("Add", g.node("Add", partial, bias), residual)
    g.node("LayerNormalization", total, gamma, beta, out="h", axis=-1, epsilon=epsilon)
    return g.finish({"h": (FLOAT, ("B", "S", hidden))})


def _check_side(side: Collection[str], known: frozenset[str]) -> None:
    unknown = sorted(set(side) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise InputError(f"no such product: {', '.join(unknown)}; known products: {names}")


def _side_inputs(
    g: GraphWriter,
    side: Collection[str],
    *,
    inner: Collection[str],
    inner_width: int,
    outer: str,
    outer_width: int,
) -> None:
    """Declare side inputs: of products inside the slices, and of the one that joins them."""
    for name in inner:
        if name in side:
            g.input(f"{name}_idx", INT64, ("k_" + name,))
            g.input(f"{name}_w", FLOAT, ("m", "k_" + name, inner_width))
    if outer in side:
        g.input(f"{outer}_idx", INT64, ("k_" + outer,))
        g.input(f"{outer}_w", FLOAT, ("k_" + outer, outer_width))


def _slices(
    g: GraphWriter,
    name: str,
    x: str,
    xq: Quantized,
    scale: str,
    weights: Weights,
    *,
    biased: bool,
    side: Collection[str],
) -> str:
    """The block's input ``[1, T, d]`` times each slice ``[m, d, n]`` -> ``[m, T, n]``."""
    y = product(
        g,
        xq.values,
        name,
        token_scale=scale,
        row_scale=f"{name}_scale",
        zero_point=xq.zero_point,
        weights=weights,
    )
    if biased:
        y = g.node("Add", y, f"{name}_bias")
    if name in side:
        picked = g.node("Gather", x, f"{name}_idx", axis=2)
        y = g.node("Add", y, g.node("MatMul", picked, f"{name}_w"))
    return y


def _attend(g: GraphWriter, h: str, q: str, k: str, v: str, *, head: int, masked: bool) -> str:
    """Attention of ``[m, T, head]`` within each sentence -> ``[m * B, S, head]`` or equivalent.

    Each head of a sentence is a batch item with a single head, so nothing is transposed.
    """
    if not masked:
        tokens = g.node("Shape", h, start=1, end=2)
        by_head = g.node("Concat", g.ints(-1), tokens, g.ints(head), axis=0)
        with_one = g.node("Concat", g.ints(-1, 1), tokens, g.ints(head), axis=0)
        q = g.node("Reshape", q, by_head)
        k, v = g.node("Reshape", k, with_one), g.node("Reshape", v, with_one)
        return g.node("MultiHeadAttention", q, k, v, domain=FUSED, num_heads=1, scale=1.0)
    sentences = g.node("Shape", h, start=0, end=2)
    by_head = g.node("Concat", g.ints(-1), sentences, g.ints(head), axis=0)
    q, k, v = (g.node("Reshape", x, by_head) for x in (q, k, v))
    scores = g.node("FusedMatMul", q, k, domain=FUSED, transB=1)
    scores = g.node("Softmax", g.node("Add", scores, "mask"), axis=-1)
    return g.node("MatMul", scores, v)


def _activate(g: GraphWriter, x: str, activation: Activation) -> str:
    if activation == "gelu":
        return g.node("Gelu", x, domain=FUSED)
    return g.node("FastGelu", x, domain=FUSED) if activation == "gelu_new" else g.node("Relu", x)


def _gather_neurons(g: GraphWriter, u: str, neurons: int) -> str:
    """Floats of the side channels, ``[m, T, neurons]`` -> ``[T, k]``.

    Neuron ``c`` of token ``t`` is at ``(c // n * T + t) * n + c % n`` of the flat hidden layer.
    """
    n = g.constant(np.int64(neurons))
    tokens = g.node("Shape", u, start=1, end=2)
    span = g.node("Mul", tokens, n)
    start = g.node("Mul", g.node("Div", "down_idx", n), span)
    start = g.node("Add", start, g.node("Mod", "down_idx", n))
    scalar = g.node("Squeeze", span)
    row = g.node("Range", g.constant(np.int64(0)), scalar, n)
    places = g.node("Add", g.node("Unsqueeze", row, g.ints(1)), start)
    return g.node("Gather", g.node("Reshape", u, g.ints(-1)), places, axis=0)


def _close(
    g: GraphWriter,
    h: str,
    name: str,
    values: str,
    xq: Quantized,
    picked: str,
    *,
    hidden: int,
    weights: Weights,
) -> bytes:
    """Join the slices: quantized ``[T, m, n]`` times ``[m * n, d]`` -> ``partial``.

    ``picked`` are the floats ``[T, k]`` of the side channels, or nothing.
    """
    # The last extent of the shape is inferred, so it serves both the activations and their scale.
    shape = g.node("Concat", g.node("Shape", h, start=0, end=2), g.ints(-1), axis=0)
    y = product(
        g,
        g.node("Reshape", values, shape),
        g.node("Reshape", name, g.ints(-1, hidden)),
        token_scale=g.node("Reshape", xq.scale, shape),
        row_scale=f"{name}_scale",
        zero_point=xq.zero_point,
        weights=weights,
        out=None if picked else "partial",
    )
    if picked:
        picked = g.node("Reshape", picked, shape)
        g.node("Add", y, g.node("MatMul", picked, f"{name}_w"), out="partial")
    return g.finish({"partial": (FLOAT, ("B", "S", hidden))})
