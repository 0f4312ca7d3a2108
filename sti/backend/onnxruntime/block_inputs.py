"""What graphs are fed besides hidden states: resident tensors, and weights in working buffers.

In: a pack's resident tensors, and working buffers, which are made here. Out: graphs whose inputs
are bound directly to that memory, cut to the width in use. Knows nothing of hidden states or texts.

Binding a block's dozen inputs takes as long as computing a small one. So slice groups have bindings
of their own, which stay for the next run, but only so many: a deep model must not take memory for
each of its layers. Groups beyond share a binding, and theirs is bound each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.graph_sessions import GraphSessions
from sti.backend.onnxruntime.session import Graph, ort_value
from sti.backend.resident_inputs import connect_residents, group_residents
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.weights import DTYPES
from sti.model.decoded_size import largest_group_bytes
from sti.model.manifest import SliceGroup

KEPT_BINDINGS = 256
"""Bindings that stay, of about 4 KiB each; one is for a slice group, a width and a lane."""


class StepInputs(NamedTuple):
    """What a step computes with, besides hidden states."""

    group: SliceGroup
    width: int
    """Slices in use."""
    variant: str
    masked: bool
    """Whether padding is told to the graph."""
    buffer: int
    """Number of the working buffer with its weights."""
    lane: int


class BlockInputs:
    """Binds the inputs of graphs. Threads may share it, each with a lane of its own.

    Args:
        residents: a pack's; used in place, so they must stay open and where they are.
        sessions: of the same pack.
    """

    def __init__(self, residents: ResidentTensors, sessions: GraphSessions) -> None:
        self._source, self._sessions = residents, sessions
        self._manifest = residents.manifest
        self._size = largest_group_bytes(self._manifest)
        self._kinds = {kind.name: kind for kind in self._manifest.kinds}
        self._bound: dict[tuple[object, ...], Graph] = {}
        self._shared: dict[tuple[str, int], Graph] = {}
        self._weights: dict[tuple[str, int, np.dtype[Any], int], dict[str, Any]] = {}
        self._buffers: dict[int, WorkingBuffer] = {}

    def buffer(self, number: int) -> WorkingBuffer:
        """A working buffer; made when first asked for."""
        found = self._buffers.get(number)
        if found is None:
            found = self._buffers.setdefault(number, WorkingBuffer(self._size))
        return found

    def block(self, step: StepInputs) -> Graph:
        """The graph of a slice group, its resident tensors and weights bound."""
        group, width = step.group, step.width
        session = self._sessions.block(group.kind, variant=step.variant, masked=step.masked)
        key = (session.name, group.layer, group.number, width, step.lane)
        graph = self._bound.get(key)
        if graph is None:
            kind = self._kinds[group.kind]
            arrays = group_residents(self._source, kind, group, width)
            graph = self._binding(key, session, step.lane, arrays)
        dtype = DTYPES[self._sessions.weights[step.variant]]
        for name, value in self._operands(group.kind, width, dtype, step.buffer).items():
            graph.bind(name, value)
        return graph

    def connect(self, layer: int, kind: str) -> Graph:
        """The graph that ends a block, its resident tensors bound."""
        key = ("connect", layer, kind)
        graph = self._bound.get(key)
        if graph is None:
            arrays = connect_residents(self._source, layer, kind)
            graph = self._binding(key, self._sessions.graph("connect"), 0, arrays)
        return graph

    def end(self, name: str) -> Graph:
        """The graph ``embed`` or ``head``, its resident tensors bound."""
        graph = self._bound.get((name,))
        if graph is None:
            session = self._sessions.graph(name)
            arrays = {
                item: self._source.resident(f"{name}.{item}")
                for item in session.inputs
                if self._source.has_resident(f"{name}.{item}")
            }
            graph = self._binding((name,), session, 0, arrays)
        return graph

    def _binding(
        self,
        key: tuple[object, ...],
        session: Graph,
        lane: int,
        arrays: Mapping[str, NDArray[Any]],
    ) -> Graph:
        """A binding of these arrays that stays, or the lane's where there are enough of them."""
        keep = len(self._bound) < KEPT_BINDINGS
        graph = None if keep else self._shared.get((session.name, lane))
        graph = graph or session.another()
        for name, array in arrays.items():
            graph.bind_array(name, array)
        # Not before: an interrupt must not leave one that is bound in part.
        if keep:
            return self._bound.setdefault(key, graph)
        return self._shared.setdefault((session.name, lane), graph)

    def _operands(self, kind: str, width: int, dtype: np.dtype[Any], buffer: int) -> dict[str, Any]:
        """The operands' matrices in a working buffer, as OrtValues by name."""
        key = (kind, width, dtype, buffer)
        found = self._weights.get(key)
        if found is None:
            operands = self._kinds[kind].operands
            rooms = self.buffer(buffer).operands(self._kinds[kind], width, dtype)
            made = {
                operand.name: ort_value(room.matrix)
                for operand, room in zip(operands, rooms, strict=True)
            }
            found = self._weights.setdefault(key, made)
        return found

    def unbind(self) -> None:
        """Let go of all bindings, and of the hidden states that are bound to them."""
        self._bound.clear()
        self._shared.clear()

    def close(self) -> None:
        """Let go of all memory. Idempotent."""
        self.unbind()
        self._weights.clear()
        self._buffers.clear()
