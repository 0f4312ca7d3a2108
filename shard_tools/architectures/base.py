"""The interface between an architecture and the tools that quantize, rank and write packs.

An architecture knows tensor names, shapes and arithmetic of one family of checkpoints; quantization
and packing know only these types. All matrices are ``[in, out]``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shard_tools.graphs.spec import GraphSpec
from sti.arrays import Float32Array


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product of a block: an operand of its shards.

    The matrix is cut into ``parts`` equal parts, which form the operand of all slices,
    ``[parts, in, out]``: along the outputs if ``cuts_outputs``, else along the inputs.
    """

    name: str
    rows: int
    columns: int
    parts: int
    cuts_outputs: bool

    @property
    def part_shape(self) -> tuple[int, int]:
        """``[in, out]`` of one part."""
        if self.cuts_outputs:
            return self.rows, self.columns // self.parts
        return self.rows // self.parts, self.columns

    def split(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """``[in, out]`` -> ``[parts, part in, part out]``, a view where the cut allows it."""
        rows, columns = self.part_shape
        if self.cuts_outputs:
            return matrix.reshape(self.rows, self.parts, columns).transpose(1, 0, 2)
        return matrix.reshape(self.parts, rows, columns)

    def split_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """``[k, out]`` beside a matrix cut along its outputs -> ``[parts, k, part out]``."""
        return rows.reshape(len(rows), self.parts, self.part_shape[1]).transpose(1, 0, 2)


@dataclass(frozen=True, slots=True)
class KindLayout:
    """What all blocks of one kind share."""

    name: str
    slice_unit: str
    input_kind: str
    products: tuple[Product, ...]
    """In the order in which a shard stores their weights."""
    sliced: tuple[str, ...]
    """Vectors ``[parts, ...]`` cut to the width, besides the scales of the products."""


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """The float tensors of one block."""

    matrices: Mapping[str, Float32Array]
    """Product name to ``[in, out]``."""
    vectors: Mapping[str, Float32Array]
    """Resident inputs of the block's graph and of the ``connect`` graph after it."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Sentences end to end. ``ids``, ``type_ids``, ``positions``: int64 ``[T]``."""

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    lengths: tuple[int, ...]


class Model(Protocol):
    """A checkpoint as its architecture reads it. Not thread-safe."""

    architecture: str
    task: str
    labels: tuple[str, ...]
    activation: str
    """Of a regression's values: ``sigmoid``, or nothing."""
    dimension: int
    """Numbers of an embedding; 0 for other tasks."""
    pairs: bool
    """Whether two texts may be read together: it can tell them apart by type, or need not."""
    typed_pairs: bool
    """Whether it does tell them apart by type."""
    layers: int
    slices: int
    hidden: int
    vocabulary: int
    positions: int
    """Tokens that a text may have."""
    uncounted: int | None
    """The padding token, if the family counts positions without it; None: it counts all tokens."""
    kinds: tuple[KindLayout, ...]
    """In the order of execution inside a layer."""
    told: tuple[str, ...]
    """What was taken for granted, a sentence each, for whoever makes a pack of it."""

    def block(self, layer: int, kind: str) -> BlockWeights:
        """Read one block's tensors."""
        ...

    def residents(self, max_tokens: int) -> dict[str, NDArray[Any]]:
        """Inputs of the ``embed`` and ``head`` graphs, by tensor name in the pack."""
        ...

    def graph_spec(self, side: Mapping[str, Collection[str]]) -> GraphSpec:
        """What the graphs are made from.

        Args:
            side: for each kind, the products with side inputs.
        """
        ...

    def token_rows(self, start: int, stop: int) -> Float32Array:
        """Token embeddings ``start`` to ``stop``, new ``[stop - start, hidden]``."""
        ...

    def embed(self, batch: TokenBatch, residents: Mapping[str, Float32Array]) -> Float32Array:
        """Float reference: hidden states ``[T, hidden]`` before the first block."""
        ...

    def contributions(
        self,
        kind: str,
        hidden: Float32Array,
        lengths: Sequence[int],
        operands: Mapping[str, Float32Array],
        vectors: Mapping[str, Float32Array],
    ) -> Float32Array:
        """Float reference: what each part adds to a block's sum, ``[parts, T, hidden]``.

        ``operands`` are ``[parts, in, out]``; bias and residual are added by ``connect``.
        """
        ...

    def connect(self, summed: Float32Array, vectors: Mapping[str, Float32Array]) -> Float32Array:
        """Float reference: hidden states from residual plus partial sum (without bias)."""
        ...

    def readout(self, hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
        """Float reference: what the head reads of the last hidden states, a row a text or token.

        Of hidden states pooled in several ways, each row has as many of them side by side.
        """
        ...

    def answer(
        self,
        hidden: Float32Array,
        lengths: Sequence[int],
        residents: Mapping[str, Float32Array],
    ) -> Float32Array:
        """Float reference: embeddings ``[n, dimension]``, or logits of texts or tokens."""
        ...


def cuts(total: int, step: int) -> Iterator[tuple[int, int]]:
    """``(start, stop)`` of consecutive ranges of at most ``step`` items out of ``total``."""
    for start in range(0, total, step):
        yield start, min(total, start + step)
