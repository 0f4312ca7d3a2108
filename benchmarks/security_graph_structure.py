"""Hostile graphs that fit neither the manifest nor themselves, or have parts that are rarely used.

In: a serialized graph, a source of random numbers. Out: a hostile one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from benchmarks.security_graph_changes import (
    FLOAT,
    INT64,
    Harm,
    add_constant,
    add_node,
    added_to_output,
    model_of,
    some_node,
)


def _wrong_input_type(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    kind = rng.choice(model.graph.input).type.tensor_type
    kind.elem_type = rng.choice([x for x in (*range(-1, 17), 99) if x != kind.elem_type])
    return bytes(model.SerializeToString())


def _wrong_output_shape(raw: bytes, rng: random.Random) -> bytes:
    """What is computed is of another shape than the manifest says."""
    model = model_of(raw)
    name = rng.choice(model.graph.output).name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, found in enumerate(names):
                if found == name:
                    names[place] = "right"
    if rng.random() < 0.5:
        add_node(model, "Flatten", ["right"], name, axis=1)
    else:
        add_node(model, "Concat", ["right", "right"], name, axis=rng.randrange(2))
    for item in model.graph.output:
        if item.name == name and rng.random() < 0.5:
            item.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


def _wrong_stated_shape(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    shape = rng.choice((*model.graph.input, *model.graph.output)).type.tensor_type.shape
    if rng.random() < 0.5:
        shape.dim.add().dim_value = rng.randrange(1, 1 << 40)
    else:
        rng.choice(shape.dim).dim_value = rng.choice((-1, 7, 1 << 40))
    return bytes(model.SerializeToString())


def _missing_output(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    if rng.random() < 0.5:
        del model.graph.output[rng.randrange(len(model.graph.output))]
    else:
        del model.graph.node[len(model.graph.node) - 1]
    return bytes(model.SerializeToString())


def _more_outputs(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    name = some_node(model, rng).output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    return bytes(model.SerializeToString())


def _missing_input(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    del model.graph.input[rng.randrange(len(model.graph.input))]
    return bytes(model.SerializeToString())


def _more_inputs(raw: bytes, rng: random.Random) -> bytes:
    from onnx import helper

    model = model_of(raw)
    name = rng.choice(("x", "../../etc/passwd", "words ", "\x1b[2J", "h" * 100_000))
    model.graph.input.append(helper.make_tensor_value_info(name, FLOAT, ["S"]))
    return bytes(model.SerializeToString())


def _undefined_input(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    node = rng.choice([node for node in model.graph.node if node.input])
    node.input[rng.randrange(len(node.input))] = rng.choice(("nowhere", "", "\x1b]0;owned\x07"))
    return bytes(model.SerializeToString())


def _duplicate_names(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
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
    model = model_of(raw)
    nodes = [node for node in model.graph.node if node.input]
    early = rng.randrange(len(nodes) - 1)
    late = rng.randrange(early, len(nodes))
    node = nodes[early]
    node.input[rng.randrange(len(node.input))] = nodes[late].output[0]
    return bytes(model.SerializeToString())


def _unknown_opset(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
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

    model = model_of(raw)
    values = helper.make_tensor("sparse", FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [1 << rng.randrange(31, 50)])
    model.graph.sparse_initializer.append(sparse)
    return bytes(model.SerializeToString())


def _quantization_annotation(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    model.graph.quantization_annotation.add().tensor_name = some_node(model, rng).output[0]
    return bytes(model.SerializeToString())


def _value_infos(raw: bytes, rng: random.Random) -> bytes:
    """Statements on what lies between, of wrong types and shapes."""
    from onnx import helper

    model = model_of(raw)
    for node in model.graph.node:
        info = helper.make_tensor_value_info(node.output[0], 8, [rng.randrange(1 << 40)])
        model.graph.value_info.append(info)
    return bytes(model.SerializeToString())


def _metadata(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    size = rng.choice((100, 5_000_000))
    key = rng.choice(("ort_config", "session.load_model_format", "x"))
    model.metadata_props.add(key=key, value="x" * size)
    return bytes(model.SerializeToString())


def _non_finite_constants(raw: bytes, rng: random.Random) -> bytes:
    import numpy as np

    model = model_of(raw)
    value = rng.choice((np.nan, np.inf, -np.inf))
    array = np.array(value, np.float32)
    if rng.random() < 0.5:
        found = [x for x in model.graph.initializer if x.data_type == FLOAT]
        if found:
            tensor = rng.choice(found)
            tensor.raw_data = array.tobytes() * max(1, len(tensor.raw_data) // 4)
            return bytes(model.SerializeToString())
    return added_to_output(model, rng, add_constant(model, "not_finite", array))


def _strings(raw: bytes, rng: random.Random) -> bytes:
    """A constant of texts, which is not memory as other constants are."""
    from onnx import helper

    model = model_of(raw)
    texts = helper.make_tensor("texts", 8, [2], [b"a" * rng.randrange(1, 1 << 16), b"b"])
    model.graph.initializer.append(texts)
    return bytes(model.SerializeToString())


STRUCTURE: Mapping[str, Harm] = {
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
}
"""By kind."""
