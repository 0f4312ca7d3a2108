"""Post-norm encoders: how their blocks are cut into slices, and their graphs.

In: a checkpoint of a ``Family``, names with or without its prefix. Out: a ``Model``: float matrices
in the orientation of the graphs, resident tensors, ONNX graphs, and the float reference. Slices
keep the checkpoint's order, in which training ranked them for width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import BlockWeights, KindLayout, Product, TokenBatch
from shard_tools.architectures.encoder import reference
from shard_tools.architectures.encoder.config import read_config
from shard_tools.architectures.encoder.distances import buckets_by_distance
from shard_tools.architectures.encoder.family import Family
from shard_tools.architectures.encoder.tensor_names import (
    EMBEDDING_NORM,
    POSITIONS,
    WORDS,
    encoder_prefix,
)
from shard_tools.architectures.heads.head import Head
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.spec import ATTENTION, FFN, GraphSpec
from sti.arrays import Float32Array
from sti.errors import CheckpointError
from sti.model.manifest import POSITION_BIAS
from sti.pack.parts_check import MOST_TYPES

_LEAST_TYPES = 2
"""Rows of types that packs have: texts of a pair may be told apart."""


class EncoderModel:
    """A checkpoint of an encoder. Reads tensors on demand; not thread-safe."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        family: Family,
        slices: int | None,
        *,
        told: tuple[str, ...] = (),
    ) -> None:
        """Read the configuration and find the task.

        Args:
            checkpoint: stays open as long as the model is used.
            family: the checkpoint's.
            slices: vertical parts of every block; None for one a head.
            told: what was taken for granted to get here.

        Raises:
            CheckpointError: a part is missing or not supported; says what is supported.
        """
        self._checkpoint, self._names = checkpoint, family.tensors
        self._config = read_config(checkpoint, family, slices=slices)
        self._sizes = sizes = self._config.sizes
        self.architecture = family.name
        self.layers, self.slices, self.hidden = sizes.layers, sizes.slices, sizes.hidden
        self.vocabulary = sizes.vocabulary
        first = self._config.first_position
        self.positions = sizes.positions - first
        self.uncounted = None if family.padding is None else first - 1
        self._head_size = sizes.hidden // sizes.heads
        self._prefix = encoder_prefix(checkpoint, family.tensors.prefix)
        self._head = Head(checkpoint, family.heads, prefix=self._prefix, hidden=sizes.hidden)
        self.told = told + self._config.told + self._head.told
        self.task, self.labels = self._head.task, self._head.labels
        self.activation, self.dimension = self._head.activation, self._head.dimension
        # One row for both types would answer pairs as if the model were made for them.
        self.pairs = sizes.types != 1 or not family.typed_pairs
        self.typed_pairs = family.typed_pairs and sizes.types > 1
        self._buckets = None if family.buckets is None else buckets_by_distance(*family.buckets)
        self.kinds: tuple[KindLayout, ...] = (self._attention_layout(), self._ffn_layout())
        self._check_words()

    def _attention_layout(self) -> KindLayout:
        size, heads = self.hidden, self._sizes.heads
        into = [Product(name, size, size, heads, cuts_outputs=True) for name in "qkv"]
        out = Product("o", size, size, heads, cuts_outputs=False)
        sliced = ("q_bias", "v_bias", *(() if self._buckets is None else (POSITION_BIAS,)))
        return KindLayout(ATTENTION, "head", "sequence", (*into, out), sliced)

    def _ffn_layout(self) -> KindLayout:
        up = Product("up", self.hidden, self._sizes.inner, self.slices, cuts_outputs=True)
        down = Product("down", self._sizes.inner, self.hidden, self.slices, cuts_outputs=False)
        return KindLayout(FFN, "neurons", "tokens", (up, down), ("up_bias",))

    def _check_words(self) -> None:
        """Refuse an embedding table of the wrong shape before hours are spent on the rest."""
        name, width = self._prefix + WORDS, self._config.embedding
        shape = self._checkpoint.shape(name)
        if shape != (self.vocabulary, width):
            raise CheckpointError(
                f"{self._checkpoint.directory}: tensor {name!r} has shape {list(shape)}, expected "
                f"{[self.vocabulary, width]} by config.json"
            )
        if width != self.hidden:
            raise CheckpointError(
                f"{self._checkpoint.directory / 'config.json'}: token embeddings of {width} "
                f"numbers for a model of {self.hidden} are not supported; supported: as many"
            )

    def block(self, layer: int, kind: str) -> BlockWeights:
        """One block's tensors; the query is scaled by 1 / sqrt(head size)."""
        base = self._names.layer.format(layer)
        return self._ffn(base) if kind == FFN else self._attention(base)

    def _ffn(self, base: str) -> BlockWeights:
        inner, names = self._sizes.inner, self._names
        up_bias = self._vector(f"{base}{names.up}.bias", inner)
        return BlockWeights(
            {
                "up": self._matrix(base + names.up, self.hidden, inner),
                "down": self._matrix(base + names.down, inner, self.hidden),
            },
            {"up_bias": up_bias.reshape(self.slices, 1, -1)}
            | self._connection(base + names.down, base + names.ffn_norm),
        )

    def _attention(self, base: str) -> BlockWeights:
        names, size = self._names, self.hidden
        root = np.float32(1.0 / np.sqrt(self._head_size))
        modules = {"q": names.query, "k": names.key, "v": names.value, "o": names.output}
        matrices = {
            name: self._matrix(base + module, size, size) for name, module in modules.items()
        }
        matrices["q"] *= root
        heads = (self._sizes.heads, 1, self._head_size)
        query_bias = self._vector(f"{base}{names.query}.bias", size) * root
        vectors = {
            "q_bias": query_bias.reshape(heads),
            "v_bias": self._vector(f"{base}{names.value}.bias", size).reshape(heads),
        }
        if self._buckets is not None and names.distances is not None:
            table = self._read(names.distances, (self._config.bucket_rows, self._sizes.heads))
            vectors[POSITION_BIAS] = np.ascontiguousarray(table[self._buckets].T)[:, None]
        return BlockWeights(
            matrices, vectors | self._connection(base + names.output, base + names.attention_norm)
        )

    def _connection(self, output: str, norm: str) -> dict[str, Float32Array]:
        """Bias and layer norm after a block."""
        return {"bias": self._vector(output + ".bias", self.hidden)} | self._norm(norm)

    def residents(self, max_tokens: int) -> dict[str, NDArray[Any]]:
        """Positions (of ``max_tokens``, float16), types, norm, and the head's tensors."""
        first = self._config.first_position
        positions = self._read(POSITIONS, (self._sizes.positions, self.hidden))
        found: dict[str, NDArray[Any]] = {
            "embed.positions": positions[first : first + max_tokens].astype(np.float16),
            "embed.types": self._types(),
        }
        found |= {f"embed.{name}": vector for name, vector in self._norm(EMBEDDING_NORM).items()}
        return found | self._head.residents()

    def _types(self) -> Float32Array:
        """Embeddings of types of tokens: at least two rows, equal ones where there are not two."""
        if self._names.types is None:
            return np.zeros((_LEAST_TYPES, self.hidden), dtype=np.float32)
        types = self._read(self._names.types, (self._sizes.types, self.hidden))
        return np.repeat(types, _LEAST_TYPES, axis=0) if len(types) == 1 else types[:MOST_TYPES]

    def graph_spec(self, side: Mapping[str, Collection[str]]) -> GraphSpec:
        """What the graphs are made from, with side inputs for the products in ``side``."""
        return GraphSpec(
            hidden=self.hidden,
            head_size=self._head_size,
            neurons=self._sizes.inner // self.slices,
            activation=self._sizes.activation,
            epsilon=self._sizes.epsilon,
            head=self._head.spec(),
            side={kind.name: tuple(side[kind.name]) for kind in self.kinds},
            distances=0 if self._buckets is None else len(self._buckets),
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
            summed, residents["embed.gamma"], residents["embed.beta"], self._sizes.epsilon
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
                kind=self._sizes.activation,
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
            position_bias=vectors.get(POSITION_BIAS),
        )

    def connect(self, summed: Float32Array, vectors: Mapping[str, Float32Array]) -> Float32Array:
        """Bias and layer norm after a block."""
        return reference.layer_norm(
            summed + vectors["bias"], vectors["gamma"], vectors["beta"], self._sizes.epsilon
        )

    def readout(self, hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
        """What the head reads, as ``Head.readout`` has it."""
        return self._head.readout(hidden, lengths)

    def answer(
        self,
        hidden: Float32Array,
        lengths: Sequence[int],
        residents: Mapping[str, Float32Array],
    ) -> Float32Array:
        """What the head answers, as ``Head.answer`` has it."""
        return self._head.answer(hidden, lengths, residents)

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
