"""The graphs at the two ends of a model: embed, before the blocks, and head, after them.

In: the hidden width and what the head computes. Out: serialized ONNX models, the same bytes for the
same arguments. Batch ``B``, tokens ``S`` and labels ``L`` stay symbolic; tables and weights are
inputs, so that the run time's resident tensors are used in place. Knows nothing of checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shard_tools.graphs.blocks import finish_with_hidden
from shard_tools.graphs.writer import FLOAT, FUSED, HALF, INT64, GraphWriter
from sti.errors import InputError

HEAD_KINDS = ("embedding", "sequence", "tokens")
POOLINGS = ("mean", "cls", "pooler")
HeadActivation = Literal["tanh", "relu", "gelu"]
HEAD_ACTIVATIONS: tuple[HeadActivation, ...] = ("tanh", "relu", "gelu")


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What the head computes.

    Attributes:
        kind: ``embedding`` [B, d], ``sequence`` logits [B, L], or ``tokens`` logits [B, S, L].
        pooling: of the tokens, for ``embedding`` and ``sequence``: ``mean`` over the tokens that
            are not padding, ``cls`` (the first), or ``pooler`` (the first, through a dense layer
            and ``activation``).
        normalize: scale embeddings to length 1.
        activation: of the pooler.
    """

    kind: Literal["embedding", "sequence", "tokens"]
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    normalize: bool = False
    activation: HeadActivation = "tanh"


def build_embed(*, hidden: int, epsilon: float) -> bytes:
    """Token embeddings, positions 0 to S-1 and token types, summed and normalized -> ``h``.

    Token embeddings come sentence by sentence, hidden states are token-major. ``xq`` and ``xs`` are
    ``h`` quantized, for the first block.

    Positions are float16: they stay in memory, and token embeddings have only 4 bits anyway.
    """
    g = GraphWriter("embed")
    words = g.input("words", FLOAT, ("B", "S", hidden))
    positions = g.input("positions", HALF, ("P", hidden))
    types = g.input("types", FLOAT, ("types", hidden))
    type_ids = g.input("type_ids", INT64, ("B", "S"))
    gamma, beta = (g.input(name, FLOAT, (hidden,)) for name in ("gamma", "beta"))
    tokens = g.node("Shape", words, start=1, end=2)
    used = g.node("Cast", g.node("Slice", positions, g.ints(0), tokens, g.ints(0)), to=FLOAT)
    total = g.node("Add", words, g.node("Gather", types, type_ids, axis=0))
    total = g.node("Add", total, used)
    normal = g.node("LayerNormalization", total, gamma, beta, axis=-1, epsilon=epsilon)
    return finish_with_hidden(g, g.node("Transpose", normal, out="h", perm=[1, 0, 2]), hidden)


def build_head(*, hidden: int, head: HeadSpec) -> bytes:
    """``h [S, B, d]`` -> ``embedding`` or ``logits``, see ``HeadSpec``.

    Mean pooling also takes ``tokens [B, S]``, 1 for a token and 0 for padding; logits take
    ``classifier_w [d, L]`` and ``classifier_b``, and the pooler ``pooler_w [d, d]``, ``pooler_b``.

    Raises:
        InputError: an embedding with a pooler.
    """
    if head.kind == "embedding" and head.pooling == "pooler":
        raise InputError("an embedding is pooled by mean or cls; a pooler belongs to a classifier")
    g = GraphWriter("head")
    h = g.input("h", FLOAT, ("S", "B", hidden))
    if head.kind == "tokens":
        g.node("Transpose", _classify(g, h, hidden), out="logits", perm=[1, 0, 2])
        return g.finish({"logits": (FLOAT, ("B", "S", "L"))})
    if head.pooling == "mean":
        pooled = _mean(g, h, g.input("tokens", FLOAT, ("B", "S")))
    else:
        pooled = g.node("Gather", h, g.constant(np.int64(0)), axis=0)
    if head.kind == "embedding":
        _embedding(g, pooled, normalize=head.normalize)
        return g.finish({"embedding": (FLOAT, ("B", hidden))})
    rows = _one_more(g, pooled, axis=0)
    if head.pooling == "pooler":
        weight = g.input("pooler_w", FLOAT, (hidden, hidden))
        bias = g.input("pooler_b", FLOAT, (hidden,))
        rows = _activated(g, g.node("Add", g.node("MatMul", rows, weight), bias), head.activation)
    logits = _classify(g, rows, hidden)
    g.node("Slice", logits, g.ints(0), g.ints(-1), g.ints(0), out="logits")
    return g.finish({"logits": (FLOAT, ("B", "L"))})


def _activated(g: GraphWriter, x: str, activation: HeadActivation) -> str:
    if activation == "gelu":
        return g.node("Gelu", x, domain=FUSED)
    return g.node({"tanh": "Tanh", "relu": "Relu"}[activation], x)


def _mean(g: GraphWriter, h: str, tokens: str) -> str:
    """Mean over the tokens that are not padding -> ``[B, d]``."""
    row = g.node("Unsqueeze", tokens, g.ints(1))
    total = g.node("FusedMatMul", row, h, domain=FUSED, transBatchB=1)  # [B, 1, d]
    count = g.node("ReduceSum", tokens, g.ints(1), keepdims=1)
    count = g.node("Max", count, g.constant(np.float32(1e-9)))
    return g.node("Div", g.node("Squeeze", total, g.ints(1)), count)


def _embedding(g: GraphWriter, pooled: str, *, normalize: bool) -> None:
    if not normalize:
        g.node("Identity", pooled, out="embedding")
        return
    length = g.node("ReduceL2", pooled, g.ints(1), keepdims=1)
    length = g.node("Max", length, g.constant(np.float32(1e-12)))
    g.node("Div", pooled, length, out="embedding")


def _classify(g: GraphWriter, x: str, hidden: int) -> str:
    """Logits of each row of ``x``."""
    weight = g.input("classifier_w", FLOAT, (hidden, "L"))
    bias = g.input("classifier_b", FLOAT, ("L",))
    scores = g.node("MatMul", x, _one_more(g, weight, axis=1))
    scores = g.node("Slice", scores, g.ints(0), g.ints(-1), g.ints(-1))
    return g.node("Add", scores, bias)


def _one_more(g: GraphWriter, x: str, *, axis: int) -> str:
    """``x`` with its first row or column repeated at the end.

    ONNX Runtime computes products with a single row or column in another way, which rounds
    differently: with the repetition a sentence alone gets the same bits as in a batch.
    """
    first = g.node("Slice", x, g.ints(0), g.ints(1), g.ints(axis))
    return g.node("Concat", x, first, axis=axis)
