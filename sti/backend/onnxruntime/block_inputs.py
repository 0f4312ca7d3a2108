"""What graphs are fed besides hidden states: resident tensors, and weights in working buffers.

In: a pack's resident tensors, and working buffers, which are made here. Out: graphs' inputs bound
directly to that memory, cut to the width in use; views are kept for the next run. Knows nothing of
hidden states, texts or lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import DTypeLike, NDArray

from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.session import Graph, ort_value
from sti.backend.resident_inputs import connect_residents, group_residents
from sti.backend.working_buffer import WorkingBuffer, make_buffers
from sti.model.manifest import BlockKind, SliceGroup


class BlockInputs:
    """Binds the inputs of graphs. Not thread-safe.

    Args:
        residents: a pack's; used in place, so they must stay open and where they are.
        dtype: of the weights, int8 or uint8.
    """

    def __init__(self, residents: ResidentTensors, dtype: DTypeLike) -> None:
        self._source = residents
        self._manifest = residents.manifest
        # Arrays, not OrtValues, which take some 500 bytes each: every layer has twenty of them.
        self._groups: dict[tuple[int, str, int, int], dict[str, NDArray[Any]]] = {}
        self._connects: dict[tuple[int, str], dict[str, NDArray[Any]]] = {}
        self._operands: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._ends: dict[str, dict[str, Any]] = {}
        self._dtype = dtype
        self._buffers: dict[str, tuple[WorkingBuffer, ...]] = {}

    @property
    def buffers(self) -> Mapping[str, Sequence[WorkingBuffer]]:
        """Working buffers by block kind; made when first asked for."""
        if not self._buffers:
            self._buffers = make_buffers(self._manifest, self._dtype)
        return self._buffers

    def bind_group(self, graph: Graph, group: SliceGroup, width: int, *, buffer: int) -> None:
        """Bind a slice group's resident tensors, and its weights in one of its kind's buffers."""
        key, weights = (group.layer, group.kind, group.number, width), (group.kind, width, buffer)
        if key not in self._groups:
            kind = self._manifest.kind(group.kind)
            self._groups[key] = group_residents(self._source, kind, group, width)
        if weights not in self._operands:
            kind = self._manifest.kind(group.kind)
            self._operands[weights] = _operands(kind, width, self.buffers[group.kind][buffer])
        for name, array in self._groups[key].items():
            graph.bind_array(name, array)
        for name, value in self._operands[weights].items():
            graph.bind(name, value)

    def bind_connect(self, graph: Graph, layer: int, kind: str) -> None:
        """Bind the resident tensors of a block's ``connect``."""
        key = (layer, kind)
        if key not in self._connects:
            self._connects[key] = connect_residents(self._source, layer, kind)
        for name, array in self._connects[key].items():
            graph.bind_array(name, array)

    def bind_end(self, graph: Graph, name: str) -> None:
        """Bind the resident tensors of ``embed`` or ``head``."""
        if name not in self._ends:
            self._ends[name] = {
                item: ort_value(self._source.resident(f"{name}.{item}"))
                for item in graph.inputs
                if self._source.has_resident(f"{name}.{item}")
            }
        for item, value in self._ends[name].items():
            graph.bind(item, value)

    def close(self) -> None:
        """Let go of all memory. Idempotent."""
        for kept in (self._groups, self._connects, self._operands, self._ends, self._buffers):
            kept.clear()


def _operands(kind: BlockKind, width: int, buffer: WorkingBuffer) -> dict[str, Any]:
    """The first ``width`` slices of each operand, in the buffer's own memory."""
    return {
        # A slice may hold several parts (heads): the graphs count parts.
        operand.name: ort_value(weights[:width].reshape(-1, *operand.shape[-2:]))
        for operand, weights in zip(kind.operands, buffer.operands, strict=True)
    }
