"""What graphs were made from, read from the graphs themselves.

In: the ONNX models of a pack by name. Out: their ``GraphSpec``, which makes the same bytes again,
or an error. For packs that do not state it. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx

from shard_tools.graphs.blocks import Activation
from shard_tools.graphs.embed_head import HeadSpec
from shard_tools.graphs.spec import ATTENTION, FFN, GraphSpec
from sti.errors import PackFormatError

_ACTIVATIONS: Mapping[str, Activation] = {"Gelu": "gelu", "FastGelu": "gelu_new", "Relu": "relu"}


def parse_graphs(graphs: Mapping[str, bytes], *, where: str) -> GraphSpec:
    """The spec of the graphs.

    Raises:
        PackFormatError: they are not what this release makes from any spec; names a graph.
    """
    try:
        spec = _parsed({name: onnx.load_model_from_string(data) for name, data in graphs.items()})
        made = spec.build()
    except (DecodeError, LookupError, TypeError, ValueError) as error:
        raise PackFormatError(
            f"{where}: the graphs cannot be understood ({error!r:.80}); build the pack again from "
            "its checkpoint"
        ) from error
    for name in sorted(made.keys() | graphs.keys()):
        if made.get(name) != graphs.get(name):
            raise PackFormatError(
                f"{where}: graph {name!r} is not one that this release makes; build the pack again "
                "from its checkpoint"
            )
    return spec


def _parsed(models: Mapping[str, onnx.ModelProto]) -> GraphSpec:
    """A spec that fits what the graphs show of it."""
    attention, ffn = models[f"{ATTENTION}.s8"], models[f"{FFN}.s8"]
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
    normalize = any(node.op_type == "ReduceL2" for node in model.graph.node)
    if output.name == "logits" and len(_shape(output)) == 3:
        return HeadSpec("tokens")
    pooling: Any = "cls"
    if "tokens" in inputs:
        pooling = "mean"
    elif "pooler_w" in inputs:
        pooling = "pooler"
    return HeadSpec("embedding" if output.name == "embedding" else "sequence", pooling, normalize)


def _inputs(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    return {item.name: item for item in model.graph.input}


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Extents, 0 for symbolic ones."""
    return [extent.dim_value for extent in value.type.tensor_type.shape.dim]


def _side(model: onnx.ModelProto) -> tuple[str, ...]:
    """Products with side inputs, in the order of the graph's inputs."""
    ends = "_idx"
    return tuple(name.removesuffix(ends) for name in _inputs(model) if name.endswith(ends))
