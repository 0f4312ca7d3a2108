"""The slice groups of a block as one: what computes each channel by itself is computed once.

In: the nodes of a pack's graph, and for each slice group of a block the constants that it has for
them. Out: nodes that compute the partial sums of all the groups, to the bit. Up to the quantization
in front of its last product, a block computes every channel, or every head, for itself: matrices
are laid side by side, and all groups computed as one of more channels. Quantization is by token and
group, and each partial sum is a product of its own. Knows nothing of packs or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.blocked_quantization import PRODUCT
from sti.backend.onnxruntime.group_values import (
    CHANNELS,
    HEADS,
    HEADS_RANK,
    TOKEN_RANK,
    Apart,
    Constants,
    Joined,
    OfEach,
    Shared,
    Value,
)
from sti.backend.onnxruntime.hidden_memory import MASK
from sti.backend.onnxruntime.onnx_model import Node, numbers_of, operator_of, plain_node
from sti.model.manifest import DISTANCES

_Rule = Callable[[Node, Sequence[Value]], Value | None]


class MergedGroups:
    """Adds the nodes of one block to a graph. For one use.

    Args:
        groups: of each slice group the constants, by input; the same inputs, operands of the same
            shape.
        shared: names that inputs and initializers have which all groups share.
        values: of initializers, where they are known.
        prefix: of all names that are made.
        constant: adds a constant to the graph: name and array to the name that nodes take it by.
        add: adds a node.
    """

    def __init__(
        self,
        groups: Sequence[Constants],
        shared: Mapping[str, str],
        values: Constants,
        *,
        prefix: str,
        constant: Callable[[str, NDArray[Any]], str],
        add: Callable[[Node], None],
    ) -> None:
        self._count, self._prefix = len(groups), prefix
        self._initial, self._constant, self._add = values, constant, add
        self._values: dict[str, Value] = {"": Shared("")}  # inputs that are not given
        self._values |= {name: Shared(taken) for name, taken in shared.items()}
        for name in groups[0]:
            self._values[name] = OfEach(name, tuple(group[name] for group in groups))
        self._added_constants: dict[str, str] = {}
        self._parts: dict[Value, tuple[str, ...]] = {}
        self._rules: dict[str, _Rule] = {
            PRODUCT: self._product,
            "Abs": self._elementwise,
            "Add": self._elementwise,
            "BiasGelu": self._elementwise,
            "FastGelu": self._elementwise,
            "FusedMatMul": self._by_heads,
            "Gather": self._gather,
            "Gelu": self._elementwise,
            "Max": self._elementwise,
            "Mul": self._elementwise,
            "QuantizeLinear": self._elementwise,
            "QuickGelu": self._elementwise,
            "ReduceMax": self._largest,
            "Relu": self._elementwise,
            "Reshape": self._reshape,
            "Softmax": self._softmax,
            "Transpose": self._transpose,
        }

    def place(self, nodes: Sequence[Node], output: str) -> tuple[str, ...]:
        """Add the nodes; the names of an output, by group."""
        for node in nodes:
            given = [self._values[name] for name in node.inputs]
            if all(isinstance(value, Shared) for value in given):
                found: Value | None = Shared(self._once(node, given))
            else:
                rule = self._rules.get(operator_of(node))
                found = rule(node, given) if rule else None
            self._values[node.outputs[0]] = found or self._each(node, given)
        return self._names(self._values[output])

    # Rules give the output of a node that computes all groups at once, once that is added; None
    # where there is no such node, and each group has one of its own.

    def _product(self, node: Node, given: Sequence[Value]) -> Value | None:
        x, matrix, x_scale, scale, *zeros = given
        if not all(isinstance(value, Shared) for value in (x, x_scale, *zeros)):
            return None
        if not (isinstance(matrix, OfEach) and isinstance(scale, OfEach)):
            return None
        beside = self._side_by_side(matrix), self._side_by_side(scale)
        name = self._once(node, (x, beside[0], x_scale, beside[1], *zeros))
        return Joined(name, CHANNELS, TOKEN_RANK, matrix.arrays[0].shape[-1])

    def _elementwise(self, node: Node, given: Sequence[Value]) -> Value | None:
        joined = [value for value in given if isinstance(value, Joined)]
        if not joined:
            return None
        x = max(joined, key=lambda value: value.rank)
        blocks = bool(numbers_of(node, "block_size"))
        pairs = list(zip(node.inputs, given, strict=True))
        if not all(self._is_beside(x, name, value, blocks=blocks) for name, value in pairs):
            return None
        return x._replace(name=self._once(node, tuple(map(self._as_one, given))))

    def _is_beside(self, x: Joined, name: str, value: Value, *, blocks: bool) -> bool:
        """Whether a value can be combined with a joined one as each group's with its own.

        Args:
            blocks: channels of a group may have one number in common.
        """
        match value:
            case Shared() if name == MASK:
                return x.axis == HEADS and x.rank == HEADS_RANK
            case Shared():
                array = self._initial.get(name)
                return array is not None and array.size == 1
            case Joined():
                alike = value.rank != x.rank or value.channels == x.channels
                return value.is_along(x) and (blocks or alike)
            case OfEach():
                return x.is_by_channel and value.arrays[0].shape == (x.channels,)
            case Apart():
                return x.is_by_channel

    def _as_one(self, value: Value) -> Value:
        """A value of all groups as one."""
        match value:
            case OfEach():
                return self._side_by_side(value)
            case Apart():
                return self._concatenated(value)
            case _:
                return value

    def _softmax(self, node: Node, given: Sequence[Value]) -> Value | None:
        (x,) = given
        if not isinstance(x, Joined) or numbers_of(node, "axis") != (-1,):
            return None
        return x._replace(name=self._once(node, given)) if x.axis < x.rank - 1 else None

    def _by_heads(self, node: Node, given: Sequence[Value]) -> Value | None:
        left = given[0]
        for value, transposed in zip(given, ("transBatchA", "transBatchB"), strict=True):
            axis = CHANNELS if numbers_of(node, transposed) == (1,) else HEADS
            if not isinstance(value, Joined) or (value.axis, value.rank) != (axis, HEADS_RANK):
                return None
        assert isinstance(left, Joined), "all are"
        return left._replace(name=self._once(node, given), axis=HEADS)

    def _reshape(self, node: Node, given: Sequence[Value]) -> Value | None:
        """From channels to heads, or back; or constants to rows."""
        x, target = given[0], self._initial.get(node.inputs[1])
        if isinstance(x, OfEach):
            return self._rows(node, x, given[1])
        if target is None or not isinstance(x, Joined) or x.axis != CHANNELS:
            return None
        rank = target.size
        if target.tolist()[:3] != [0, 0, -1] or {x.rank, rank} != {TOKEN_RANK, HEADS_RANK}:
            return None
        return x._replace(name=self._once(node, given), rank=rank)

    def _rows(self, node: Node, x: OfEach, target: Value) -> Value | None:
        """Vectors of the groups as rows of one matrix."""
        shape, size = self._initial.get(node.inputs[1]), x.arrays[0].size
        if shape is None or shape.size != 2 or shape[0] != -1 or size % shape[1]:
            return None
        if any(array.shape != (size,) for array in x.arrays):
            return None
        name = self._once(node, (self._side_by_side(x), target))
        return Joined(name, 0, 2, size // int(shape[1]))

    def _transpose(self, node: Node, given: Sequence[Value]) -> Value | None:
        (x,), order = given, numbers_of(node, "perm")
        if not isinstance(x, Joined) or len(order) != x.rank:
            return None
        return x._replace(name=self._once(node, given), axis=order.index(x.axis))

    def _largest(self, node: Node, given: Sequence[Value]) -> Value | None:
        x, axes = given[0], self._initial.get(node.inputs[1])
        by_token = axes is not None and axes.tolist() == [-1]
        kept = numbers_of(node, "keepdims") == (1,)
        if not (isinstance(x, Joined) and x.is_by_channel and by_token and kept):
            return None
        groups = self._once_constant("by_group", np.array([0, 0, self._count, -1]))
        name, made = (f"{self._prefix}{item}" for item in (node.name, node.outputs[0]))
        self._add(plain_node(f"{name}.by_group", "Reshape", (x.name, groups), f"{made}.by_group"))
        inputs = f"{made}.by_group", self._names(given[1])[0]
        self._add(plain_node(name, "ReduceMax", inputs, made, keepdims=0))
        return Joined(made, CHANNELS, TOKEN_RANK, 1)

    def _gather(self, node: Node, given: Sequence[Value]) -> Value | None:
        """Each group's channels from among those of all; or numbers of rows by distance."""
        x, picked = given
        if isinstance(x, Joined) and (x.axis, x.rank) == (0, 2):
            apart = isinstance(picked, Shared) and node.inputs[1] == DISTANCES
            if not apart or numbers_of(node, "axis") != (1,):
                return None
            return x._replace(name=self._once(node, given), rank=3)
        by_channel = numbers_of(node, "axis") == (CHANNELS,)
        if not (isinstance(x, Joined) and isinstance(picked, OfEach)):
            return None
        if not (by_channel and x.is_by_channel):
            return None
        moved = (array + number * x.channels for number, array in enumerate(picked.arrays))
        return self._each(node, (Shared(x.name), OfEach(f"{picked.name}.moved", tuple(moved))))

    # Adding nodes.

    def _once(self, node: Node, given: Sequence[Value]) -> str:
        """A node for all groups; the name of its output."""
        names = [
            value.name if isinstance(value, Joined) else self._names(value)[0] for value in given
        ]
        return self._added(node, self._prefix, names)

    def _each(self, node: Node, given: Sequence[Value]) -> Apart:
        """A node for each group."""
        names = zip(*map(self._names, given), strict=True)
        return Apart(
            tuple(
                self._added(node, f"{self._prefix}{number}.", inputs)
                for number, inputs in enumerate(names)
            )
        )

    def _added(self, node: Node, prefix: str, inputs: Sequence[str]) -> str:
        (output,) = node.outputs
        made = f"{prefix}{output}"
        self._add(node._replace(name=prefix + node.name, inputs=tuple(inputs), outputs=(made,)))
        return made

    def _names(self, value: Value) -> tuple[str, ...]:
        """What the groups' own nodes take a value by."""
        if isinstance(value, Shared):
            return (value.name,) * self._count
        if isinstance(value, Apart):
            return value.names
        if isinstance(value, OfEach):
            return tuple(
                self._once_constant(f"{number}.{value.name}", array)
                for number, array in enumerate(value.arrays)
            )
        if value not in self._parts:
            names = tuple(f"{value.name}.{number}" for number in range(self._count))
            numbers = {"axis": value.axis, "num_outputs": self._count}
            split = plain_node(f"{value.name}.split", "Split", (value.name,), *names, **numbers)
            self._add(split)
            self._parts[value] = names
        return self._parts[value]

    def _side_by_side(self, value: OfEach) -> Shared:
        """The groups' constants as one."""
        whole = np.concatenate(value.arrays, axis=-1)
        return Shared(self._once_constant(value.name, whole))

    def _once_constant(self, name: str, array: NDArray[Any]) -> str:
        if name not in self._added_constants:
            self._added_constants[name] = self._constant(self._prefix + name, array)
        return self._added_constants[name]

    def _concatenated(self, value: Apart) -> Shared:
        """The groups' values as one, along the channels."""
        name = f"{value.names[0]}.joined"
        self._add(plain_node(name, "Concat", value.names, name, axis=CHANNELS))
        return Shared(name)
