"""A back end in NumPy alone: implements ``sti.backend.interface`` as simply as possible.

In: a pack of a BERT model that gives embeddings. Out: what the graphs of the pack would compute, by
their specification (``tests.support.graph_spec``), with weights decoded by theirs
(``sti.codec.decoder``). Keeps a list of what it was asked for. Imports no ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.backend.interface import ResidentTensors
from sti.backend.partial_sums import PartialSums
from sti.backend.resident_inputs import connect_residents, group_residents
from sti.backend.working_buffer import WorkingBuffer, make_buffers
from sti.codec.codebook import Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.pieces import GroupDecoder
from sti.errors import BackendError
from sti.model.manifest import SliceGroup
from tests.support import graph_spec

EPSILON = 1e-12
"""Of the checkpoints that tests make."""
PADDING_MASK = -10000.0


class NumpyState:
    """A ``SentenceState``."""

    def __init__(
        self,
        backend: NumpyBackend,
        embeddings: Float32Array,
        types: Int64Array,
        lengths: Sequence[int],
    ) -> None:
        self._backend = backend
        self._source = backend.residents
        present = np.arange(embeddings.shape[1]) < np.asarray(lengths)[:, None]
        self._tokens = present.astype(np.float32)
        self._mask = np.where(present, 0.0, PADDING_MASK)[:, None, :]
        feeds = {name: self._source.resident(f"embed.{name}") for name in backend.embed_names}
        feeds |= {"words": embeddings, "type_ids": types}
        self._hidden = graph_spec.embed(feeds, epsilon=EPSILON).astype(np.float32)
        self._sums = PartialSums(lambda _: np.empty_like(self._hidden))
        self._total = np.zeros_like(self._hidden)

    def step(self, group: SliceGroup, width: int, *, connects: bool, buffer: int = 0) -> None:
        self._backend.note("step", group.layer, group.kind)
        if group.number == 0:
            self._sums.clear()
        kind = self._source.manifest.kind(group.kind)
        weights = self._backend.buffers[group.kind][buffer].operands
        feeds: dict[str, Any] = group_residents(self._source, kind, group, width)
        for operand, array in zip(kind.operands, weights, strict=True):
            feeds[operand.name] = array[:width].reshape(-1, *operand.shape[-2:])
        feeds["h"] = self._hidden
        if group.kind == "attention":
            feeds["mask"] = self._mask
            found = graph_spec.attention(feeds, exact=True)
        else:
            found = graph_spec.ffn(feeds, activation="gelu", exact=True)
        self._sums.add(found.astype(np.float32))
        if connects:
            self._total = self._sums.total()
            self.connect(group.layer, group.kind)

    def connect(self, layer: int, kind: str) -> None:
        self._backend.note("connect", layer, kind)
        feeds = connect_residents(self._source, layer, kind)
        feeds |= {"partial": self._total, "residual": self._hidden}
        self._hidden = graph_spec.connect(feeds, epsilon=EPSILON).astype(np.float32)

    def finish(self) -> Float32Array:
        pooled = graph_spec.mean_pool({"h": self._hidden, "tokens": self._tokens})
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / length, dtype=np.float32)

    def hidden(self) -> Float32Array:
        return self._hidden.copy()

    def set_hidden(self, values: Float32Array) -> None:
        if values.shape != self._hidden.shape:
            raise BackendError(f"of another shape: {values.shape}")
        self._hidden = values.copy()


class NumpyBackend:
    """A ``Backend`` for packs of embeddings.

    Attributes:
        asked: what states were asked for, in order: what, layer, block kind.
    """

    embed_names = ("positions", "types", "gamma", "beta")
    threads = 1

    def __init__(self, residents: ResidentTensors) -> None:
        self.residents = residents
        self.asked: list[tuple[str, int, str]] = []
        self._decoder = NumpyDecoder(Codebook.from_json(residents.manifest.codebook))
        self._buffers: dict[str, tuple[WorkingBuffer, ...]] = {}

    def note(self, what: str, layer: int, kind: str) -> None:
        """Remember that a state was asked for this; tests let it fail."""
        self.asked.append((what, layer, kind))

    @property
    def buffers(self) -> Mapping[str, Sequence[WorkingBuffer]]:
        if not self._buffers:
            self._buffers = make_buffers(self.residents.manifest, np.int8)
        return self._buffers

    def prepare(self) -> None:
        self.residents.resident("embed.gamma")

    @property
    def decoder(self) -> GroupDecoder:
        return self._decoder

    def embedding_buffer(self, batch: int, tokens: int) -> Float32Array:
        shape = (batch, tokens, self.residents.manifest.dimensions.hidden)
        return np.empty(shape, dtype=np.float32)

    def start(
        self,
        embeddings: Float32Array,
        types: Int64Array,
        lengths: Sequence[int],
        *,
        place: int | None = None,
    ) -> NumpyState:
        return NumpyState(self, embeddings, types, lengths)

    def close(self) -> None:
        self._buffers = {}
