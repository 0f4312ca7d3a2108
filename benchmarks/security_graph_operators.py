"""Hostile graphs of what no pack needs: operators, attributes, inner graphs, other files.

In: a serialized graph, a source of random numbers. Out: a hostile one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from benchmarks.security_graph_changes import (
    FLOAT,
    INT64,
    Harm,
    add_ints,
    add_node,
    inner_graph,
    model_of,
    some_node,
    summed,
)


def _unknown_operator(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    names = ("If_", "Loop2", "ReadFile", "Einsum", "Resize", "NonZero", "TfIdfVectorizer", "LSTM")
    some_node(model, rng).op_type = rng.choice(names)
    return bytes(model.SerializeToString())


def _unknown_domain(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    domain = rng.choice(("ai.onnx.ml", "com.stranger", "com.microsoft.nchwc", "ai.onnx.contrib"))
    some_node(model, rng).domain = domain
    if rng.random() < 0.5:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return bytes(model.SerializeToString())


def _random_numbers(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    operator = rng.choice(("RandomNormal", "RandomUniform"))
    return summed(model, rng, add_node(model, operator, [], "random", shape=[3, 1 << 30]))


def _unknown_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    name = rng.choice(("body_", "allowzero", "library", "path", "auto_pad", "perms"))
    value = rng.choice((1, "/etc/passwd", [1] * rng.randrange(1, 1000), 0.5))
    some_node(model, rng).attribute.append(helper.make_attribute(name, value))
    return bytes(model.SerializeToString())


def _huge_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    count = rng.choice((1_000, 100_000))
    node = some_node(model, rng)
    node.attribute.append(helper.make_attribute(rng.choice(("perm", "axes")), [1 << 62] * count))
    return bytes(model.SerializeToString())


def _huge_number(raw: bytes, rng: random.Random) -> bytes:
    """A number of an attribute, or of a constant of numbers, far outside of what it can be."""
    import numpy as np
    from onnx import numpy_helper

    model = model_of(raw)
    found = [a for node in model.graph.node for a in node.attribute if a.type == 2]
    constants = [item for item in model.graph.initializer if item.data_type == INT64]
    value = rng.choice((1 << 62, -(1 << 62), 1 << 31, -100))
    if found and (not constants or rng.random() < 0.5):
        rng.choice(found).i = value
    elif constants:
        chosen = rng.choice(constants)
        array = np.full_like(numpy_helper.to_array(chosen), value)
        chosen.CopyFrom(numpy_helper.from_array(array, chosen.name))
    return bytes(model.SerializeToString())


def _control_flow(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper, numpy_helper

    model = model_of(raw)
    import numpy as np

    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    if rng.random() < 0.5:
        node = helper.make_node(
            "If",
            ["yes"],
            ["flow"],
            "flow",
            then_branch=inner_graph(rng),
            else_branch=inner_graph(rng),
        )
    else:
        times = add_ints(model, "times", 1 << 60)
        node = helper.make_node("Loop", [times, "yes"], ["flow"], "flow", body=inner_graph(rng))
    model.graph.node.append(node)
    return bytes(model.SerializeToString())


def _subgraph_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    value = inner_graph(rng) if rng.random() < 0.5 else [inner_graph(rng), inner_graph(rng)]
    some_node(model, rng).attribute.append(helper.make_attribute("body", value))
    return bytes(model.SerializeToString())


def _nested_graphs(raw: bytes, rng: random.Random) -> bytes:
    """A graph inside of a graph, deep enough to end a reader that calls itself."""
    from sti.graphs import wire

    inner = b""
    for _ in range(rng.choice((90, 3000))):
        inner = wire.field(1, wire.field(5, wire.text(1, "body") + wire.field(6, inner)))
    return raw + wire.field(7, inner)


def _function(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    domain = rng.choice(("stranger", "", "com.microsoft"))
    node = helper.make_node("Identity", ["x"], ["y"])
    opsets = [helper.make_opsetid("", 18)]
    name = rng.choice(("Gelu", "Mine", "Add"))
    model.functions.append(helper.make_function(domain, name, ["x"], ["y"], [node], opsets))
    return bytes(model.SerializeToString())


def _training(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    model.training_info.add().algorithm.CopyFrom(inner_graph(rng))
    return bytes(model.SerializeToString())


def _several_graphs(raw: bytes, rng: random.Random) -> bytes:
    from sti.graphs import wire

    return raw + wire.field(7, rng.choice((b"", bytes(inner_graph(rng).SerializeToString()))))


def _external(raw: bytes, location: str, rng: random.Random) -> bytes:
    model = model_of(raw)
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entries = {"location": location, "offset": "0", "length": str(rng.choice((4, 8, 1 << 20)))}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


def _external_absolute(raw: bytes, rng: random.Random) -> bytes:
    return _external(raw, rng.choice(("/etc/passwd", "/proc/self/mem", "/dev/zero")), rng)


def _external_relative(raw: bytes, rng: random.Random) -> bytes:
    names = ("secrets.txt", "../../etc/passwd", "./README.md", ".ssh/id_ed25519", "a/../b")
    return _external(raw, rng.choice(names), rng)


def _external_memory(raw: bytes, rng: random.Random) -> bytes:
    """Data at an address in this process, as ONNX Runtime marks its own tensors."""
    return _external(raw, "*/_ORT_MEM_ADDR_/*", rng)


def _external_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    tensor = helper.make_tensor("value", FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = 1
    location = rng.choice(("/etc/passwd", "secrets.txt"))
    tensor.external_data.add(key="location", value=location)
    if rng.random() < 0.5:
        return summed(model, rng, add_node(model, "Constant", [], "file", value=tensor))
    node = some_node(model, rng)
    node.attribute.append(helper.make_attribute("value", tensor))
    return bytes(model.SerializeToString())


OPERATORS: Mapping[str, Harm] = {
    "unknown operator": _unknown_operator,
    "unknown domain": _unknown_domain,
    "random numbers": _random_numbers,
    "unknown attribute": _unknown_attribute,
    "huge attribute": _huge_attribute,
    "huge number": _huge_number,
    "control flow": _control_flow,
    "subgraph attribute": _subgraph_attribute,
    "nested graphs": _nested_graphs,
    "function": _function,
    "training": _training,
    "several graphs": _several_graphs,
    "external data, absolute": _external_absolute,
    "external data, relative": _external_relative,
    "external data, an address": _external_memory,
    "external data of an attribute": _external_attribute,
}
"""By kind."""
