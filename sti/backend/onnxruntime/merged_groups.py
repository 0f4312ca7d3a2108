"""The slice groups of a block as one: what computes each channel by itself is computed once.

In: the nodes of a pack's graph, and for each slice group of a block the constants that it has for
them. Out: nodes that compute the partial sums of all the groups, to the bit. Up to the quantization
in front of its last product, a block computes every channel, or every head, for itself: matrices
are laid side by side, and all groups computed as one of more channels. Quantization is by token and
group, and each partial sum is a product of its own. Knows nothing of packs or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.blocked_quantization import PRODUCT
from sti.backend.onnxruntime.hidden_memory import MASK
from sti.backend.onnxruntime.onnx_model import Node, numbers_of, operator_of, plain_node

_CHANNELS = 2
"""The axis of ``[S, B, n]``."""
_TOKEN_RANK = 3
"""Axes of ``[S, B, n]``; where channels are heads of some, there is one more."""
_BY_CHANNEL = _CHANNELS, _TOKEN_RANK
_HEADS = 1
"""The axis of attention scores ``[B, m, R, S]``."""


class _Shared(NamedTuple):
    """A value that all groups have in common."""

    name: str


class _Joined(NamedTuple):
    """The values of all groups as one, group after group along an axis."""

    name: str
    axis: int
    rank: int
    channels: int
    """Of each group."""


class _Apart(NamedTuple):
    """A value of each group."""

    names: tuple[str, ...]


class _Constants(NamedTuple):
    """An array of each group that is not in the graph yet."""

    name: str
    arrays: tuple[NDArray[Any], ...]


Constants = Mapping[str, NDArray[Any]]
"""What inputs of a graph are for one slice group."""
_Value = _Shared | _Joined | _Apart | _Constants
_Rule = Callable[[Node, Sequence[_Value]], _Value | None]


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
        self._values: dict[str, _Value] = {"": _Shared("")}  # inputs that are not given
        self._values |= {name: _Shared(taken) for name, taken in shared.items()}
        for name in groups[0]:
            self._values[name] = _Constants(name, tuple(group[name] for group in groups))
        self._added_constants: dict[str, str] = {}
        self._parts: dict[_Value, tuple[str, ...]] = {}
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
            if all(isinstance(value, _Shared) for value in given):
                found: _Value | None = _Shared(self._once(node, given))
            else:
                rule = self._rules.get(operator_of(node))
                found = rule(node, given) if rule else None
            self._values[node.outputs[0]] = found or self._each(node, given)
        return self._names(self._values[output])

    # Rules give the output of a node that computes all groups at once, once that is added; None
    # where there is no such node, and each group has one of its own.

    def _product(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        x, matrix, x_scale, scale, *zeros = given
        if not all(isinstance(value, _Shared) for value in (x, x_scale, *zeros)):
            return None
        if not (isinstance(matrix, _Constants) and isinstance(scale, _Constants)):
            return None
        beside = self._side_by_side(matrix), self._side_by_side(scale)
        name = self._once(node, (x, beside[0], x_scale, beside[1], *zeros))
        return _Joined(name, _CHANNELS, _TOKEN_RANK, matrix.arrays[0].shape[-1])

    def _elementwise(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        x = next((value for value in given if isinstance(value, _Joined)), None)
        if x is None:
            return None
        blocks = bool(numbers_of(node, "block_size"))
        taken: list[_Value] = []
        for name, value in zip(node.inputs, given, strict=True):
            match value:
                case _Constants() if x[1:3] == _BY_CHANNEL and value.arrays[0].ndim == 1:
                    taken.append(self._side_by_side(value))
                case _Apart() if x[1:3] == _BY_CHANNEL:
                    taken.append(self._concatenated(value))
                case _Joined() if value[1:3] == x[1:3] and (blocks or value.channels == x.channels):
                    taken.append(value)
                case _Shared() if self._is_for_all(name, x):
                    taken.append(value)
                case _:
                    return None
        return x._replace(name=self._once(node, taken))

    def _is_for_all(self, name: str, x: _Joined) -> bool:
        """Whether a shared value is combined with all of a joined one as with each group's."""
        if name == MASK:
            return x.axis == _HEADS
        array = self._initial.get(name)
        return array is not None and array.size == 1

    def _softmax(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        (x,) = given
        if not isinstance(x, _Joined) or numbers_of(node, "axis") != (-1,):
            return None
        return x._replace(name=self._once(node, given)) if x.axis < x.rank - 1 else None

    def _by_heads(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        for value, transposed in zip(given, ("transBatchA", "transBatchB"), strict=True):
            axis = _CHANNELS if numbers_of(node, transposed) == (1,) else _HEADS
            if not isinstance(value, _Joined) or value[1:3] != (axis, _TOKEN_RANK + 1):
                return None
        name = self._once(node, given)
        return _Joined(name, _HEADS, _TOKEN_RANK + 1, _channels(given[0]))

    def _reshape(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        """From channels to heads, or back."""
        x, target = given[0], self._initial.get(node.inputs[1])
        if target is None or not isinstance(x, _Joined) or x.axis != _CHANNELS:
            return None
        rank = len(target)
        if target.tolist()[:3] != [0, 0, -1] or {x.rank, rank} != {_TOKEN_RANK, _TOKEN_RANK + 1}:
            return None
        return x._replace(name=self._once(node, given), rank=rank)

    def _transpose(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        (x,), order = given, numbers_of(node, "perm")
        if not isinstance(x, _Joined) or len(order) != x.rank:
            return None
        return x._replace(name=self._once(node, given), axis=order.index(x.axis))

    def _largest(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        x, axes = given[0], self._initial.get(node.inputs[1])
        by_token = axes is not None and axes.tolist() == [-1]
        kept = numbers_of(node, "keepdims") == (1,)
        if not isinstance(x, _Joined) or x[1:3] != _BY_CHANNEL or not (by_token and kept):
            return None
        groups = self._once_constant("by_group", np.array([0, 0, self._count, -1]))
        name, made = (f"{self._prefix}{item}" for item in (node.name, node.outputs[0]))
        self._add(plain_node(f"{name}.by_group", "Reshape", (x.name, groups), f"{made}.by_group"))
        inputs = f"{made}.by_group", self._names(given[1])[0]
        self._add(plain_node(name, "ReduceMax", inputs, made, keepdims=0))
        return _Joined(made, _CHANNELS, _TOKEN_RANK, 1)

    def _gather(self, node: Node, given: Sequence[_Value]) -> _Value | None:
        """Each group's channels from among those of all."""
        x, picked = given
        by_channel = numbers_of(node, "axis") == (_CHANNELS,)
        if not (isinstance(x, _Joined) and isinstance(picked, _Constants) and by_channel):
            return None
        if x.rank != _TOKEN_RANK:
            return None
        moved = (array + number * x.channels for number, array in enumerate(picked.arrays))
        return self._each(node, (_Shared(x.name), _Constants(f"{picked.name}.moved", tuple(moved))))

    # Adding nodes.

    def _once(self, node: Node, given: Sequence[_Value]) -> str:
        """A node for all groups; the name of its output."""
        names = [
            value.name if isinstance(value, _Joined) else self._names(value)[0] for value in given
        ]
        return self._added(node, self._prefix, names)

    def _each(self, node: Node, given: Sequence[_Value]) -> _Apart:
        """A node for each group."""
        names = zip(*map(self._names, given), strict=True)
        return _Apart(
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

    def _names(self, value: _Value) -> tuple[str, ...]:
        """What the groups' own nodes take a value by."""
        if isinstance(value, _Shared):
            return (value.name,) * self._count
        if isinstance(value, _Apart):
            return value.names
        if isinstance(value, _Constants):
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

    def _side_by_side(self, value: _Constants) -> _Shared:
        """The groups' constants as one."""
        whole = np.concatenate(value.arrays, axis=-1)
        return _Shared(self._once_constant(value.name, whole))

    def _once_constant(self, name: str, array: NDArray[Any]) -> str:
        if name not in self._added_constants:
            self._added_constants[name] = self._constant(self._prefix + name, array)
        return self._added_constants[name]

    def _concatenated(self, value: _Apart) -> _Shared:
        """The groups' values as one, along the channels."""
        name = f"{value.names[0]}.joined"
        self._add(plain_node(name, "Concat", value.names, name, axis=_CHANNELS))
        return _Shared(name)


def _channels(value: _Value) -> int:
    return value.channels if isinstance(value, _Joined) else 0
