"""A back end in NumPy alone: implements ``sti.backend.interface`` as simply as possible.

In: a pack of a BERT model that gives embeddings. Out: what the graphs of the pack would compute, by
their specification (``tests.support.graph_spec``), with weights decoded by theirs
(``sti.codec.decoder``). Keeps a list of what it was asked for. Imports no ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.backend.interface import ResidentTensors
from sti.backend.partial_sums import PartialSums
from sti.backend.resident_inputs import connect_residents, group_residents
from sti.backend.token_distances import token_distances
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.codebook import Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.pieces import GroupDecoder
from sti.errors import BackendError
from sti.model.decoded_size import largest_group_bytes
from sti.model.manifest import SliceGroup
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.plan import EXACT, NARROW
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
        self._mask = np.where(present, 0.0, PADDING_MASK)[:, None, None, :]
        feeds = {name: self._source.resident(f"embed.{name}") for name in backend.embed_names}
        feeds |= {"words": embeddings, "type_ids": types}
        self._hidden = graph_spec.embed(feeds, epsilon=EPSILON).astype(np.float32)
        self._sums = PartialSums(lambda _: np.empty_like(self._hidden))
        self._total: Float32Array | None = None

    def step(
        self,
        group: SliceGroup,
        width: int,
        *,
        variant: str = EXACT,
        buffer: int = 0,
        lane: int = 0,
        share: Share = WHOLE,
    ) -> None:
        assert 0 <= lane < self._backend.lanes
        self._backend.note("step", group.layer, group.kind)
        kind = self._source.manifest.kind(group.kind)
        dtype = self._backend.decoder(variant).dtype
        rooms = self._backend.buffer(buffer).operands(kind, width, dtype)
        feeds: dict[str, Any] = group_residents(self._source, kind, group, width)
        for operand, found in zip(kind.operands, rooms, strict=True):
            feeds[operand.name] = found.matrix
        feeds |= {"h": self._hidden, **graph_spec.quantized_input(self._hidden)}
        unit, (first, last) = 2 if variant == NARROW else 1, share.tokens(len(self._hidden))
        room = self._sums.room(group.number)
        own = graph_spec.own_tokens(feeds, first, last)
        if first == last:
            pass
        elif group.kind == "attention":
            feeds |= {"mask": self._mask, **own}
            if kind.by_distance:
                reach = feeds["position_bias"].size // width // 2
                apart = token_distances(len(self._hidden), reach)
                feeds["distances"] = apart[first:last]
            head = kind.operands[0].shape[-1]
            room[first:last] = graph_spec.attention(feeds, head=head, exact=True, unit=unit)
        else:
            feeds |= {name.removeprefix("own_"): rows for name, rows in own.items()}
            room[first:last] = graph_spec.ffn(feeds, activation="gelu", exact=True, unit=unit)
        self._sums.add(group.number, shares=share.of)

    def connect(self, layer: int, kind: str) -> None:
        self._backend.note("connect", layer, kind)
        if self._sums:
            self._total = self._sums.total()
        if self._total is None:
            raise BackendError("no step was computed")
        feeds = connect_residents(self._source, layer, kind)
        feeds |= {"partial": self._total, "residual": self._hidden}
        self._hidden = graph_spec.connect(feeds, epsilon=EPSILON).astype(np.float32)

    def finish(self) -> Float32Array:
        pooled = graph_spec.mean_pool({"h": self._hidden, "tokens": self._tokens})
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / length, dtype=np.float32)

    def hidden(self) -> Float32Array:
        return self._hidden.swapaxes(0, 1).copy()

    def set_hidden(self, values: Float32Array) -> None:
        if values.swapaxes(0, 1).shape != self._hidden.shape:
            raise BackendError(f"of another shape: {values.shape}")
        self._sums.clear()
        self._hidden = values.swapaxes(0, 1).copy()


class NumpyBackend:
    """A ``Backend`` for packs of embeddings.

    Args:
        residents: the pack.
        lanes: threads that may compute at once.

    Attributes:
        asked: what states were asked for, in order: what, layer, block kind.
    """

    embed_names = ("positions", "types", "gamma", "beta")
    variants = (EXACT,)

    def __init__(self, residents: ResidentTensors, *, lanes: int = 1) -> None:
        self.residents = residents
        self.lanes = lanes
        self.asked: list[tuple[str, int, str]] = []
        book = Codebook.from_json(residents.manifest.codebook)
        self._decoders: dict[str, GroupDecoder] = {
            EXACT: NumpyDecoder(book),
            NARROW: NumpyDecoder(book, weights="s7"),
        }
        self._buffers: dict[int, WorkingBuffer] = {}

    def note(self, what: str, layer: int, kind: str) -> None:
        """Remember that a state was asked for this; tests let it fail."""
        self.asked.append((what, layer, kind))

    def buffer(self, number: int) -> WorkingBuffer:
        size = largest_group_bytes(self.residents.manifest)
        return self._buffers.setdefault(number, WorkingBuffer(size))

    def prepare(self, variants: Collection[str] = (EXACT,)) -> None:
        self.residents.resident("embed.gamma")

    def decoder(self, variant: str) -> GroupDecoder:
        return self._decoders[variant]

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

    def resume(
        self, hidden: Float32Array, lengths: Sequence[int], *, place: int | None = None
    ) -> NumpyState:
        types = np.zeros(hidden.shape[:2], np.int64)
        state = NumpyState(self, hidden, types, lengths)
        state.set_hidden(hidden)
        return state

    def release_states(self) -> None:
        self.asked.append(("release_states", 0, ""))

    def close(self) -> None:
        self._buffers = {}
