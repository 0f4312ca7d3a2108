"""The graphs at the two ends of a model: embed, before the blocks, and head, after them.

In: the hidden width and what the head computes. Out: serialized ONNX models, the same bytes for the
same arguments. Batch ``B``, tokens ``S`` and labels ``L`` stay symbolic; tables and weights are
inputs, so that the run time's resident tensors are used in place. Knows nothing of checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from shard_tools.graphs.blocks import finish_with_hidden
from shard_tools.graphs.writer import FLOAT, FUSED, HALF, INT64, GraphWriter
from sti.errors import InputError

HEAD_KINDS = ("embedding", "sequence", "tokens")
Pooling = Literal["mean", "cls", "max", "sqrt_len", "weighted_mean", "last", "pooler"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
HeadActivation = Literal["none", "tanh", "relu", "gelu"]
HEAD_ACTIVATIONS: tuple[HeadActivation, ...] = get_args(HeadActivation)
StepKind = Literal["dense", "norm", "normalize"]
STEP_KINDS: tuple[StepKind, ...] = get_args(StepKind)
NORM_EPSILON = 1e-5
"""Of ``norm`` steps, as sentence-transformers has it."""
_FAR_BELOW = 1e30
"""What is taken from padding before the largest number is looked for."""


@dataclass(frozen=True, slots=True)
class HeadStep:
    """What is done to what was pooled.

    Attributes:
        kind: ``dense``, a linear layer and its activation; ``norm``, a layer norm; ``normalize``,
            scaling to length 1.
        size: numbers that it answers.
        activation: of a ``dense`` step.
    """

    kind: StepKind
    size: int
    activation: HeadActivation = "none"


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What the head computes.

    Attributes:
        kind: ``embedding`` [B, n], ``sequence`` logits [B, L], or ``tokens`` logits [B, S, L].
        poolings: of the tokens that are not padding, for ``embedding`` and ``sequence``: ``mean``,
            ``cls`` (the first), ``max`` of each number, ``sqrt_len`` (their sum over the root of
            how many there are), ``weighted_mean`` (each as often as its place, from 1), ``last``,
            or ``pooler`` (the first, through a dense layer and ``activation``). Several are put
            side by side.
        steps: what follows, in order.
        activation: of the pooler.
    """

    kind: Literal["embedding", "sequence", "tokens"]
    poolings: tuple[Pooling, ...] = ("mean",)
    steps: tuple[HeadStep, ...] = ()
    activation: HeadActivation = "tanh"

    def size(self, hidden: int) -> int:
        """Numbers that are left of a text behind the steps."""
        return self.steps[-1].size if self.steps else hidden * len(self.poolings)


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

    Poolings but ``cls`` and ``pooler`` also take ``tokens [B, S]``, 1 for a token and 0 for
    padding; logits take ``classifier_w [n, L]`` and ``classifier_b``, the pooler
    ``pooler_w [d, d]`` and ``pooler_b``, and step ``i`` ``step<i>_w`` and ``step<i>_b``: ``[in,
    out]`` and ``[out]`` of a dense layer, gamma and beta of a norm.

    Raises:
        InputError: an embedding with a pooler.
    """
    if head.kind == "embedding" and "pooler" in head.poolings:
        raise InputError("an embedding is pooled without a pooler, which belongs to a classifier")
    g = GraphWriter("head")
    h = g.input("h", FLOAT, ("S", "B", hidden))
    if head.kind == "tokens":
        g.node("Transpose", _classify(g, h, hidden), out="logits", perm=[1, 0, 2])
        return g.finish({"logits": (FLOAT, ("B", "S", "L"))})
    pooled = _Pooled(g, h).all(head.poolings)
    size = hidden * len(head.poolings)
    products = head.kind == "sequence" or any(step.kind == "dense" for step in head.steps)
    rows = _one_more(g, pooled, axis=0) if products else pooled
    if head.poolings == ("pooler",):
        weight = g.input("pooler_w", FLOAT, (hidden, hidden))
        bias = g.input("pooler_b", FLOAT, (hidden,))
        rows = _activated(g, g.node("Add", g.node("MatMul", rows, weight), bias), head.activation)
    for number, step in enumerate(head.steps):
        rows, size = _step(g, rows, number, size, step), step.size
    answer = "embedding" if head.kind == "embedding" else "logits"
    if head.kind == "sequence":
        rows = _classify(g, rows, size)
    if products:
        g.node("Slice", rows, g.ints(0), g.ints(-1), g.ints(0), out=answer)
    else:
        g.node("Identity", rows, out=answer)
    return g.finish({answer: (FLOAT, ("B", "L" if head.kind == "sequence" else size))})


class _Pooled:
    """Writes the poolings of ``h [S, B, d]``, each ``[B, d]``, and what they share once."""

    def __init__(self, g: GraphWriter, h: str) -> None:
        self._g, self._h = g, h
        self._tokens = self._sum = self._count = ""

    def all(self, poolings: Sequence[Pooling]) -> str:
        """All of them side by side."""
        found, *others = [self._one(pooling) for pooling in poolings]
        for other in others:
            found = self._g.node("Concat", found, other, axis=1)
        return found

    def _one(self, pooling: Pooling) -> str:
        g = self._g
        if pooling in ("cls", "pooler"):
            return g.node("Gather", self._h, g.constant(np.int64(0)), axis=0)
        self._tokens = self._tokens or g.input("tokens", FLOAT, ("B", "S"))
        if pooling == "max":
            return self._largest()
        if pooling in ("mean", "sqrt_len"):
            self._sum = self._sum or self._weighted(self._tokens)
            self._count = self._count or self._total(self._tokens)
            count = self._count if pooling == "mean" else g.node("Sqrt", self._count)
            return g.node("Div", self._sum, count)
        places = g.node(
            "Mul", g.node("CumSum", self._tokens, g.constant(np.int64(1))), self._tokens
        )
        if pooling == "weighted_mean":
            return g.node("Div", self._weighted(places), self._total(places))
        # Places from 1, less how many there are, and one: 1 at the last token, else nothing.
        beyond = g.node("Mul", self._total(self._tokens), g.constant(np.float32(-1)))
        beyond = g.node("Add", beyond, g.constant(np.float32(1)))
        return self._weighted(g.node("Relu", g.node("Add", places, beyond)))

    def _weighted(self, weights: str) -> str:
        """Sum over the tokens, by weights ``[B, S]``."""
        g = self._g
        row = g.node("Unsqueeze", weights, g.ints(1))
        total = g.node("FusedMatMul", row, self._h, domain=FUSED, transBatchB=1)  # [B, 1, d]
        return g.node("Squeeze", total, g.ints(1))

    def _total(self, weights: str) -> str:
        """Of weights ``[B, S]``, at least next to nothing -> ``[B, 1]``."""
        g = self._g
        count = g.node("ReduceSum", weights, g.ints(1), keepdims=1)
        return g.node("Max", count, g.constant(np.float32(1e-9)))

    def _largest(self) -> str:
        g = self._g
        absent = g.node("Add", self._tokens, g.constant(np.float32(-1)))
        absent = g.node("Mul", absent, g.constant(np.float32(_FAR_BELOW)))
        absent = g.node("Unsqueeze", g.node("Transpose", absent, perm=[1, 0]), g.ints(2))
        return g.node("ReduceMax", g.node("Add", self._h, absent), g.ints(0), keepdims=0)


def _step(g: GraphWriter, x: str, number: int, size: int, step: HeadStep) -> str:
    """One step on rows of ``size`` numbers."""
    if step.kind == "normalize":
        length = g.node("ReduceL2", x, g.ints(1), keepdims=1)
        return g.node("Div", x, g.node("Max", length, g.constant(np.float32(1e-12))))
    if step.kind == "norm":
        gamma, beta = (g.input(f"step{number}_{part}", FLOAT, (size,)) for part in "wb")
        return g.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=NORM_EPSILON)
    weight = g.input(f"step{number}_w", FLOAT, (size, step.size))
    bias = g.input(f"step{number}_b", FLOAT, (step.size,))
    return _activated(g, g.node("Add", _product(g, x, weight, step.size), bias), step.activation)


def _product(g: GraphWriter, x: str, weight: str, outputs: int) -> str:
    """Rows times a matrix, of which one column alone is computed as several are."""
    if outputs > 1:
        return g.node("MatMul", x, weight)
    found = g.node("MatMul", x, _one_more(g, weight, axis=1))
    return g.node("Slice", found, g.ints(0), g.ints(-1), g.ints(-1))


def _activated(g: GraphWriter, x: str, activation: HeadActivation) -> str:
    if activation == "none":
        return x
    if activation == "gelu":
        return g.node("Gelu", x, domain=FUSED)
    return g.node({"tanh": "Tanh", "relu": "Relu"}[activation], x)


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
