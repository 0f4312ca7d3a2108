"""A BERT-family encoder whose depth, width and fidelities are chosen at every pass.

In: a checkpoint's tensors; token batches; a ``Pass`` that names the layers, the width and the
fidelities to run. Out: logits and hidden states, and the tensors again under the checkpoint's
names. Weights are stored slice by slice, ``[slices, rows, columns]``, so that a width is a prefix
of every parameter and a fidelity belongs to a row of it. Knows nothing of losses or data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray
from torch import nn

from shard_tools.train.nested import NestedCode

Tensor = torch.Tensor

MATRICES = ("q", "k", "v", "o", "up", "down")
OUTPUTS_LAST = ("o", "down")
"""Stored ``[slices, in, out]``; all others ``[slices, out, in]``."""
_MASK = -1e4


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shape of the encoder and of its head."""

    layers: int
    hidden: int
    heads: int
    inner: int
    slices: int
    positions: int
    types: int
    vocabulary: int
    outputs: int
    epsilon: float
    activation: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch: int64 ``[B, S]`` ids and types, bool ``[B, S]`` present."""

    ids: Tensor
    types: Tensor
    present: Tensor


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass uses.

    ``levels``: int64 ``[layers in use, 2, width]``, the place in the ladder of every slice's
    fidelity, in attention and in FFN; None runs the float weights.
    """

    layers: tuple[int, ...]
    width: int
    levels: Tensor | None


class ElasticNetwork(nn.Module):
    """The network. Parameters are float32; products run in ``dtype``."""

    def __init__(self, sizes: Sizes, words: NDArray[np.float32], dtype: torch.dtype) -> None:
        """Make it with empty parameters.

        Args:
            words: the word embeddings, ``[vocabulary, hidden]``; taken over, not copied.
            dtype: ``torch.float32`` or ``torch.bfloat16``.
        """
        super().__init__()
        self.sizes, self.dtype = sizes, dtype
        self.dropout = 0.0
        self.words = nn.Parameter(torch.from_numpy(words))
        head, neurons = sizes.hidden // sizes.slices, sizes.inner // sizes.slices

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape))

        self.positions = empty(sizes.positions, sizes.hidden)
        self.token_types = empty(sizes.types, sizes.hidden)
        self.norm = nn.ParameterList([empty(sizes.hidden), empty(sizes.hidden)])
        self.layers = nn.ModuleList()
        for _ in range(sizes.layers):
            layer = nn.ParameterDict(
                {name: empty(sizes.slices, head, sizes.hidden) for name in ("q", "k", "v", "o")}
                | {name: empty(sizes.slices, neurons, sizes.hidden) for name in ("up", "down")}
                | {f"{name}_bias": empty(sizes.slices, head) for name in "qkv"}
                | {"up_bias": empty(sizes.slices, neurons)}
            )
            for block in ("attention", "ffn"):
                for name in ("bias", "gamma", "beta"):
                    layer[f"{block}_{name}"] = empty(sizes.hidden)
            self.layers.append(layer)
        self.classifier = empty(sizes.outputs, sizes.hidden)
        self.classifier_bias = empty(sizes.outputs)
        self.code: NestedCode | None = None

    def copy(self) -> ElasticNetwork:
        """A network with the same weights, its own but for the words, and no code."""
        found = ElasticNetwork(self.sizes, self.words.detach().numpy(), self.dtype)
        found.load_state_dict(self.state_dict())
        found.words = self.words
        return found.eval()

    def whole(self) -> Pass:
        """The pass of the float model: all layers, at full width."""
        return Pass(tuple(range(self.sizes.layers)), self.sizes.slices, None)

    def layer(self, number: int) -> nn.ParameterDict:
        """The parameters of one layer."""
        found = self.layers[number]
        assert isinstance(found, nn.ParameterDict)
        return found

    def matrices(self) -> dict[str, nn.Parameter]:
        """The sliced matrices by ``layer.name``."""
        numbers = range(self.sizes.layers)
        return {f"{i}.{name}": self.layer(i)[name] for i in numbers for name in MATRICES}

    def use_code(self, ladder: Sequence[int]) -> NestedCode:
        """Attach a code for passes with levels, fitted to the weights as they are."""
        last = frozenset(f"{i}.{name}" for i in range(self.sizes.layers) for name in OUTPUTS_LAST)
        self.code = NestedCode(self.matrices(), outputs_last=last, ladder=ladder)
        self.code.refit()
        return self.code

    def forward(
        self, tokens: Tokens, run: Pass, gates: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a submodel.

        Args:
            tokens: the batch.
            run: what to use.
            gates: for measuring importance: ``layer.attention`` ``[slices]`` and ``layer.ffn``
                ``[inner]``, factors of each head's and neuron's contribution.

        Returns:
            Logits ``[B, outputs]`` and the hidden states ``[B, S, hidden]`` behind each layer run.
        """
        length = tokens.ids.shape[1]
        hidden = F.embedding(tokens.ids, self.words, sparse=True)
        hidden = hidden + self.positions[:length] + F.embedding(tokens.types, self.token_types)
        hidden = self._normed(hidden, *self.norm)
        mask = None
        if not bool(tokens.present.all()):
            mask = (~tokens.present).float()[:, None, None, :] * _MASK
        states = []
        for place, number in enumerate(run.layers):
            levels = None if run.levels is None else run.levels[place]
            hidden = self._layer(number, hidden, mask, run.width, levels, gates or {})
            states.append(hidden)
        present = tokens.present[:, :, None].to(hidden.dtype)
        pooled = (hidden * present).sum(1) / present.sum(1)
        if self.training and self.dropout:
            pooled = F.dropout(pooled, self.dropout)
        return F.linear(pooled, self.classifier, self.classifier_bias), states

    def _layer(
        self,
        number: int,
        hidden: Tensor,
        mask: Tensor | None,
        width: int,
        levels: Tensor | None,
        gates: Mapping[str, Tensor],
    ) -> Tensor:
        sizes, layer = self.sizes, self.layer(number)
        batch, length, _ = hidden.shape
        heads = sizes.heads // sizes.slices * width

        def weight(name: str, block: int) -> Tensor:
            if levels is None or self.code is None:
                found = layer[name][:width].to(self.dtype)
            else:
                found = self.code.weights(f"{number}.{name}", levels[block], self.dtype)
            return torch.as_tensor(found).reshape(-1, sizes.hidden)

        def bias(name: str) -> Tensor:
            return torch.as_tensor(layer[name])[:width].flatten().to(self.dtype)

        x = hidden.to(self.dtype)
        query, key, value = (
            F.linear(x, weight(name, 0), bias(f"{name}_bias"))
            .view(batch, length, heads, -1)
            .transpose(1, 2)
            for name in "qkv"
        )
        # In float32: bfloat16's gradient of it takes ten times as long on a CPU.
        scored = (query.float(), key.float(), value.float())
        mixed = F.scaled_dot_product_attention(*scored, attn_mask=mask)
        mixed = mixed.to(self.dtype).transpose(1, 2)
        if f"{number}.attention" in gates:
            mixed = mixed * gates[f"{number}.attention"][:, None].to(self.dtype)
        added = mixed.reshape(batch, length, -1) @ weight("o", 0)
        hidden = self._connect(layer, "attention", hidden, added)
        inner = F.linear(hidden.to(self.dtype), weight("up", 1), bias("up_bias"))
        inner = _activate(inner, sizes.activation)
        if f"{number}.ffn" in gates:
            inner = inner * gates[f"{number}.ffn"].to(self.dtype)
        return self._connect(layer, "ffn", hidden, inner @ weight("down", 1))

    def _connect(
        self, layer: nn.ParameterDict, block: str, hidden: Tensor, added: Tensor
    ) -> Tensor:
        added = added.float() + layer[f"{block}_bias"]
        if self.training and self.dropout:
            added = F.dropout(added, self.dropout)
        return self._normed(hidden + added, layer[f"{block}_gamma"], layer[f"{block}_beta"])

    def _normed(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return F.layer_norm(x, (self.sizes.hidden,), gamma, beta, self.sizes.epsilon)


def _activate(x: Tensor, kind: str) -> Tensor:
    if kind == "relu":
        return F.relu(x)
    if kind == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="none" if kind == "gelu" else "tanh")
