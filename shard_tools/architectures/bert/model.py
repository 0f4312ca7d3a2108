"""The BERT family: its tensor names, how its blocks are cut into slices, and its graphs.

In: a checkpoint with ``model_type`` ``bert``, names with or without the ``bert.`` prefix. Out: a
``Model``: float matrices in the orientation of the graphs, resident tensors, ONNX graphs, and the
float reference. Slices keep the checkpoint's order, in which training ranked them for width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import BlockWeights, KindLayout, Product, TokenBatch
from shard_tools.architectures.bert import reference
from shard_tools.architectures.bert.config import read_config
from shard_tools.architectures.bert.tensor_names import WORDS, encoder_prefix
from shard_tools.architectures.heads.head import Head
from shard_tools.architectures.heads.names import BERT
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.spec import ATTENTION, FFN, GraphSpec
from sti.arrays import Float32Array
from sti.errors import CheckpointError


class BertModel:
    """A BERT-family checkpoint. Reads tensors on demand; not thread-safe."""

    architecture = "bert"

    def __init__(self, checkpoint: Checkpoint, slices: int | None) -> None:
        """Read the configuration and find the task.

        Raises:
            CheckpointError: a part is missing or not supported; says what is supported.
        """
        self._checkpoint = checkpoint
        config = read_config(checkpoint, slices=slices)
        self._config = config
        self.layers, self.slices, self.hidden = config.layers, config.slices, config.hidden
        self.vocabulary, self.positions = config.vocabulary, config.positions
        self._head_size = config.hidden // config.heads
        self._prefix = encoder_prefix(checkpoint)
        self._head = Head(checkpoint, BERT, prefix=self._prefix, hidden=config.hidden)
        self.task, self.labels = self._head.task, self._head.labels
        self.kinds: tuple[KindLayout, ...] = (self._attention_layout(), self._ffn_layout())
        self._check_words()

    def _attention_layout(self) -> KindLayout:
        size, heads = self.hidden, self._config.heads
        into = [Product(name, size, size, heads, cuts_outputs=True) for name in "qkv"]
        out = Product("o", size, size, heads, cuts_outputs=False)
        return KindLayout(ATTENTION, "head", "sequence", (*into, out), ("q_bias", "v_bias"))

    def _ffn_layout(self) -> KindLayout:
        up = Product("up", self.hidden, self._config.inner, self.slices, cuts_outputs=True)
        down = Product("down", self._config.inner, self.hidden, self.slices, cuts_outputs=False)
        return KindLayout(FFN, "neurons", "tokens", (up, down), ("up_bias",))

    def _check_words(self) -> None:
        """Refuse an embedding table of the wrong shape before hours are spent on the rest."""
        name = self._prefix + WORDS
        shape = self._checkpoint.shape(name)
        if shape != (self.vocabulary, self.hidden):
            raise CheckpointError(
                f"{self._checkpoint.directory}: tensor {name!r} has shape {list(shape)}, expected "
                f"{[self.vocabulary, self.hidden]} by config.json"
            )

    def block(self, layer: int, kind: str) -> BlockWeights:
        """One block's tensors; the query is scaled by 1 / sqrt(head size)."""
        base = f"encoder.layer.{layer}."
        return self._ffn(base) if kind == FFN else self._attention(base + "attention.")

    def _ffn(self, base: str) -> BlockWeights:
        inner = self._config.inner
        up_bias = self._vector(base + "intermediate.dense.bias", inner)
        return BlockWeights(
            {
                "up": self._matrix(base + "intermediate.dense", self.hidden, inner),
                "down": self._matrix(base + "output.dense", inner, self.hidden),
            },
            {"up_bias": up_bias.reshape(self.slices, 1, -1)} | self._connection(base),
        )

    def _attention(self, base: str) -> BlockWeights:
        root = np.float32(1.0 / np.sqrt(self._head_size))
        names = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
        matrices = {
            name: self._matrix(base + tensor, self.hidden, self.hidden)
            for name, tensor in names.items()
        }
        matrices["q"] *= root
        heads = (self._config.heads, 1, self._head_size)
        query_bias = self._vector(base + "self.query.bias", self.hidden) * root
        vectors = {
            "q_bias": query_bias.reshape(heads),
            "v_bias": self._vector(base + "self.value.bias", self.hidden).reshape(heads),
        }
        return BlockWeights(matrices, vectors | self._connection(base))

    def _connection(self, base: str) -> dict[str, Float32Array]:
        """Bias and layer norm after a block."""
        bias = {"bias": self._vector(base + "output.dense.bias", self.hidden)}
        return bias | self._norm(base + "output.LayerNorm")

    def residents(self, max_tokens: int) -> dict[str, NDArray[Any]]:
        """Positions (the first ``max_tokens``, float16), types, norm, and the head's tensors."""
        base = "embeddings."
        positions = self._read(base + "position_embeddings.weight", (self.positions, self.hidden))
        types = self._read(base + "token_type_embeddings.weight", (self._config.types, self.hidden))
        norm = self._norm(base + "LayerNorm")
        found: dict[str, NDArray[Any]] = {
            "embed.positions": positions[:max_tokens].astype(np.float16),
            "embed.types": types,
        }
        found |= {f"embed.{name}": vector for name, vector in norm.items()}
        return found | self._head.residents()

    def graph_spec(self, side: Mapping[str, Collection[str]]) -> GraphSpec:
        """What the graphs are made from, with side inputs for the products in ``side``."""
        return GraphSpec(
            hidden=self.hidden,
            head_size=self._head_size,
            neurons=self._config.inner // self.slices,
            activation=self._config.activation,
            epsilon=self._config.epsilon,
            head=self._head.spec(),
            side={kind.name: tuple(side[kind.name]) for kind in self.kinds},
        )

    def token_rows(self, start: int, stop: int) -> Float32Array:
        """Token embeddings ``start`` to ``stop``, a new array."""
        return self._checkpoint.rows(self._prefix + WORDS, start, stop)

    def embed(self, batch: TokenBatch, residents: Mapping[str, Float32Array]) -> Float32Array:
        """Hidden states before the first layer."""
        rows = {
            number: self.token_rows(number, number + 1)[0] for number in set(batch.ids.tolist())
        }
        summed = np.stack([rows[number] for number in batch.ids.tolist()])
        summed += residents["embed.positions"][batch.positions]
        summed += residents["embed.types"][batch.type_ids]
        return reference.layer_norm(
            summed, residents["embed.gamma"], residents["embed.beta"], self._config.epsilon
        )

    def contributions(
        self,
        kind: str,
        hidden: Float32Array,
        lengths: Sequence[int],
        operands: Mapping[str, Float32Array],
        vectors: Mapping[str, Float32Array],
    ) -> Float32Array:
        """What each part of a block adds to its sum."""
        if kind == FFN:
            return reference.feed_forward(
                hidden,
                up=operands["up"],
                up_bias=vectors["up_bias"],
                down=operands["down"],
                kind=self._config.activation,
            )
        return reference.attention(
            hidden,
            lengths,
            query=operands["q"],
            key=operands["k"],
            value=operands["v"],
            output=operands["o"],
            query_bias=vectors["q_bias"],
            value_bias=vectors["v_bias"],
        )

    def connect(self, summed: Float32Array, vectors: Mapping[str, Float32Array]) -> Float32Array:
        """Bias and layer norm after a block."""
        return reference.layer_norm(
            summed + vectors["bias"], vectors["gamma"], vectors["beta"], self._config.epsilon
        )

    def readout(self, hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
        """What the head reads, as ``Head.readout`` has it."""
        return self._head.readout(hidden, lengths)

    def _read(self, name: str, shape: tuple[int, ...]) -> Float32Array:
        return self._checkpoint.tensor(self._prefix + name, shape)

    def _matrix(self, module: str, inputs: int, outputs: int) -> Float32Array:
        """The weight of a linear module, transposed to ``[in, out]`` (a view)."""
        return self._read(module + ".weight", (outputs, inputs)).T

    def _vector(self, name: str, size: int) -> Float32Array:
        return self._read(name, (size,))

    def _norm(self, module: str) -> dict[str, Float32Array]:
        """Gamma and beta: TensorFlow's names, which converted checkpoints still have."""
        old = f"{self._prefix}{module}.gamma" in self._checkpoint.names()
        names = {"gamma": "gamma", "beta": "beta"} if old else {"gamma": "weight", "beta": "bias"}
        return {key: self._vector(f"{module}.{name}", self.hidden) for key, name in names.items()}
