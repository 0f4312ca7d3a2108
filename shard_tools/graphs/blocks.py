"""The ONNX graphs of a pack between its two ends: attention, ffn and connect.

In: the fixed sizes of a model (hidden width, slice widths, activation). Out: serialized ONNX
models, the same bytes for the same arguments. Batch ``B``, tokens ``S``, channels of the slices in
use ``n``, units (heads) ``m`` and side channels ``k`` stay symbolic, and every weight is an input:
one session serves all layers at all widths, and decoded bytes are used as operands where they are.
Knows nothing of checkpoints, packs or fidelities.

A block's input is given quantized, ``xq`` and ``xs``, and only where side inputs need them as
floats, ``h``: ``embed`` and ``connect`` quantize once what all slice groups of a block multiply.
Blocks return the *partial* sum over the slices given, without bias and residual, which ``connect``
adds; so a block can be split between any slices. The slices of an operand are one matrix, so that
a product reads the activations once; the tokens of a batch are separated only around attention.

Weights beyond the int8 grid are exact through side inputs: ``<product>_idx [k]`` picks input
channels, whose unquantized values times ``<product>_w`` are added to the integer product.

A slice of one block is a shard of the STI paper: one head with its q, k, v rows and o columns, or
1/M of the FFN; the number formats are this project's own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from shard_tools.graphs.writer import (
    FLOAT,
    FUSED,
    INT64,
    SIGNED_ZERO_POINT,
    UINT8,
    WEIGHT_TYPES,
    GraphWriter,
    Quantized,
    product,
    quantize_above,
    quantize_signed,
)
from sti.codec.weights import WeightForm
from sti.errors import InputError

Activation = Literal["gelu", "gelu_new", "relu", "silu"]
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_new", "relu", "silu")
ATTENTION_SIDES = frozenset({"q", "k", "v", "o"})
FFN_SIDES = frozenset({"up", "down"})

_LEAST: dict[Activation, float] = {
    "gelu": -0.17,
    "gelu_new": -0.1701,
    "relu": 0.0,
    "silu": -0.2785,
}
"""A lower bound of each activation function."""
_ZERO_POINTS: dict[Activation, int] = {"gelu": 16, "gelu_new": 16, "relu": 0, "silu": 26}
_FUSED_BIAS = frozenset({"gelu", "gelu_new"})
"""Activation functions whose operators add a bias."""


def build_attention(
    *,
    hidden: int,
    head: int,
    weights: WeightForm,
    masked: bool,
    side: Collection[str] = (),
    distances: int = 0,
) -> bytes:
    """Self-attention over the heads given -> ``partial`` of the call's own tokens.

    ``own_xq`` and ``own_xs`` are the ``R`` tokens, some or all of ``xq`` and ``xs``, whose queries
    are computed; keys and values are those of all tokens. So several threads can share the tokens.

    ``q_scale``, ``q_bias`` and ``q_w`` include the factor 1 / sqrt(head). Keys have no bias: it
    would add the same number to all scores of a query, which the softmax cancels.

    Args:
        distances: entries of each head in ``position_bias``, which is added to scores by how far
            tokens are apart: ``distances [R, S]`` says which entry; 0 for none.
    """
    _check_side(side, ATTENTION_SIDES)
    g = GraphWriter("attention")
    own, x = _input(g, hidden, "own_", "R"), _input(g, hidden)
    if masked:
        g.input("mask", FLOAT, ("B", 1, 1, "S"))
    if distances:
        g.input("distances", INT64, ("R", "S"))
        g.input("position_bias", FLOAT, ("n_bias",))
    for name in "qkv":
        _operand(g, name, (hidden, "n"), weights, biased=name != "k")
    _operand(g, "o", ("n", hidden), weights)
    _side_inputs(g, side, inner="qkv", inner_width=head, outer="o", hidden=hidden, own="q")

    q = _inner(g, "q", own, weights, biased=True, side=side)
    k, v = (_inner(g, name, x, weights, biased=name == "v", side=side) for name in "kv")
    context = _attend(g, q, k, v, head=head, masked=masked, distances=distances)
    return _close(
        g, "o", context, quantize_signed(g, context), hidden, weights, side=side, tokens="R"
    )


def build_ffn(
    *,
    hidden: int,
    neurons: int,
    weights: WeightForm,
    activation: Activation,
    side: Collection[str] = (),
) -> bytes:
    """Feed-forward over the slices given, ``neurons`` each -> ``partial``."""
    _check_side(side, FFN_SIDES)
    g = GraphWriter("ffn")
    x = _input(g, hidden)
    _operand(g, "up", (hidden, "n"), weights, biased=True)
    _operand(g, "down", ("n", hidden), weights)
    _side_inputs(g, side, inner=("up",), inner_width=neurons, outer="down", hidden=hidden)

    # Otherwise the activation adds the bias.
    added = activation not in _FUSED_BIAS or "up" in side
    u = _inner(g, "up", x, weights, biased=added, side=side)
    u = _activate(g, u, activation, bias="" if added else "up_bias")
    uq = quantize_above(g, u, least=_LEAST[activation], zero_point=_ZERO_POINTS[activation])
    return _close(g, "down", u, uq, hidden, weights, side=side)


def build_connect(*, hidden: int, epsilon: float) -> bytes:
    """Post-norm: ``h = LayerNorm(partial + bias + residual)``; ``h`` is also the next residual.

    ``xq`` and ``xs`` are ``h`` quantized, for the next block.
    """
    g = GraphWriter("connect")
    partial, residual = (
        g.input(name, FLOAT, ("S", "B", hidden)) for name in ("partial", "residual")
    )
    bias, gamma, beta = (g.input(name, FLOAT, (hidden,)) for name in ("bias", "gamma", "beta"))
    total = g.node("Add", g.node("Add", partial, bias), residual)
    h = g.node("LayerNormalization", total, gamma, beta, out="h", axis=-1, epsilon=epsilon)
    return finish_with_hidden(g, h, hidden)


def finish_with_hidden(g: GraphWriter, h: str, hidden: int) -> bytes:
    """End a graph whose outputs are hidden states ``h [S, B, d]`` and ``xq``, ``xs``."""
    quantize_signed(g, h, values="xq", scale="xs")
    return g.finish(
        {
            "h": (FLOAT, ("S", "B", hidden)),
            "xq": (UINT8, ("S", "B", hidden)),
            "xs": (FLOAT, ("S", "B", 1)),
        }
    )


def _check_side(side: Collection[str], known: frozenset[str]) -> None:
    unknown = sorted(set(side) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise InputError(f"no such product: {', '.join(unknown)}; known products: {names}")


def _input(g: GraphWriter, hidden: int, prefix: str = "", tokens: str = "S") -> Quantized:
    """Declare a block's input, quantized."""
    values = g.input(f"{prefix}xq", UINT8, (tokens, "B", hidden))
    scale = g.input(f"{prefix}xs", FLOAT, (tokens, "B", 1))
    return Quantized(values, scale, SIGNED_ZERO_POINT, prefix)


def _operand(
    g: GraphWriter,
    name: str,
    shape: tuple[int | str, int | str],
    weights: WeightForm,
    *,
    biased: bool = False,
) -> None:
    """Declare a matrix with the scales, and perhaps the biases, of its columns."""
    g.input(name, WEIGHT_TYPES[weights], shape)
    for vector in ("scale", "bias")[: 1 + biased]:
        g.input(f"{name}_{vector}", FLOAT, shape[1:])


def _side_inputs(
    g: GraphWriter,
    side: Collection[str],
    *,
    inner: Collection[str],
    inner_width: int,
    outer: str,
    hidden: int,
    own: str = "",
) -> None:
    """Declare side inputs: of products inside the slices, and of the one that joins them.

    ``own`` is a product that multiplies the call's own tokens only.
    """
    if not set(side).isdisjoint(set(inner) - {own}):
        g.input("h", FLOAT, ("S", "B", hidden))
    if own in side:
        g.input("own_h", FLOAT, ("R", "B", hidden))
    for name in inner:
        if name in side:
            g.input(f"{name}_idx", INT64, ("k_" + name,))
            g.input(f"{name}_w", FLOAT, ("m", "k_" + name, inner_width))
    if outer in side:
        g.input(f"{outer}_idx", INT64, ("k_" + outer,))
        g.input(f"{outer}_w", FLOAT, ("k_" + outer, hidden))


def _inner(
    g: GraphWriter,
    name: str,
    x: Quantized,
    weights: WeightForm,
    *,
    biased: bool,
    side: Collection[str],
) -> str:
    """The block's input ``[S, B, d]`` times all slices ``[d, n]`` -> ``[S, B, n]``."""
    y = product(g, x, name, weights=weights)
    if biased:
        y = g.node("Add", y, f"{name}_bias")
    if name in side:
        picked = g.node("Gather", f"{x.prefix}h", f"{name}_idx", axis=2)
        # Slices side by side: [m, k, n] -> [k, m * n]; flattening also serves no channels at all.
        joined = g.node("Flatten", g.node("Transpose", f"{name}_w", perm=[1, 0, 2]), axis=1)
        y = g.node("Add", y, g.node("MatMul", picked, joined))
    return y


def _attend(
    g: GraphWriter, q: str, k: str, v: str, *, head: int, masked: bool, distances: int
) -> str:
    """Attention of ``[S, B, m * head]`` within each head of each sentence, of the same shape.

    The products read queries, keys and values where they are, so only the result is transposed.
    Queries may be of fewer tokens; the result has as many as they.
    """
    by_head = g.ints(0, 0, -1, head)
    q, k, v = (g.node("Reshape", x, by_head) for x in (q, k, v))
    scores = g.node("FusedMatMul", q, k, domain=FUSED, transB=1, transBatchA=1, transBatchB=1)
    if distances:
        by_distance = g.node("Reshape", "position_bias", g.ints(-1, distances))
        scores = g.node("Add", scores, g.node("Gather", by_distance, "distances", axis=1))
    if masked:
        scores = g.node("Add", scores, "mask")
    shares = g.node("Softmax", scores, axis=-1)  # [B, m, R, S]
    context = g.node("FusedMatMul", shares, v, domain=FUSED, transBatchB=1)
    context = g.node("Transpose", context, perm=[2, 0, 1, 3])
    return g.node("Reshape", context, g.ints(0, 0, -1))


def _activate(g: GraphWriter, x: str, activation: Activation, *, bias: str) -> str:
    """The activation function, of ``x`` plus a bias if one is named."""
    if activation == "relu":
        return g.node("Relu", x)
    if activation == "silu":
        return g.node("QuickGelu", x, domain=FUSED, alpha=1.0)
    if activation == "gelu_new":
        return g.node("FastGelu", *filter(None, (x, bias)), domain=FUSED)
    if bias:
        return g.node("BiasGelu", x, bias, domain=FUSED)
    return g.node("Gelu", x, domain=FUSED)


def _close(
    g: GraphWriter,
    name: str,
    x: str,
    xq: Quantized,
    hidden: int,
    weights: WeightForm,
    *,
    side: Collection[str],
    tokens: str = "S",
) -> bytes:
    """Join the slices: ``[R, B, n]`` times ``[n, d]`` -> ``partial``."""
    sided = name in side
    y = product(g, xq, name, weights=weights, out=None if sided else "partial")
    if sided:
        picked = g.node("Gather", x, f"{name}_idx", axis=2)
        g.node("Add", y, g.node("MatMul", picked, f"{name}_w"), out="partial")
    return g.finish({"partial": (FLOAT, (tokens, "B", hidden))})
