"""What the graphs of the first edition were made from, read from the graphs themselves.

In: the ONNX models of a pack of format 1 by name. Out: the ``GraphSpec`` of a model that computes
the same, or an error. Such packs do not state it, and their graphs took the slices of an operand
one by one. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx

from shard_tools.graphs.blocks import Activation
from shard_tools.graphs.embed_head import HeadSpec, HeadStep
from shard_tools.graphs.spec import ATTENTION, FFN, GraphSpec
from sti.errors import PackFormatError

_ACTIVATIONS: Mapping[str, Activation] = {"Gelu": "gelu", "FastGelu": "gelu_new", "Relu": "relu"}
_FORMS = ("s8", "u8")
_MASKED = f"{ATTENTION}_masked"
_PRODUCT = {
    *("Abs", "Add", "Concat", "Gather", "MatMul", "MatMulIntegerToFloat", "Mul"),
    *("QuantizeLinear", "ReduceMax", "Reshape", "Shape", "Transpose"),
}
_OPERATORS: Mapping[str, Collection[str]] = {
    "embed": {"Add", "Cast", "Gather", "LayerNormalization", "Shape", "Slice"},
    "connect": {"Add", "LayerNormalization"},
    "head": {
        *("Add", "Concat", "Div", "Gather", "Identity", "MatMul", "Max", "ReduceL2"),
        *("ReduceSum", "Slice", "Squeeze", "Tanh", "Unsqueeze"),
    },
    ATTENTION: {*_PRODUCT, "MultiHeadAttention"},
    _MASKED: {*_PRODUCT, "FusedMatMul", "Softmax"},
    FFN: {*_PRODUCT, *_ACTIVATIONS, "Div", "Max", "Mod", "Range", "Squeeze", "Unsqueeze"},
}
"""What the graphs of the first edition compute with."""


def parse_graphs(graphs: Mapping[str, bytes], *, where: str) -> GraphSpec:
    """The spec of the graphs.

    Raises:
        PackFormatError: they are not those of the first edition; names a graph.
    """
    ends = ("embed", "connect", "head")
    names = [*ends, *(f"{name}.{v}" for v in _FORMS for name in (ATTENTION, _MASKED, FFN))]
    for name in sorted({*names} ^ graphs.keys()):
        raise _unknown(where, f"graph {name!r} is {'missing' if name in names else 'unknown'}")
    try:
        models = {name: onnx.load_model_from_string(data) for name, data in graphs.items()}
        for name, model in models.items():
            for node in model.graph.node:
                if node.op_type not in _OPERATORS[name.partition(".")[0]]:
                    raise _unknown(where, f"graph {name!r} has an operator {node.op_type!r}")
        found = [
            _parsed(models, attention, variant)
            for attention in (ATTENTION, _MASKED)
            for variant in _FORMS
        ]
        GraphSpec.from_json(found[0].to_json(), where=where)
    except (DecodeError, LookupError, TypeError, ValueError) as error:
        raise _unknown(where, f"the graphs cannot be understood ({error!r:.80})") from error
    if any(spec != found[0] for spec in found):
        raise _unknown(where, "variants of a graph contradict one another")
    return found[0]


def _unknown(where: str, what: str) -> PackFormatError:
    return PackFormatError(f"{where}: {what}; build the pack again from its checkpoint")


def _parsed(models: Mapping[str, onnx.ModelProto], name: str, variant: str) -> GraphSpec:
    """A spec that fits what the graphs show of it.

    Args:
        name: of the attention graph.
        variant: of the kind of weights.
    """
    attention, ffn = models[f"{name}.{variant}"], models[f"{FFN}.{variant}"]
    connect = models["connect"]
    (norm,) = (node for node in connect.graph.node if node.op_type == "LayerNormalization")
    (epsilon,) = (item.f for item in norm.attribute if item.name == "epsilon")
    (activation,) = (
        _ACTIVATIONS[node.op_type] for node in ffn.graph.node if node.op_type in _ACTIVATIONS
    )
    return GraphSpec(
        hidden=_shape(_inputs(connect)["partial"])[-1],
        head_size=_shape(_inputs(attention)["q"])[-1],
        neurons=_shape(_inputs(ffn)["up"])[-1],
        activation=activation,
        epsilon=float(str(np.float32(epsilon))),  # 1e-12, not the nearest float32 in full
        head=_head(models["head"]),
        side={ATTENTION: _side(attention), FFN: _side(ffn)},
    )


def _head(model: onnx.ModelProto) -> HeadSpec:
    inputs, (output,) = _inputs(model), model.graph.output
    (hidden,) = _shape(inputs["h"])[-1:]
    normalize = any(node.op_type == "ReduceL2" for node in model.graph.node)
    steps = (HeadStep("normalize", hidden),) if normalize else ()
    if output.name == "logits" and len(_shape(output)) == 3:
        return HeadSpec("tokens")
    pooling: Any = "cls"
    if "tokens" in inputs:
        pooling = "mean"
    elif "pooler_w" in inputs:
        pooling = "pooler"
    kind: Any = "embedding" if output.name == "embedding" else "sequence"
    return HeadSpec(kind, (pooling,), steps)


def _inputs(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    return {item.name: item for item in model.graph.input}


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Extents, 0 for symbolic ones."""
    return [extent.dim_value for extent in value.type.tensor_type.shape.dim]


def _side(model: onnx.ModelProto) -> tuple[str, ...]:
    """Products with side inputs, in the order of the graph's inputs."""
    ends = "_idx"
    return tuple(name.removesuffix(ends) for name in _inputs(model) if name.endswith(ends))
