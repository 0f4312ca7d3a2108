"""Nodes that cannot be one for all slice groups are one for each, with the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, load_from_string, numpy_helper

from tests.backend.test_merged_groups import Arrays, answer, hidden_states, merged

FUSED = "com.microsoft"
HIDDEN, CHANNELS, HEAD, TOKENS = 48, 12, 4, 12


class Graph:
    """A graph of a product of quantized hidden states, and what follows it."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._initial: list[Any] = []
        self._inputs: dict[str, tuple[int, Any]] = {
            "xq": (TensorProto.UINT8, ("S", "B", HIDDEN)),
            "xs": (TensorProto.FLOAT, ("S", "B", 1)),
        }

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        domain = FUSED if operator in ("FusedMatMul", "MatMulIntegerToFloat") else ""
        made = helper.make_node(operator, inputs, [name], name, domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def given(self, name: str, element: int, shape: Any) -> str:
        self._inputs[name] = element, shape
        return name

    def constant(self, *values: float, dtype: str = "float32", scalar: bool = False) -> str:
        array = np.array(values[0] if scalar else values, dtype)
        name = f"c{len(self._initial)}"
        self._initial.append(numpy_helper.from_array(array, name))
        return name

    def product(self, name: str, columns: int = CHANNELS, zero: str = "") -> str:
        matrix = self.given(name, TensorProto.INT8, (HIDDEN, columns))
        scale = self.given(f"{name}_scale", TensorProto.FLOAT, (columns,))
        zero = zero or self.constant(128, dtype="uint8", scalar=True)
        weight_zero = self.constant(0, dtype="int8", scalar=True)
        return self.node("MatMulIntegerToFloat", "xq", matrix, "xs", scale, zero, weight_zero)

    def heads(self, x: str) -> str:
        return self.node("Reshape", x, self.constant(0, 0, -1, HEAD, dtype="int64"))

    def scores(self) -> str:
        q, k = (self.heads(self.product(name)) for name in "qk")
        return self.node("FusedMatMul", q, k, transB=1, transBatchA=1, transBatchB=1)

    def finish(self, last: str) -> bytes:
        self._nodes[-1].output[0] = "partial"
        assert self._nodes[-1].name == last
        inputs = [
            helper.make_tensor_value_info(name, *shaped) for name, shaped in self._inputs.items()
        ]
        output = helper.make_tensor_value_info("partial", TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "odd", inputs, [output], self._initial)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(FUSED, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return bytes(model.SerializeToString())


def a_vector_for_all(g: Graph) -> str:
    return g.node("Mul", g.product("w"), g.constant(*range(1, CHANNELS + 1)))


def a_mask_of_channels(g: Graph) -> str:
    mask = g.given("mask", TensorProto.FLOAT, ("B", 1, 1, "S"))
    return g.node("Add", g.product("w"), mask)  # as many channels as tokens


def one_channel_added_to_many(g: Graph) -> str:
    return g.node("Add", g.product("w"), g.product("v", columns=1))


def a_vector_added_to_heads(g: Graph) -> str:
    vector = g.given("vector", TensorProto.FLOAT, (HEAD,))
    return g.node("Add", g.heads(g.product("w")), vector)


def one_number_added_to_channels(g: Graph) -> str:
    return g.node("Add", g.product("w"), g.given("number", TensorProto.FLOAT, (1,)))


def shares_of_heads(g: Graph) -> str:
    return g.node("Softmax", g.scores(), axis=1)


def shares_of_channels(g: Graph) -> str:
    return g.node("Softmax", g.product("w"), axis=-1)


def heads_that_attend_to_each_other(g: Graph) -> str:
    q, k = (g.heads(g.product(name)) for name in "qk")
    return g.node("FusedMatMul", q, k, transB=1)


def all_in_one_row(g: Graph) -> str:
    return g.node("Reshape", g.product("w"), g.constant(1, -1, dtype="int64"))


def the_largest_of_tokens(g: Graph) -> str:
    return g.node("ReduceMax", g.product("w"), g.constant(0, dtype="int64"), keepdims=1)


def the_largest_without_its_axis(g: Graph) -> str:
    return g.node("ReduceMax", g.product("w"), g.constant(-1, dtype="int64"), keepdims=0)


def the_largest_of_heads(g: Graph) -> str:
    heads = g.heads(g.product("w"))
    return g.node("ReduceMax", heads, g.constant(-1, dtype="int64"), keepdims=1)


def picked_tokens(g: Graph) -> str:
    return g.node("Gather", g.product("w"), g.given("picked", TensorProto.INT64, (3,)), axis=0)


def picked_heads(g: Graph) -> str:
    picked = g.given("picked", TensorProto.INT64, (2,))
    return g.node("Gather", g.heads(g.product("w")), picked, axis=2)


def zero_points_of_their_own(g: Graph) -> str:
    return g.product("w", zero=g.given("zero", TensorProto.UINT8, ()))


def turned_around(g: Graph) -> str:
    return g.node("Transpose", g.product("w"), perm=[2, 1, 0])


ODD = (
    a_vector_for_all,
    a_mask_of_channels,
    one_channel_added_to_many,
    a_vector_added_to_heads,
    one_number_added_to_channels,
    shares_of_heads,
    shares_of_channels,
    heads_that_attend_to_each_other,
    all_in_one_row,
    the_largest_of_tokens,
    the_largest_without_its_axis,
    the_largest_of_heads,
    picked_tokens,
    picked_heads,
    zero_points_of_their_own,
    turned_around,
)


def a_group(raw: bytes, generator: np.random.Generator) -> Arrays:
    found = Arrays()
    for item in load_from_string(raw).graph.input:
        kind = item.type.tensor_type
        shape = [axis.dim_value for axis in kind.shape.dim]
        if kind.elem_type == TensorProto.FLOAT:
            found[item.name] = generator.normal(0, 0.1, shape).astype(np.float32)
        elif kind.elem_type == TensorProto.INT64:
            found[item.name] = np.sort(generator.choice(3, shape, replace=False))
        elif kind.elem_type == TensorProto.INT8:
            found[item.name] = generator.integers(-127, 128, shape).astype(np.int8)
        else:
            found[item.name] = generator.integers(100, 156, shape).astype(np.uint8)
    return found


@pytest.mark.parametrize("odd", ODD)
def test_the_values_are_those_of_each_group_alone(odd: Callable[[Graph], str]) -> None:
    graph, generator = Graph(), np.random.default_rng(11)
    raw = graph.finish(odd(graph))
    shared = hidden_states(1, TOKENS, generator)
    groups = [
        {name: array for name, array in a_group(raw, generator).items() if name not in shared}
        for _ in range(2)
    ]
    whole, given = merged(raw, groups, shared, shape=None)
    found = answer(whole, shared | given)
    for mine, group in zip(found, groups, strict=True):
        (alone,) = answer(raw, shared | group)
        assert np.ptp(alone) > 0
        np.testing.assert_array_equal(mine, alone, strict=True)
