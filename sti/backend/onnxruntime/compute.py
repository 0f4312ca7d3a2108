"""The back end on ONNX Runtime: a pack's graphs, ready to compute.

In: a pack's graphs and resident tensors, decoded weights in working buffers, a group's token
embeddings. Out: hidden states and the head's answer. One session per graph, made once; every input
is bound to memory that is already there, so that a run copies no weights and allocates nothing of
their size. Knows nothing of texts, storage, fidelities or lanes of a run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.block_inputs import BlockInputs, StepInputs
from sti.backend.onnxruntime.graph_sessions import GraphSessions
from sti.backend.onnxruntime.hidden_memory import (
    HIDDEN_INPUTS,
    HIDDEN_OUTPUTS,
    MASK,
    HiddenMemory,
    StateMemory,
)
from sti.backend.onnxruntime.session import Graph, ort_value
from sti.backend.partial_sums import PartialSums
from sti.backend.quantized import quantize_tokens
from sti.backend.token_distances import reach_of, token_distances
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.codebook import Codebook
from sti.codec.decoders import make_decoder
from sti.codec.pieces import GroupDecoder
from sti.errors import BackendError
from sti.model.manifest import DISTANCES, Manifest, SliceGroup
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.plan import EXACT, NARROW

PADDING_MASK = -10000.0
"""Added to the attention score of a padding token; finite, so that no row becomes NaN."""


class OrtBackend:
    """A pack's graphs, ready to compute (``sti.backend.interface.Backend``).

    Args:
        residents: the opened pack; its resident arrays are used in place and must stay open.
        lanes: threads that may compute steps at once.
        threads: threads of each product: for measuring, which computes in one lane.
        saturates: whether this processor's product of u8 by s8 overflows where it is large; None
            lets a self-test product decide (it does on x86 without VNNI).

    Attributes:
        lanes: as given.
        saturates: as given or found.
        variants: how products may be computed.
        forms: how weights are written for them; graphs are named after it.

    Raises:
        BackendError: ONNX Runtime refuses the self-test.
        ValueError: several lanes and several threads: a session serves one caller at a time then.
    """

    def __init__(
        self,
        residents: ResidentTensors,
        *,
        lanes: int,
        threads: int = 1,
        saturates: bool | None = None,
    ) -> None:
        if lanes > 1 and threads > 1:
            raise ValueError(f"{lanes} lanes of {threads} threads: one of them must be 1")
        self._manifest = residents.manifest
        self._sessions = GraphSessions(residents, threads=threads, saturates=saturates)
        self.lanes = lanes
        self.saturates = self._sessions.saturates
        self.variants = (EXACT, NARROW) if self.saturates else (EXACT,)
        self.forms = {self._sessions.weights[variant] for variant in self.variants}
        self._decoders: dict[str, GroupDecoder] = {}
        self._inputs = BlockInputs(residents, self._sessions)
        self._memory = HiddenMemory(self._inputs.unbind)
        self._reach = reach_of(residents)

    def prepare(self, variants: Collection[str] = (EXACT,)) -> None:
        """Make the sessions that every run of these variants needs."""
        self._sessions.prepare(variants)

    def buffer(self, number: int) -> WorkingBuffer:
        """A working buffer, large enough for any slice group."""
        return self._inputs.buffer(number)

    def decoder(self, variant: str) -> GroupDecoder:
        """What fills working buffers for a variant, safe to share between threads."""
        found = self._decoders.get(variant)
        if found is None:
            codebook = Codebook.from_json(self._manifest.codebook)
            made = make_decoder(codebook, weights=self._sessions.weights[variant])
            found = self._decoders.setdefault(variant, made)
        return found

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
        state = self._state(embeddings, lengths, place)
        state.embed(embeddings, types)
        return state

    def resume(
        self, hidden: Float32Array, lengths: Sequence[int], *, place: int | None = None
    ) -> OrtSentenceState:
        """Go on with a group of sentences that was embedded elsewhere."""
        state = self._state(hidden, lengths, place)
        state.set_hidden(hidden)
        return state

    def _state(
        self, like: Float32Array, lengths: Sequence[int], place: int | None
    ) -> OrtSentenceState:
        """A state for ``[B, S, hidden]``, without hidden states."""
        batch, tokens, hidden = like.shape
        memory = self._memory.state(place, (tokens, batch, hidden))
        due = answer_shape(self._manifest, batch, tokens)
        return OrtSentenceState(self._inputs, memory, lengths, due, reach=self._reach)

    def release_states(self) -> None:
        """Give back the memory of hidden states and token embeddings. Idempotent."""
        self._memory.close()

    def close(self) -> None:
        """Give back sessions and buffers. Idempotent."""
        self._sessions.close()
        self._inputs.close()
        self._memory.close()


def answer_shape(manifest: Manifest, batch: int, tokens: int) -> tuple[int, ...]:
    """The shape of a head's answer for a group of sentences."""
    if manifest.task == "embedding":
        return batch, manifest.embedding_size
    labels = len(manifest.labels)
    return (batch, tokens, labels) if manifest.task == "tagging" else (batch, labels)


class OrtSentenceState:
    """A group of sentences on its way (``sti.backend.interface.SentenceState``).

    Args:
        inputs: makes the pack's graphs ready.
        memory: for the hidden states.
        lengths: tokens of each sentence.
        due: the shape of the head's answer.
        reach: the largest distance that attention tells apart; None where it knows none.
    """

    __slots__ = (
        "_distances",
        "_distances_of",
        "_due",
        "_inputs",
        "_mask",
        "_memory",
        "_present",
        "_sums",
        "_total",
    )

    def __init__(
        self,
        inputs: BlockInputs,
        memory: StateMemory,
        lengths: Sequence[int],
        due: tuple[int, ...],
        *,
        reach: int | None,
    ) -> None:
        tokens = memory.shape[0]
        self._inputs, self._memory, self._due = inputs, memory, due
        # [B, S]: 1 for a token, 0 for padding.
        self._present = (np.arange(tokens) < np.asarray(lengths)[:, None]).astype(np.float32)
        # [B, 1, 1, S]; None where no sentence is padded.
        self._mask = None
        if min(lengths) < tokens:
            mask = (self._present[:, None, None, :] - 1.0) * np.float32(-PADDING_MASK)
            self._mask = ort_value(mask)
        self._distances = None if reach is None else token_distances(tokens, reach)
        self._distances_of: dict[tuple[int, int], Any] = {}
        self._sums = PartialSums(memory.partial)
        self._total: Float32Array | None = None

    def embed(self, embeddings: Float32Array, types: Int64Array) -> None:
        """Make the hidden states in front of the first block from the token embeddings."""
        graph = self._inputs.end("embed")
        graph.bind("words", ort_value(embeddings))
        graph.bind("type_ids", ort_value(types))
        graph.bind_output("h", self._memory.hidden.value)
        graph.bind_output("xq", self._memory.values.value)
        graph.bind_output("xs", self._memory.scales.value)
        graph.run()

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
        """Compute a share of a slice group, and keep its partial sum."""
        memory = self._memory
        first, last = share.tokens(memory.shape[0])
        partial = self._sums.room(group.number)
        if first < last:
            masked = self._mask is not None
            graph = self._inputs.block(StepInputs(group, width, variant, masked, buffer, lane))
            own, every = memory.rows(first, last), memory.rows(0, memory.shape[0])
            for name, rows in (("own_", own), ("", every if "own_xq" in graph.inputs else own)):
                for item, value in zip(("h", "xq", "xs"), rows, strict=True):
                    if name + item in graph.inputs:
                        graph.bind(name + item, value)
            if MASK in graph.inputs:
                graph.bind(MASK, self._mask)
            if DISTANCES in graph.inputs:
                graph.bind(DISTANCES, self._apart(first, last))
            graph.bind_output("partial", memory.value(partial, first, last))
            graph.run()
        self._sums.add(group.number, shares=share.of)

    def connect(self, layer: int, kind: str) -> None:
        """Add bias and residual to the sum of a block, and normalize."""
        if self._sums:
            self._total = self._sums.total()
        if self._total is None:
            raise BackendError(f"layer {layer} {kind}: no slice group was computed")
        graph = self._inputs.connect(layer, kind)
        graph.bind("partial", self._memory.value(self._total))
        graph.bind("residual", self._memory.hidden.value)
        # In place: the graph reads the residual before it writes, node after node.
        graph.bind_output("h", self._memory.hidden.value)
        graph.bind_output("xq", self._memory.values.value)
        graph.bind_output("xs", self._memory.scales.value)
        graph.run()

    def run_blocks(self, graph: Graph) -> None:
        """Compute all blocks at once, by a graph that ``joined_graph`` wrote; in place."""
        memory, graph = self._memory, graph.another()  # bindings would outlive this memory
        hidden = (memory.hidden.value, memory.values.value, memory.scales.value)
        for before, after, value in zip(HIDDEN_INPUTS, HIDDEN_OUTPUTS, hidden, strict=True):
            # In place: everything that reads the input comes before what writes the output.
            graph.bind(before, value)
            graph.bind_output(after, value)
        if MASK in graph.inputs:
            mask = self._mask
            if mask is None:
                mask = ort_value(np.zeros_like(self._present[:, None, None, :]))
            graph.bind(MASK, mask)
        if DISTANCES in graph.inputs:
            graph.bind(DISTANCES, self._apart(0, memory.shape[0]))
        graph.run()

    def _apart(self, first: int, last: int) -> Any:
        """How far all tokens are from tokens ``first`` to ``last - 1``, as an OrtValue."""
        found = self._distances_of.get((first, last))
        if found is None:
            if self._distances is None:
                raise BackendError("a graph takes distances of tokens, and the pack has none")
            made = ort_value(self._distances[first:last])
            found = self._distances_of.setdefault((first, last), made)
        return found

    def finish(self) -> Float32Array:
        """The head's answer; a new array."""
        graph = self._inputs.end("head")
        graph.bind("h", self._memory.hidden.value)
        if "tokens" in graph.inputs:
            graph.bind("tokens", ort_value(self._present))
        answer = graph.run_to_new()
        if answer.shape != self._due:
            raise BackendError(
                f"graph 'head' answers {list(answer.shape)}, and {list(self._due)} is due; rebuild "
                "or fetch the pack again"
            )
        return answer

    def hidden(self) -> Float32Array:
        """The hidden states; a new array."""
        return self._memory.hidden.array.swapaxes(0, 1).copy()

    def set_hidden(self, values: Float32Array) -> None:
        """Go on from other hidden states; copied."""
        memory, (tokens, batch, hidden) = self._memory, self._memory.shape
        if values.shape != (batch, tokens, hidden):
            raise BackendError(
                f"hidden states of a group are of shape {(batch, tokens, hidden)}; "
                f"found {values.shape}"
            )
        self._sums.clear()
        np.copyto(memory.hidden.array, values.swapaxes(0, 1))
        quantize_tokens(memory.hidden.array, memory.values.array, memory.scales.array)
