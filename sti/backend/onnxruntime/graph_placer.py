"""Placing the graphs of a pack in a larger one, with names of their own and constants for weights.

In: a pack's graphs, and for each place the names or the constants that inputs are there. Out: nodes
and constants of a ``PackedLayer``. The graphs of slice groups that are alike are placed as one.
Knows nothing of plans or decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.blocked_quantization import FORMAT, OPERATORS, with_blocks
from sti.backend.onnxruntime.group_values import Constants
from sti.backend.onnxruntime.merged_groups import MergedGroups
from sti.backend.onnxruntime.onnx_model import (
    Model,
    Named,
    Node,
    read_model,
    small_values,
    with_operators,
)
from sti.backend.onnxruntime.packed_layer import PackedLayer
from sti.errors import BackendError

PARTIAL = "partial"
"""The output of a slice group's graph, and the input that takes the sum of all."""


class GraphPlacer:
    """Places the graphs of one pack. Not thread-safe."""

    def __init__(self, residents: ResidentTensors) -> None:
        self._source = residents
        self._hidden = residents.manifest.dimensions.hidden
        self._models: dict[str, Model] = {}

    def place(
        self,
        layer: PackedLayer,
        name: str,
        prefix: str,
        wiring: Mapping[str, str],
        groups: Sequence[Constants],
        rows: Mapping[str, int],
    ) -> Sequence[str]:
        """Place a graph once for each of some slice groups.

        Args:
            layer: receives its nodes and constants.
            name: of the graph.
            prefix: of the names of all that it computes.
            wiring: names in the layer, by input; the same for all groups.
            groups: the constants of each, by input; of the same shapes but for side inputs.
            rows: of matrices, by input.

        Returns:
            The names of the partial sums; of a graph that has none, of no use.

        Raises:
            BackendError: the graph has an input that is neither, or cannot be joined with others.
        """
        model = self.model(name)
        shared = {item.name: f"{name}.{item.name}" for item in model.initializers}
        for item in model.initializers:
            layer.initializers[shared[item.name]] = Named(shared[item.name], item.rest)
        for item in model.inputs:
            if item.name in wiring:
                shared[item.name] = wiring[item.name]
            elif item.name not in groups[0]:
                raise BackendError(
                    f"graph {name!r} has an input that nothing is known of: {item.name!r}"
                )
        nodes = with_blocks(model.nodes, rows, self._hidden)
        if len(groups) == 1:
            _place_one(layer, nodes, prefix, shared, groups[0])
            return [prefix + PARTIAL]
        values = {item.name: small_values(item) for item in model.initializers}
        merged = MergedGroups(
            groups,
            shared,
            {item: array for item, array in values.items() if array is not None},
            prefix=prefix,
            constant=layer.constant,
            add=layer.nodes.append,
        )
        return merged.place(nodes, PARTIAL)

    def model(self, name: str) -> Model:
        """A graph, with the operators that placed ones have."""
        found = self._models.get(name)
        if found is None:
            read = read_model(self._source.graph(name), where=f"graph {name!r}")
            found = with_operators(read, OPERATORS, format_version=FORMAT)
            self._models[name] = found
        return found

    def input_named(self, name: str) -> Named:
        """An input that a graph placed so far has."""
        inputs = (item for model in self._models.values() for item in model.inputs)
        return next(item for item in inputs if item.name == name)


def _place_one(
    layer: PackedLayer,
    nodes: Sequence[Node],
    prefix: str,
    shared: Mapping[str, str],
    constants: Constants,
) -> None:
    names = {"": "", **shared}
    for node in nodes:
        for name in node.inputs:
            if name not in names and name in constants:
                names[name] = layer.constant(prefix + name, constants[name])
        inputs = tuple(names.get(name, prefix + name) for name in node.inputs)
        outputs = tuple(name and prefix + name for name in node.outputs)
        layer.nodes.append(Node(prefix + node.name, inputs, outputs, node.rest))
