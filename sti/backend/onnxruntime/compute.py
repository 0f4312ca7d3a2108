"""The back end on ONNX Runtime: a pack's graphs, ready to compute.

In: a pack's graphs and resident tensors, decoded weights in working buffers, a group's token
embeddings. Out: hidden states and the head's answer. One session per graph, made once; every input
is bound to memory that is already there, so that a run copies no weights and allocates nothing of
their size. Knows nothing of texts, storage, fidelities or lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.block_inputs import BlockInputs
from sti.backend.onnxruntime.graph_sessions import GraphSessions
from sti.backend.onnxruntime.hidden_memory import HiddenMemory
from sti.backend.onnxruntime.session import ort_value
from sti.backend.partial_sums import PartialSums
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.codebook import Codebook
from sti.codec.decoders import make_decoder
from sti.codec.pieces import GroupDecoder
from sti.errors import BackendError
from sti.model.manifest import SliceGroup

PADDING_MASK = -10000.0
"""Added to the attention score of a padding token; finite, so that no row becomes NaN."""


class OrtBackend:
    """A pack's graphs, ready to compute (``sti.backend.interface.Backend``).

    Args:
        residents: the opened pack; its resident arrays are used in place and must stay open.
        threads: compute threads of each session.
        unsigned: use the graphs with unsigned weights; None lets a self-test product decide
            whether this processor multiplies u8 by s8 exactly (x86 without VNNI does not).

    Attributes:
        threads: as given.
        unsigned: whether the graphs with unsigned weights are in use.

    Raises:
        BackendError: ONNX Runtime refuses the self-test.
    """

    def __init__(
        self, residents: ResidentTensors, *, threads: int, unsigned: bool | None = None
    ) -> None:
        self._manifest = residents.manifest
        self._sessions = GraphSessions(residents, threads=threads, unsigned=unsigned)
        self.threads = threads
        self.unsigned = self._sessions.unsigned
        codebook = Codebook.from_json(self._manifest.codebook)
        self._decoder = make_decoder(codebook, unsigned=self.unsigned)
        self._inputs = BlockInputs(residents, self._decoder.dtype)
        self._memory = HiddenMemory()

    def prepare(self) -> None:
        """Make the sessions that every run needs."""
        self._sessions.prepare()

    @property
    def buffers(self) -> Mapping[str, Sequence[WorkingBuffer]]:
        """Working buffers by block kind."""
        return self._inputs.buffers

    @property
    def decoder(self) -> GroupDecoder:
        """What fills the buffers, safe to share between threads."""
        return self._decoder

    def embedding_buffer(self, batch: int, tokens: int) -> Float32Array:
        """Where the token embeddings of a group go, ``[batch, tokens, hidden]``."""
        return self._memory.embeddings((batch, tokens, self._manifest.dimensions.hidden))

    def start(
        self,
        embeddings: Float32Array,
        types: Int64Array,
        lengths: Sequence[int],
        *,
        place: int | None = None,
    ) -> OrtSentenceState:
        """Embed a group of sentences."""
        shape = embeddings.shape
        hidden = self._memory.hidden(place, shape)
        sums = PartialSums(lambda number: self._memory.partial(place, number, shape))
        state = OrtSentenceState(self._sessions, self._inputs, embeddings, hidden, sums, lengths)
        state.embed(types)
        return state

    def close(self) -> None:
        """Give back sessions and buffers. Idempotent."""
        self._sessions.close()
        self._inputs.close()
        self._memory.close()


class OrtSentenceState:
    """A group of sentences on its way (``sti.backend.interface.SentenceState``).

    Args:
        sessions: the pack's.
        inputs: what its graphs are fed besides.
        embeddings: token embeddings, ``[B, S, hidden]``; their memory is used for the sums of
            blocks of a single slice group.
        hidden: memory for the hidden states, ``[B, S, hidden]``.
        sums: adds the groups of other blocks.
        lengths: tokens of each sentence.
    """

    __slots__ = (
        "_array",
        "_hidden",
        "_inputs",
        "_mask",
        "_present",
        "_sessions",
        "_single",
        "_sums",
        "_total",
        "_values",
    )

    def __init__(
        self,
        sessions: GraphSessions,
        inputs: BlockInputs,
        embeddings: Float32Array,
        hidden: Float32Array,
        sums: PartialSums,
        lengths: Sequence[int],
    ) -> None:
        tokens = embeddings.shape[1]
        self._sessions, self._inputs = sessions, inputs
        # [B, S]: 1 for a token, 0 for padding.
        self._present = (np.arange(tokens) < np.asarray(lengths)[:, None]).astype(np.float32)
        # [B, 1, S]; None where no sentence is padded.
        self._mask = None
        if min(lengths) < tokens:
            mask = (self._present[:, None, :] - 1.0) * np.float32(-PADDING_MASK)
            self._mask = ort_value(mask)
        self._array = hidden
        self._hidden, self._single = ort_value(hidden), ort_value(embeddings)
        self._total, self._sums = self._single, sums
        self._values: dict[int, Any] = {}

    def embed(self, types: Int64Array) -> None:
        """Make the hidden states in front of the first block from the token embeddings."""
        graph = self._sessions.graph("embed")
        self._inputs.bind_end(graph, "embed")
        graph.bind("words", self._single)
        graph.bind("type_ids", ort_value(types))
        graph.bind_output(self._hidden)
        graph.run()

    def step(self, group: SliceGroup, width: int, *, connects: bool, buffer: int = 0) -> None:
        """Compute a slice group, and with the last one of a block its ``connect``."""
        if group.number == 0:
            self._sums.clear()  # a block that failed may have left some
        graph = self._sessions.graph(group.kind, masked=self._mask is not None)
        self._inputs.bind_group(graph, group, width, buffer=buffer)
        if self._mask is not None and "mask" in graph.inputs:
            graph.bind("mask", self._mask)
        graph.bind("h", self._hidden)
        alone = connects and group.number == 0
        graph.bind_output(self._single if alone else self._value(self._sums.room()))
        graph.run()
        if not alone:
            self._sums.push()
        if connects:
            self._total = self._single if alone else self._value(self._sums.total())
            self.connect(group.layer, group.kind)

    def _value(self, array: Float32Array) -> Any:
        """The OrtValue of one of the arrays that sums are made in."""
        if id(array) not in self._values:
            self._values[id(array)] = ort_value(array)
        return self._values[id(array)]

    def connect(self, layer: int, kind: str) -> None:
        """Add bias and residual to the sum of the block that was computed last, and normalize."""
        graph = self._sessions.graph("connect")
        self._inputs.bind_connect(graph, layer, kind)
        graph.bind("partial", self._total)
        graph.bind("residual", self._hidden)
        # In place: the graph reads the residual before it writes, node after node.
        graph.bind_output(self._hidden)
        graph.run()

    def finish(self) -> Float32Array:
        """The head's answer; a new array."""
        graph = self._sessions.graph("head")
        self._inputs.bind_end(graph, "head")
        graph.bind("h", self._hidden)
        if "tokens" in graph.inputs:
            graph.bind("tokens", ort_value(self._present))
        return graph.run_to_new()

    def hidden(self) -> Float32Array:
        """The hidden states; a new array."""
        return self._array.copy()

    def set_hidden(self, values: Float32Array) -> None:
        """Go on from other hidden states; copied."""
        if values.shape != self._array.shape:
            raise BackendError(
                f"hidden states of a group are of shape {self._array.shape}; found {values.shape}"
            )
        np.copyto(self._array, values)
