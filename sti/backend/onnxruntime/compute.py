"""A pack's graphs, ready to compute.

In: a pack's graphs and resident tensors, decoded weights in working buffers, a group's tokens.
Out: hidden states and the head's answer. One session a graph, made once; every input is bound to
memory that is already there, so that a run copies no weights and allocates nothing of their size.
Knows nothing of files, fidelities, plans or lanes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array
from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.session import Graph, ort_value, saturates, session_options
from sti.backend.weight_buffer import WorkingBuffer
from sti.model.fidelity import working_buffers
from sti.model.manifest import BlockKind
from sti.model.workload import Workload

PADDING_MASK = -10000.0
"""Added to the attention score of a padding token; finite, so that no row becomes NaN."""


@dataclass(slots=True)
class GroupState:
    """The hidden states of one group of sentences, and what its graphs are fed.

    ``hidden`` and ``partial`` are ``[B, S, d]``; groups share the memory of ``partial``.
    """

    workload: Workload
    mask: Any | None
    """``[B, 1, S]``; None where no sentence is padded."""
    tokens: Float32Array
    """``[B, S]``: 1 for a token, 0 for padding."""
    hidden: Any
    partial: Any


class Backend:
    """A pack's graphs, ready to compute. Not thread-safe: one run at a time.

    Args:
        residents: the opened pack; its resident arrays are used in place and must stay open.
        threads: compute threads of each session.
        unsigned: use the graphs with unsigned weights; None lets a self-test product decide
            whether this processor multiplies u8 by s8 exactly (x86 without VNNI does not).
    """

    def __init__(
        self, residents: ResidentTensors, *, threads: int, unsigned: bool | None = None
    ) -> None:
        self._source = residents
        self._manifest = residents.manifest
        self._options = session_options(threads)
        self.threads = threads
        self.unsigned = saturates(self._options) if unsigned is None else unsigned
        self.weight_type: type[np.int8] | type[np.uint8] = np.uint8 if self.unsigned else np.int8
        self._graphs: dict[str, Graph] = {}
        self._buffers: dict[str, tuple[WorkingBuffer, ...]] = {}
        self._operands: dict[tuple[str, int, int], dict[str, Any]] = {}
        # Arrays, not OrtValues, which take some 500 bytes each: every layer has twenty of them.
        self._residents: dict[tuple[int, str, int], dict[str, NDArray[Any]]] = {}
        self._fixed: dict[str, dict[str, Any]] = {}
        self._room: Float32Array = np.empty(0, dtype=np.float32)
        self._states: list[Float32Array] = []

    def prepare(self) -> None:
        """Make the sessions a run needs; those that are not made here are made on first use."""
        for name in ("embed", "connect", "head", *(kind.name for kind in self._manifest.kinds)):
            self._graph(name)

    @property
    def buffers(self) -> Mapping[str, tuple[WorkingBuffer, ...]]:
        """Working buffers by block kind."""
        if not self._buffers:
            slices, counts = self._manifest.dimensions.slices, working_buffers(self._manifest)
            for kind in self._manifest.kinds:
                shapes = [operand.shape for operand in kind.operands]
                self._buffers[kind.name] = tuple(
                    WorkingBuffer(shapes, slices, self.weight_type)
                    for _ in range(counts[kind.name])
                )
        return self._buffers

    def embedding_buffer(self, batch: int, tokens: int) -> Float32Array:
        """Where the token embeddings of a group go, ``[batch, tokens, hidden]``, for ``start``.

        Groups run one after the other, so all of them share this memory: first for the words, then
        for the partial sums of every block.
        """
        size = batch * tokens * self._manifest.dimensions.hidden
        if self._room.size < size:
            self._room = np.empty(size, dtype=np.float32)
        return self._room[:size].reshape(batch, tokens, -1)

    def start(
        self,
        words: Float32Array,
        types: NDArray[np.int64],
        lengths: Sequence[int],
        *,
        place: int | None = None,
    ) -> GroupState:
        """Embed a group of sentences.

        Args:
            place: number of the group among those of a run: each number has its own memory for
                hidden states, which the next ``start`` with it takes over; None: new memory.
            words: token embeddings in the memory that ``embedding_buffer`` gave; taken over for
            partial sums.
            types: token type of each token, ``[B, S]``.
            lengths: tokens of each sentence; those beyond are padding.
        """
        batch, tokens, _ = words.shape
        present = (np.arange(tokens) < np.asarray(lengths)[:, None]).astype(np.float32)
        mask = None
        if min(lengths) < tokens:
            mask = ort_value((present[:, None, :] - 1.0) * np.float32(-PADDING_MASK))
        state = GroupState(
            workload=Workload(batch, tokens),
            mask=mask,
            tokens=present,
            hidden=ort_value(self._state_room(place, words.shape)),
            partial=ort_value(words),
        )
        graph = self._graph("embed")
        self._bind_fixed(graph, "embed")
        graph.bind("words", state.partial)
        graph.bind("type_ids", ort_value(types))
        graph.bind_output(state.hidden)
        graph.run()
        return state

    def block(
        self, state: GroupState, layer: int, kind_name: str, width: int, *, buffer: int = 0
    ) -> None:
        """Run one block and its ``connect`` on the weights in a working buffer of its kind."""
        kind = self._manifest.kind(kind_name)
        graph = self._graph(kind_name, masked=state.mask is not None)
        for name, array in self._resident_inputs(layer, kind, width).items():
            graph.bind_array(name, array)
        for name, value in self._operand_inputs(kind, width, buffer).items():
            graph.bind(name, value)
        if state.mask is not None and "mask" in graph.inputs:
            graph.bind("mask", state.mask)
        graph.bind("h", state.hidden)
        graph.bind_output(state.partial)
        graph.run()
        connect = self._graph("connect")
        for name, array in self._connect_inputs(layer, kind_name).items():
            connect.bind_array(name, array)
        connect.bind("partial", state.partial)
        connect.bind("residual", state.hidden)
        # In place: the graph reads the residual before it writes, node after node.
        connect.bind_output(state.hidden)
        connect.run()

    def finish(self, state: GroupState) -> Float32Array:
        """The head's answer for a group; a new array."""
        graph = self._graph("head")
        self._bind_fixed(graph, "head")
        graph.bind("h", state.hidden)
        if "tokens" in graph.inputs:
            graph.bind("tokens", ort_value(state.tokens))
        graph.binding.bind_output(graph.outputs[0], "cpu")
        graph.run()
        return np.asarray(graph.binding.copy_outputs_to_cpu()[0], dtype=np.float32)

    def close(self) -> None:
        """Give back sessions and buffers. Idempotent."""
        for kept in (self._graphs, self._buffers, self._operands, self._residents, self._fixed):
            kept.clear()
        self._room = np.empty(0, dtype=np.float32)
        self._states.clear()

    def bench(self, name: str, workload: Workload, width: int, repeats: int) -> float:
        """Seconds one run of a graph takes (``embed``, ``connect``, ``head`` or a block kind).

        The least of ``repeats`` runs after one to warm up; weights are whatever the working
        buffers hold.
        """
        batch, tokens = workload.batch, workload.tokens
        words = self.embedding_buffer(batch, tokens)
        words[:] = 0.0
        types = np.zeros((batch, tokens), dtype=np.int64)
        state = self.start(words, types, [tokens] * batch)
        graph = self._graph(name)
        if name == "head":
            self.finish(state)
        elif name != "embed":
            blocks = self._manifest.blocks
            first = next(block for block in blocks if name in ("connect", block.kind))
            self.block(state, first.layer, first.kind, width)
        best = float("inf")
        for _ in range(repeats):
            start = perf_counter()
            graph.run()
            best = min(best, perf_counter() - start)
        return best

    def _state_room(self, place: int | None, shape: tuple[int, ...]) -> Float32Array:
        """Memory for the hidden states of the group with this number."""
        if place is None:
            return np.empty(shape, dtype=np.float32)
        while len(self._states) <= place:
            self._states.append(np.empty(0, dtype=np.float32))
        size = math.prod(shape)
        if self._states[place].size < size:
            self._states[place] = np.empty(size, dtype=np.float32)
        return self._states[place][:size].reshape(shape)

    def _graph(self, name: str, *, masked: bool = False) -> Graph:
        """The session of a graph in the variant this processor needs, made on first use."""
        listed = self._manifest.graphs
        suffix = ".u8" if self.unsigned else ".s8"
        if masked and f"{name}_masked{suffix}" in listed:
            return self._session(f"{name}_masked{suffix}")
        return self._session(name if name in listed else name + suffix)

    def _session(self, key: str) -> Graph:
        if key not in self._graphs:
            model = self._source.resident(self._manifest.graphs[key]).tobytes()
            self._graphs[key] = Graph(key, model, self._options)
        return self._graphs[key]

    def _bind_fixed(self, graph: Graph, prefix: str) -> None:
        """Bind the resident inputs of ``embed`` or ``head``."""
        if prefix not in self._fixed:
            self._fixed[prefix] = {
                name: ort_value(self._source.resident(f"{prefix}.{name}"))
                for name in graph.inputs
                if self._source.has_resident(f"{prefix}.{name}")
            }
        for name, value in self._fixed[prefix].items():
            graph.bind(name, value)

    def _share(self, array: NDArray[Any], width: int) -> int:
        return len(array) * width // self._manifest.dimensions.slices

    def _connect_inputs(self, layer: int, kind: str) -> dict[str, NDArray[Any]]:
        key = (layer, f"{kind}.connect", 0)
        if key not in self._residents:
            self._residents[key] = {
                name: self._source.resident(f"layer.{layer}.{kind}.{name}")
                for name in ("bias", "gamma", "beta")
            }
        return self._residents[key]

    def _operand_inputs(self, kind: BlockKind, width: int, buffer: int) -> dict[str, Any]:
        key = (kind.name, width, buffer)
        if key not in self._operands:
            self._operands[key] = {
                # A slice may hold several parts (heads): the graphs count parts.
                operand.name: ort_value(weights[:width].reshape(-1, *operand.shape[-2:]))
                for operand, weights in zip(
                    kind.operands, self.buffers[kind.name][buffer].operands, strict=True
                )
            }
        return self._operands[key]

    def _resident_inputs(self, layer: int, kind: BlockKind, width: int) -> dict[str, NDArray[Any]]:
        """Row scales, biases and side inputs of one block, cut to the width."""
        key = (layer, kind.name, width)
        if key not in self._residents:
            base = f"layer.{layer}.{kind.name}"
            values = {name: self._source.resident(f"{base}.{name}") for name in kind.sliced}
            values = {name: array[: self._share(array, width)] for name, array in values.items()}
            values |= {name: self._source.resident(f"{base}.{name}") for name in kind.shared}
            for side in kind.side:
                index = self._source.resident(f"{base}.{side.name}_idx")
                weights = self._source.resident(f"{base}.{side.name}_w")
                if side.channels_per_slice:
                    used = int(np.searchsorted(index, width * side.channels_per_slice))
                    index, weights = index[:used], weights[:used]
                else:
                    weights = weights[: self._share(weights, width)]
                values[f"{side.name}_idx"] = index
                values[f"{side.name}_w"] = weights
            self._residents[key] = values
        return self._residents[key]
