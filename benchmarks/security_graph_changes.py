"""How sound graphs are changed into hostile ones: models, and operators that are added to them.

In: a serialized graph of a pack. Out: the same with more inside. Knows nothing of packs, and needs
the ``onnx`` package, which is imported when a graph is made.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Harm = Callable[[bytes, random.Random], bytes]
"""From a sound serialized graph to a hostile one."""

FLOAT, INT64 = 1, 7
"""Element types, as ONNX numbers them."""


def model_of(raw: bytes) -> Any:
    """The graph's model, to be changed."""
    import onnx

    return onnx.load_model_from_string(raw)


def add_constant(model: Any, name: str, array: Any) -> str:
    """Give it a constant; its name."""
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def add_floats(model: Any, name: str, *shape: int, value: float = 0.0) -> str:
    """Give it a constant of equal float32 values; its name."""
    import numpy as np

    return add_constant(model, name, np.full(shape, value, np.float32))


def add_ints(model: Any, name: str, *values: int) -> str:
    """Give it a constant of int64 values; its name."""
    import numpy as np

    return add_constant(model, name, np.array(values, np.int64))


def add_node(model: Any, operator: str, inputs: list[str], output: str, **more: Any) -> str:
    """Give it an operator, of names of values; the name of its output."""
    from onnx import helper

    node = helper.make_node(operator, inputs, [output], output, **more)
    model.graph.node.append(node)
    return output


def added_to_output(model: Any, rng: random.Random, number: str) -> bytes:
    """The model with a float number added to an output, so that nobody leaves it out."""
    outputs = [item for item in model.graph.output if item.type.tensor_type.elem_type == FLOAT]
    name = rng.choice(outputs).name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, found in enumerate(names):
                if found == name:
                    names[place] = "harmless"
    add_node(model, "Add", ["harmless", number], name)
    return bytes(model.SerializeToString())


def summed(model: Any, rng: random.Random, large: str) -> bytes:
    """The model with the sum of a large float value added to an output, by operators of packs."""
    flat = add_node(model, "Reshape", [large, add_ints(model, "flat", -1)], "flattened")
    total = add_node(model, "ReduceSum", [flat, add_ints(model, "first", 0)], "harm", keepdims=1)
    return added_to_output(model, rng, total)


def some_node(model: Any, rng: random.Random) -> Any:
    """Any of its operators."""
    return rng.choice(model.graph.node)


def inner_graph(rng: random.Random) -> Any:
    """A graph to lie inside of another one."""
    from onnx import helper

    output = helper.make_tensor_value_info("inner", FLOAT, [rng.randrange(1, 9)])
    values = helper.make_tensor("v", FLOAT, [1], [1.0])
    constant = helper.make_node("Constant", [], ["inner"], value=values)
    return helper.make_graph([constant], "inner", [], [output])
