"""Graphs that mean harm, made from sound ones.

In: a serialized graph of a pack, a source of random numbers. Out: a serialized graph that a pack
must not be used with, by kind: ``HOSTILE``. Most compute what the sound one does, with the harm
beside it. Knows nothing of packs, and needs the ``onnx`` package, which is imported when a graph
is made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

Harm = Callable[[bytes, random.Random], bytes]
"""From a sound serialized graph to a hostile one."""

_FLOAT, _INT64 = 1, 7


def _model(raw: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(raw)


def _constant(model: Any, name: str, array: Any) -> str:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _floats(model: Any, name: str, *shape: int, value: float = 0.0) -> str:
    import numpy as np

    return _constant(model, name, np.full(shape, value, np.float32))


def _ints(model: Any, name: str, *values: int) -> str:
    import numpy as np

    return _constant(model, name, np.array(values, np.int64))


def _node(model: Any, operator: str, inputs: list[str], output: str, **more: Any) -> str:
    from onnx import helper

    node = helper.make_node(operator, inputs, [output], output, **more)
    model.graph.node.append(node)
    return output


def _beside(model: Any, rng: random.Random, number: str) -> bytes:
    """The model with a float number added to an output, so that nobody leaves it out."""
    outputs = [item for item in model.graph.output if item.type.tensor_type.elem_type == _FLOAT]
    name = rng.choice(outputs).name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, found in enumerate(names):
                if found == name:
                    names[place] = "harmless"
    _node(model, "Add", ["harmless", number], name)
    return bytes(model.SerializeToString())


def _summed(model: Any, rng: random.Random, large: str) -> bytes:
    """The model with the sum of a large float value added to an output, by operators of packs."""
    flat = _node(model, "Reshape", [large, _ints(model, "flat", -1)], "flattened")
    total = _node(model, "ReduceSum", [flat, _ints(model, "first", 0)], "harm", keepdims=1)
    return _beside(model, rng, total)


def _add(model: Any, *nodes: Any) -> bytes:
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _some_node(model: Any, rng: random.Random) -> Any:
    return rng.choice(model.graph.node)


# Operators.


def _unknown_operator(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    names = ("If_", "Loop2", "ReadFile", "Einsum", "Resize", "NonZero", "TfIdfVectorizer", "LSTM")
    _some_node(model, rng).op_type = rng.choice(names)
    return bytes(model.SerializeToString())


def _unknown_domain(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    domain = rng.choice(("ai.onnx.ml", "com.stranger", "com.microsoft.nchwc", "ai.onnx.contrib"))
    _some_node(model, rng).domain = domain
    if rng.random() < 0.5:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return bytes(model.SerializeToString())


def _random_numbers(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    operator = rng.choice(("RandomNormal", "RandomUniform"))
    return _summed(model, rng, _node(model, operator, [], "random", shape=[3, 1 << 30]))


def _unknown_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    name = rng.choice(("body_", "allowzero", "library", "path", "auto_pad", "perms"))
    value = rng.choice((1, "/etc/passwd", [1] * rng.randrange(1, 1000), 0.5))
    _some_node(model, rng).attribute.append(helper.make_attribute(name, value))
    return bytes(model.SerializeToString())


def _huge_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    count = rng.choice((10_000, 1_000_000))
    node = _some_node(model, rng)
    node.attribute.append(helper.make_attribute(rng.choice(("perm", "axes")), [1 << 62] * count))
    return bytes(model.SerializeToString())


def _huge_number(raw: bytes, rng: random.Random) -> bytes:
    """A number of an attribute, or of a constant of numbers, far outside of what it can be."""
    import numpy as np
    from onnx import numpy_helper

    model = _model(raw)
    found = [a for node in model.graph.node for a in node.attribute if a.type == 2]
    constants = [item for item in model.graph.initializer if item.data_type == _INT64]
    value = rng.choice((1 << 62, -(1 << 62), 1 << 31, -100))
    if found and (not constants or rng.random() < 0.5):
        rng.choice(found).i = value
    elif constants:
        chosen = rng.choice(constants)
        array = np.full_like(numpy_helper.to_array(chosen), value)
        chosen.CopyFrom(numpy_helper.from_array(array, chosen.name))
    return bytes(model.SerializeToString())


# Graphs inside of graphs, and code that comes along.


def _inner(rng: random.Random) -> Any:
    from onnx import helper

    output = helper.make_tensor_value_info("inner", _FLOAT, [rng.randrange(1, 9)])
    values = helper.make_tensor("v", _FLOAT, [1], [1.0])
    constant = helper.make_node("Constant", [], ["inner"], value=values)
    return helper.make_graph([constant], "inner", [], [output])


def _control_flow(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper, numpy_helper

    model = _model(raw)
    import numpy as np

    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    if rng.random() < 0.5:
        node = helper.make_node(
            "If", ["yes"], ["flow"], "flow", then_branch=_inner(rng), else_branch=_inner(rng)
        )
    else:
        times = _ints(model, "times", 1 << 60)
        node = helper.make_node("Loop", [times, "yes"], ["flow"], "flow", body=_inner(rng))
    return _add(model, node)


def _subgraph_attribute(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    value = _inner(rng) if rng.random() < 0.5 else [_inner(rng), _inner(rng)]
    _some_node(model, rng).attribute.append(helper.make_attribute("body", value))
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

    model = _model(raw)
    domain = rng.choice(("stranger", "", "com.microsoft"))
    node = helper.make_node("Identity", ["x"], ["y"])
    opsets = [helper.make_opsetid("", 18)]
    name = rng.choice(("Gelu", "Mine", "Add"))
    model.functions.append(helper.make_function(domain, name, ["x"], ["y"], [node], opsets))
    return bytes(model.SerializeToString())


def _training(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    model.training_info.add().algorithm.CopyFrom(_inner(rng))
    return bytes(model.SerializeToString())


def _several_graphs(raw: bytes, rng: random.Random) -> bytes:
    from sti.graphs import wire

    return raw + wire.field(7, rng.choice((b"", bytes(_inner(rng).SerializeToString()))))


# Other files.


def _external(raw: bytes, location: str, rng: random.Random) -> bytes:
    model = _model(raw)
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

    model = _model(raw)
    tensor = helper.make_tensor("value", _FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = 1
    location = rng.choice(("/etc/passwd", "secrets.txt"))
    tensor.external_data.add(key="location", value=location)
    if rng.random() < 0.5:
        return _summed(model, rng, _node(model, "Constant", [], "file", value=tensor))
    node = _some_node(model, rng)
    node.attribute.append(helper.make_attribute("value", tensor))
    return bytes(model.SerializeToString())


# Memory and time.


def _huge_constant_of_shape(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    shape = _ints(model, "shape", *rng.choice(((1 << 31,), (1 << 16, 1 << 15), (1 << 40,))))
    return _summed(model, rng, _node(model, "ConstantOfShape", [shape], "huge"))


def _doubling_concat(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    value = _floats(model, "start", rng.choice((8, 1024)))
    for number in range(rng.randrange(24, 50)):
        value = _node(model, "Concat", [value, value], f"twice_{number}", axis=0)
    return _summed(model, rng, value)


def _expand_tile(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    start, times = _floats(model, "start", 1), _ints(model, "times", 1 << rng.randrange(31, 40))
    return _summed(
        model, rng, _node(model, rng.choice(("Expand", "Tile")), [start, times], "large")
    )


def _range_pad(raw: bytes, rng: random.Random) -> bytes:
    import numpy as np

    model = _model(raw)
    if rng.random() < 0.5:
        ends = [_constant(model, f"end_{x}", np.float32(x)) for x in (0, 1e10, 1)]
        return _summed(model, rng, _node(model, "Range", ends, "large"))
    start, pads = _floats(model, "start", 1), _ints(model, "pads", 0, 1 << 31)
    return _summed(model, rng, _node(model, "Pad", [start, pads], "large"))


def _outer_sums(raw: bytes, rng: random.Random) -> bytes:
    """Broadcasting, of constants that are small: ``[n, 1, 1] + [1, n, 1] + [1, 1, n]``."""
    model = _model(raw)
    extent, axes = rng.choice(((30_000, 3), (700, 4))), 4
    value = ""
    for axis in range(axes if extent[1] == axes else 3):
        shape = [1] * extent[1]
        shape[axis] = extent[0] if extent[0] < 1000 or axis < 2 else 8
        other = _floats(model, f"side_{axis}", *shape)
        value = (
            _node(model, rng.choice(("Add", "Mul")), [value, other], f"grown_{axis}")
            if (value)
            else other
        )
    return _summed(model, rng, value)


def _of_texts(model: Any, rng: random.Random) -> str:
    """An input that is larger for more and longer texts."""
    kinds = ((item.name, item.type.tensor_type) for item in model.graph.input)
    names = [name for name, kind in kinds if kind.elem_type == _FLOAT and len(kind.shape.dim) >= 3]
    return rng.choice([name for name in names if not name.endswith("_w")])


def _outer_inputs(raw: bytes, rng: random.Random) -> bytes:
    """Broadcasting of an input against itself, so that size grows with its square."""
    model = _model(raw)
    name = _of_texts(model, rng)
    flat = [_ints(model, "column", -1, 1), _ints(model, "row", 1, -1)]
    sides = [_node(model, "Reshape", [name, shape], f"{shape}_of") for shape in flat]
    operator = rng.choice(("Add", "Mul", "MatMul", "Max"))
    return _summed(model, rng, _node(model, operator, sides, "square"))


def _repeated_gather(raw: bytes, rng: random.Random) -> bytes:
    """Rows taken again and again: small constants, a large result."""
    import numpy as np

    model = _model(raw)
    count = rng.choice((8, 4096))
    value = again = _constant(model, "again", np.zeros((1, count), np.int64))
    for number in range(3 if count > 8 else 11):
        value = _node(model, "Gather", [value, again], f"more_{number}", axis=number)
    rows = _floats(model, "rows", 8)
    return _summed(model, rng, _node(model, "Gather", [rows, value], "large", axis=0))


def _endless_compute(raw: bytes, rng: random.Random) -> bytes:
    """Products of a matrix that is not large by itself, again and again."""
    model = _model(raw)
    name = _of_texts(model, rng)
    sides = []
    for number, shape in enumerate(((-1, 1), (1, -1))):
        wanted = _ints(model, f"shape_{number}", *shape)
        sides.append(_node(model, "Reshape", [name, wanted], f"side_{number}"))
    square = value = _node(model, "MatMul", sides, "square")
    for number in range(rng.choice((20, 80, 2000))):
        value = _node(model, "MatMul", [value, square], f"product_{number}")
    return _summed(model, rng, value)


def _too_many_nodes(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    value = _floats(model, "start", 1)
    for number in range(rng.choice((200, 500, 2_000, 30_000))):
        value = _node(model, rng.choice(("Tanh", "Identity", "Abs")), [value], f"again_{number}")
    return _summed(model, rng, value)


def _giant_constant(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    return _summed(model, rng, _floats(model, "giant", rng.choice((9, 1_000, 1 << 20, 1 << 22))))


def _stated_giant(raw: bytes, rng: random.Random) -> bytes:
    """A constant that says it is much larger than it is."""
    model = _model(raw)
    del (tensor := rng.choice(model.graph.initializer)).dims[:]
    tensor.dims.extend(rng.choice(([1 << 40], [1 << 33, 1 << 33], [-1], [1 << 62, 4])))
    return bytes(model.SerializeToString())


# What does not fit the manifest, or itself.


def _wrong_input_type(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    kind = rng.choice(model.graph.input).type.tensor_type
    kind.elem_type = rng.choice([x for x in (*range(-1, 17), 99) if x != kind.elem_type])
    return bytes(model.SerializeToString())


def _wrong_output_shape(raw: bytes, rng: random.Random) -> bytes:
    """What is computed is of another shape than the manifest says."""
    model = _model(raw)
    name = rng.choice(model.graph.output).name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, found in enumerate(names):
                if found == name:
                    names[place] = "right"
    if rng.random() < 0.5:
        _node(model, "Flatten", ["right"], name, axis=1)
    else:
        _node(model, "Concat", ["right", "right"], name, axis=rng.randrange(2))
    for item in model.graph.output:
        if item.name == name and rng.random() < 0.5:
            item.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


def _wrong_stated_shape(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    shape = rng.choice((*model.graph.input, *model.graph.output)).type.tensor_type.shape
    if rng.random() < 0.5:
        shape.dim.add().dim_value = rng.randrange(1, 1 << 40)
    else:
        rng.choice(shape.dim).dim_value = rng.choice((-1, 7, 1 << 40))
    return bytes(model.SerializeToString())


def _missing_output(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    if rng.random() < 0.5:
        del model.graph.output[rng.randrange(len(model.graph.output))]
    else:
        del model.graph.node[len(model.graph.node) - 1]
    return bytes(model.SerializeToString())


def _more_outputs(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    name = _some_node(model, rng).output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, _FLOAT, None))
    return bytes(model.SerializeToString())


def _missing_input(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    del model.graph.input[rng.randrange(len(model.graph.input))]
    return bytes(model.SerializeToString())


def _more_inputs(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    name = rng.choice(("x", "../../etc/passwd", "words ", "\x1b[2J", "h" * 100_000))
    model.graph.input.append(helper.make_tensor_value_info(name, _FLOAT, ["S"]))
    return bytes(model.SerializeToString())


def _undefined_input(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    node = rng.choice([node for node in model.graph.node if node.input])
    node.input[rng.randrange(len(node.input))] = rng.choice(("nowhere", "", "\x1b]0;owned\x07"))
    return bytes(model.SerializeToString())


def _duplicate_names(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    nodes = list(model.graph.node)
    names = [*(x.name for x in model.graph.input), *(x.name for x in model.graph.initializer)]
    names += [node.output[0] for node in nodes[:-1]]
    kind = rng.randrange(3)
    if kind == 0:
        nodes[-1].output.append(rng.choice(names))
    elif kind == 1:
        model.graph.initializer.append(rng.choice(model.graph.initializer))
    else:
        model.graph.input.append(rng.choice(model.graph.input))
    return bytes(model.SerializeToString())


def _cycle(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    nodes = [node for node in model.graph.node if node.input]
    early = rng.randrange(len(nodes) - 1)
    late = rng.randrange(early, len(nodes))
    node = nodes[early]
    node.input[rng.randrange(len(node.input))] = nodes[late].output[0]
    return bytes(model.SerializeToString())


# Versions and rarely used parts.


def _unknown_opset(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    kind = rng.randrange(4)
    if kind == 0:
        model.opset_import[0].version = rng.choice((0, -1, 1, 6, 999, 1 << 40))
    elif kind == 1:
        del model.opset_import[:]
    elif kind == 2:
        model.opset_import.append(model.opset_import[0])
    else:
        model.ir_version = rng.choice((0, 1, 999, -5))
    return bytes(model.SerializeToString())


def _sparse_initializer(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = _model(raw)
    values = helper.make_tensor("sparse", _FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", _INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [1 << rng.randrange(31, 50)])
    model.graph.sparse_initializer.append(sparse)
    return bytes(model.SerializeToString())


def _quantization_annotation(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    model.graph.quantization_annotation.add().tensor_name = _some_node(model, rng).output[0]
    return bytes(model.SerializeToString())


def _value_infos(raw: bytes, rng: random.Random) -> bytes:
    """Statements on what lies between, of wrong types and shapes."""
    from onnx import helper

    model = _model(raw)
    for node in model.graph.node:
        info = helper.make_tensor_value_info(node.output[0], 8, [rng.randrange(1 << 40)])
        model.graph.value_info.append(info)
    return bytes(model.SerializeToString())


def _metadata(raw: bytes, rng: random.Random) -> bytes:
    model = _model(raw)
    size = rng.choice((100, 5_000_000))
    key = rng.choice(("ort_config", "session.load_model_format", "x"))
    model.metadata_props.add(key=key, value="x" * size)
    return bytes(model.SerializeToString())


def _non_finite_constants(raw: bytes, rng: random.Random) -> bytes:
    import numpy as np

    model = _model(raw)
    value = rng.choice((np.nan, np.inf, -np.inf))
    array = np.array(value, np.float32)
    if rng.random() < 0.5:
        found = [x for x in model.graph.initializer if x.data_type == _FLOAT]
        if found:
            tensor = rng.choice(found)
            tensor.raw_data = array.tobytes() * max(1, len(tensor.raw_data) // 4)
            return bytes(model.SerializeToString())
    return _beside(model, rng, _constant(model, "not_finite", array))


def _strings(raw: bytes, rng: random.Random) -> bytes:
    """A constant of texts, which is not memory as other constants are."""
    from onnx import helper

    model = _model(raw)
    texts = helper.make_tensor("texts", 8, [2], [b"a" * rng.randrange(1, 1 << 16), b"b"])
    model.graph.initializer.append(texts)
    return bytes(model.SerializeToString())


# Bytes.


def _truncated(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def _garbage(raw: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, len(raw)))
    found = bytearray(raw)
    if kind == 1:  # a stretch of it
        start = rng.randrange(len(raw))
        stretch = rng.randbytes(min(rng.randrange(16, 256), len(raw) - start))
        found[start : start + len(stretch)] = stretch
        return bytes(found)
    return bytes(found) + rng.randbytes(rng.randrange(4, 64))


def _long_fields(raw: bytes, rng: random.Random) -> bytes:
    """Lengths that lead far beyond the end, and numbers that do not end."""
    place = rng.randrange(len(raw))
    return raw[:place] + b"\xff" * rng.choice((9, 10, 1000)) + b"\x7f" + raw[place:]


def _many_fields(raw: bytes, rng: random.Random) -> bytes:
    """A few bytes for each of very many fields."""
    return raw + rng.choice((b"\x08\x08", b"\x42\x00", b"\x72\x00", b"\x3a\x00")) * 500_000


HOSTILE: Mapping[str, Harm] = {
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
    "huge ConstantOfShape": _huge_constant_of_shape,
    "doubling concat": _doubling_concat,
    "expand or tile": _expand_tile,
    "range or pad": _range_pad,
    "outer sums": _outer_sums,
    "outer sums of inputs": _outer_inputs,
    "repeated gather": _repeated_gather,
    "endless compute": _endless_compute,
    "too many nodes": _too_many_nodes,
    "giant constant": _giant_constant,
    "constant that says it is giant": _stated_giant,
    "wrong input type": _wrong_input_type,
    "wrong output shape": _wrong_output_shape,
    "wrong stated shape": _wrong_stated_shape,
    "missing output": _missing_output,
    "more outputs": _more_outputs,
    "missing input": _missing_input,
    "more inputs": _more_inputs,
    "undefined input": _undefined_input,
    "duplicate names": _duplicate_names,
    "cycle": _cycle,
    "unknown opset": _unknown_opset,
    "sparse initializer": _sparse_initializer,
    "quantization annotation": _quantization_annotation,
    "values that are said to be others": _value_infos,
    "metadata": _metadata,
    "non-finite constants": _non_finite_constants,
    "texts as constants": _strings,
    "truncated bytes": _truncated,
    "garbage bytes": _garbage,
    "long fields": _long_fields,
    "many fields": _many_fields,
}
"""By kind. Any graph of a pack will do, and each must be refused."""
