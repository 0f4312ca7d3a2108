"""Writing all steps of a plan as one graph with constant weights.

In: a pack's graphs and resident tensors, and for one step after the other its job and its decoded
weights. Out: two files, a model ``h, xq, xs (, mask, distances) -> next_h, next_xq, next_xs`` and
its weights, packed as this processor's products want them, which ONNX Runtime maps. The model
computes what the steps do one by one, to the bit. Layers are packed one at a time, so that no more
than one of them is in memory. Knows nothing of files of packs, decoding or caches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.graph_placer import PARTIAL, GraphPlacer
from sti.backend.onnxruntime.graph_sessions import block_graph
from sti.backend.onnxruntime.hidden_memory import (
    HIDDEN_INPUTS,
    HIDDEN_OUTPUTS,
    MASK,
)
from sti.backend.onnxruntime.onnx_model import (
    PREPACKED,
    Model,
    Named,
    Node,
    external_data,
    plain_node,
    with_external_data,
    write_model,
)
from sti.backend.onnxruntime.packed_layer import PackedLayer, filled
from sti.backend.onnxruntime.packed_size import are_alike
from sti.backend.partial_sums import joined_in_tree
from sti.backend.resident_inputs import connect_residents, group_residents
from sti.codec.weights import WeightForm
from sti.errors import BackendError
from sti.model.manifest import DISTANCES
from sti.planning.step_jobs import StepJob

MODEL, WEIGHTS = "model.onnx", "weights.bin"
"""Names of the two files."""

_PAGE = 4096
"""What is mapped starts at multiples of so many bytes."""
_CONNECT = "connect"
_OF_TOKENS = (MASK, DISTANCES)
"""Inputs that say something of tokens, the same for all blocks."""


class JoinedGraph:
    """Writes the graph of a plan's steps into an empty directory. Not thread-safe.

    Use as a context manager: what was not finished is removed from the directory by whoever made
    it, but no file stays open.

    Args:
        residents: a pack's.
        forms: how weights are written, by variant.
        directory: receives ``MODEL`` and ``WEIGHTS``.

    Raises:
        BackendError: a graph of the pack cannot be joined with others.
        OSError: a file cannot be written.
    """

    def __init__(
        self, residents: ResidentTensors, forms: Mapping[str, WeightForm], directory: Path
    ) -> None:
        self._source, self._forms = residents, forms
        self._manifest = residents.manifest
        self._kinds = {kind.name: kind for kind in self._manifest.kinds}
        self._placer = GraphPlacer(residents)
        self._directory = directory
        self._layer = PackedLayer(directory)
        self._weights: BinaryIO = (directory / WEIGHTS).open("xb")
        self._nodes: list[Node] = []
        self._initializers: dict[str, Named] = {}
        self._block: list[tuple[StepJob, dict[str, NDArray[Any]]]] = []
        self._blocks = 0
        self._hidden: tuple[str, ...] = HIDDEN_INPUTS
        self._layer_start: tuple[str, ...] = HIDDEN_INPUTS
        self.packed_bytes = 0
        """Of packed weights, so far."""

    def __enter__(self) -> JoinedGraph:
        return self

    def __exit__(self, *_: object) -> None:
        self._layer.close()
        self._weights.close()

    def add(self, job: StepJob, matrices: Sequence[NDArray[Any]]) -> None:
        """Add a step, in the order of the plan.

        Args:
            matrices: its decoded weights, by operand; copied.
        """
        kind = self._kinds[job.group.kind]
        constants: dict[str, NDArray[Any]] = {
            operand.name: matrix.copy()
            for operand, matrix in zip(kind.operands, matrices, strict=True)
        }
        constants |= group_residents(self._source, kind, job.group, job.used)
        self._block.append((job, constants))
        if job.connects:
            self._end_block()

    def finish(self) -> None:
        """Write the model; all steps were added. Both files are on storage afterwards."""
        if self._block or not self._blocks:
            raise BackendError("a graph cannot end in the middle of a block")
        self._end_layer()
        ends = (
            plain_node(f"{new}.out", "Identity", (old,), new)
            for old, new in zip(self._hidden, HIDDEN_OUTPUTS, strict=True)
        )
        nodes = (*self._nodes, *ends)
        model = self._whole(nodes, HIDDEN_INPUTS, HIDDEN_OUTPUTS, self._initializers.values())
        self._weights.flush()
        os.fsync(self._weights.fileno())
        with (self._directory / MODEL).open("xb") as file:
            file.write(write_model(model, name="plan"))
            file.flush()
            os.fsync(file.fileno())

    def _end_block(self) -> None:
        """Add the steps of a block, merged if they are alike."""
        block, self._block = self._block, []
        layer, kind = block[0][0].group.layer, block[0][0].group.kind
        merged = are_alike([job for job, _ in block])
        partials: list[str] = []
        for first in range(0, len(block), len(block) if merged else 1):
            steps = block[first:] if merged else block[first : first + 1]
            prefix = f"{layer}.{kind}." if merged else f"{layer}.{kind}.{first}."
            partials += self._steps(prefix, steps)
        self._connect(layer, kind, partials)

    def _steps(
        self, prefix: str, steps: Sequence[tuple[StepJob, dict[str, NDArray[Any]]]]
    ) -> Sequence[str]:
        """Add steps that are alike; the names of their partial sums."""
        job, constants = steps[0]
        kind = self._kinds[job.group.kind]
        name = block_graph(self._manifest.graphs, kind.name, self._forms[job.variant], masked=True)
        wiring = dict(zip(HIDDEN_INPUTS, self._hidden, strict=True))
        wiring |= {f"own_{item}": value for item, value in wiring.items()}
        wiring |= {name: name for name in _OF_TOKENS}
        rows = {operand.name: len(constants[operand.name]) for operand in kind.operands}
        groups = [found for _, found in steps]
        return self._placer.place(self._layer, name, prefix, wiring, groups, rows)

    def _connect(self, layer: int, kind: str, partials: Sequence[str]) -> None:
        """End a block, and the layer where this was its last block."""
        prefix = f"{layer}.{kind}.{_CONNECT}."

        def join(left: str, right: str) -> str:
            total = f"{prefix}sum_{len(self._layer.nodes)}"
            self._layer.nodes.append(plain_node(total, "Add", (left, right), total))
            return total

        wiring = {PARTIAL: joined_in_tree(partials, join), "residual": self._hidden[0]}
        constants = connect_residents(self._source, layer, kind)
        self._placer.place(self._layer, _CONNECT, prefix, wiring, [constants], {})
        self._hidden = tuple(f"{prefix}{item}" for item in HIDDEN_INPUTS)
        self._blocks += 1
        if kind == self._manifest.kinds[-1].name:
            self._end_layer()

    def _end_layer(self) -> None:
        """Let ONNX Runtime pack what was added since the last time, and take it over."""
        layer = self._layer
        if not layer.nodes:
            return
        before, after = self._layer_start, self._hidden
        model = self._whole(layer.nodes, before, after, layer.initializers.values())
        for tensor in layer.packed(write_model(model, name="layer")):
            self._initializers[tensor.name] = self._taken_over(tensor)
        start = filled(self._weights.tell(), _PAGE)
        self._weights.seek(start)
        layer.append_packed(self._weights)
        self._nodes += layer.nodes
        self._layer_start = after
        self._layer.close()
        self._layer = PackedLayer(self._directory)

    def _taken_over(self, tensor: Named) -> Named:
        """An initializer of a packed layer whose values lie behind those that are there already."""
        entries = external_data(tensor)
        if not entries:
            return tensor
        start = filled(self._weights.tell(), _PAGE)
        moved = {"location": WEIGHTS}
        try:
            moved["offset"] = str(int(entries["offset"]) + start)
            moved["length"] = entries["length"]
            for key, value in entries.items():
                if key.startswith(PREPACKED):
                    product, *places = value.split("|")
                    for number, place in enumerate(places):
                        offset, length, checksum = place.split(";")
                        places[number] = f"{int(offset) + start};{length};{checksum}"
                        self.packed_bytes += int(length)
                    moved[key] = "|".join((product, *places))
        except (KeyError, ValueError) as error:
            raise BackendError(
                f"initializer {tensor.name!r}: where its values lie was not understood: {entries}"
            ) from error
        return with_external_data(tensor, moved)

    def _whole(
        self,
        nodes: Sequence[Node],
        before: Sequence[str],
        after: Sequence[str],
        initializers: Any,
    ) -> Model:
        """A model from hidden states of these names to those of others."""
        connect = self._placer.model(_CONNECT)
        types = {item.name: item.rest for item in connect.outputs}
        inputs = [Named(b, types[item]) for b, item in zip(before, HIDDEN_INPUTS, strict=True)]
        outputs = [Named(a, types[item]) for a, item in zip(after, HIDDEN_INPUTS, strict=True)]
        for name in _OF_TOKENS:
            if any(name in node.inputs for node in nodes):
                inputs.append(self._placer.input_named(name))
        return Model(tuple(nodes), tuple(initializers), tuple(inputs), tuple(outputs), connect.rest)
