"""The pieces of every graph of a pack: a graph writer and the quantized matrix product.

In: the nodes of a graph, one by one. Out: one serialized ONNX model, the same bytes for the same
calls. Knows operators and number formats, but nothing of transformers: their blocks are in
``shard_tools.graphs.blocks``.

Hidden states are token-major, ``[S, B, d]``: a sentence is a column, and tokens of one place lie
together. Activations are quantized per token, so that the sentences of a batch do not affect one
another: each token has its own scale, and the zero point is one constant per graph, as ONNX
Runtime's integer products require. Fused operators of the ``com.microsoft`` domain are written out
rather than left to an optimizer, so what runs does not depend on the optimizer's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from sti.codec.weights import WeightForm

OPSET = 18
IR_VERSION = 8
FUSED = "com.microsoft"

FLOAT = TensorProto.FLOAT
HALF = TensorProto.FLOAT16
INT64 = TensorProto.INT64
UINT8 = TensorProto.UINT8
WEIGHT_TYPES: dict[WeightForm, int] = {
    "s8": TensorProto.INT8,
    "u8": TensorProto.UINT8,
    "s7": TensorProto.INT8,
}

SIGNED_ZERO_POINT = 128


@dataclass(frozen=True, slots=True)
class Quantized:
    """Activations as uint8 ``[S, B, n]``, and the scale of each token, ``[S, B, 1]``."""

    values: str
    scale: str
    zero_point: int
    prefix: str = ""
    """Of the names of the graph's inputs that hold them."""


class GraphWriter:
    """Writes one graph: inputs, nodes in order, constants shared by value. Not thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[NodeProto] = []
        self._inputs: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}

    def input(self, name: str, element: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input; a string in the shape is a symbolic extent."""
        self._inputs.append(helper.make_tensor_value_info(name, element, list(shape)))
        return name

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """A small constant; equal ones are stored once."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name

    def ints(self, *values: int) -> str:
        """A constant int64 vector: axes, or a shape."""
        return self.constant(np.array(values, dtype=np.int64))

    def node(
        self, op: str, *inputs: str, out: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        """Append a node with one output and return the output's name."""
        name = out or f"{op}_{len(self._nodes)}"
        made = helper.make_node(op, inputs, [name], name, domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def finish(self, outputs: dict[str, tuple[int, Sequence[int | str]]]) -> bytes:
        """The model, serialized. ``outputs`` maps a name to its element type and shape."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            [
                helper.make_tensor_value_info(name, element, list(shape))
                for name, (element, shape) in outputs.items()
            ],
            list(self._constants.values()),
        )
        model: ModelProto = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)],
        )
        return bytes(model.SerializeToString(deterministic=True))


def quantize_signed(
    g: GraphWriter, x: str, *, values: str | None = None, scale: str | None = None
) -> Quantized:
    """Quantize ``[S, B, n]`` symmetrically around 128: a token's scale is its ``max |x| / 127``.

    A token of zeros has scale 0, so its product is 0 whatever its quantized values are.

    Args:
        values, scale: names of the results, where they are outputs of the graph.
    """
    largest = g.node("ReduceMax", g.node("Abs", x), g.ints(-1), keepdims=1)
    found = g.node("Mul", largest, g.constant(np.float32(1 / 127)), out=scale)
    return _quantize(g, x, found, zero_point=SIGNED_ZERO_POINT, out=values)


def quantize_above(g: GraphWriter, x: str, *, least: float, zero_point: int) -> Quantized:
    """Quantize values that never fall below ``least``, which is zero or a little less.

    ``zero_point`` of the 256 levels are enough for the values below zero, so steps are about half
    as wide as symmetric ones, and the largest value is found without a pass for ``Abs``.
    """
    largest = g.node("ReduceMax", x, g.ints(-1), keepdims=1)
    scale = g.node("Mul", largest, g.constant(np.float32(1 / (255 - zero_point))))
    if zero_point:
        scale = g.node("Max", scale, g.constant(np.float32(-least / zero_point)))
    return _quantize(g, x, scale, zero_point=zero_point)


def _quantize(
    g: GraphWriter, x: str, scale: str, *, zero_point: int, out: str | None = None
) -> Quantized:
    by_token = g.node("Reshape", scale, g.ints(-1))  # one axis of tokens, as the operator wants it
    # The zero point must have the shape of the scale; this makes such a vector in one node.
    far = g.constant(np.float32(1e30))
    zeros = g.node("QuantizeLinear", by_token, far, g.constant(np.uint8(zero_point)))
    values = g.node("QuantizeLinear", g.node("Flatten", x, axis=2), by_token, zeros, axis=0)
    return Quantized(g.node("Reshape", values, g.node("Shape", x), out=out), scale, zero_point)


def product(
    g: GraphWriter,
    x: Quantized,
    name: str,
    *,
    weights: WeightForm,
    out: str | None = None,
) -> str:
    """``[S, B, n]`` times the matrix ``name [n, m]``, in integers -> ``[S, B, m]``.

    The inputs ``name``, int8 or uint8, and ``<name>_scale [m]`` must have been declared.
    """
    weight_zero = g.constant(np.uint8(128) if weights == "u8" else np.int8(0))
    activation_zero = g.constant(np.uint8(x.zero_point))
    # Halves of weights: what they lack is made up for by the scale of the tokens.
    scale = g.node("Mul", x.scale, g.constant(np.float32(2))) if weights == "s7" else x.scale
    inputs = (x.values, name, scale, f"{name}_scale", activation_zero, weight_zero)
    return g.node("MatMulIntegerToFloat", *inputs, domain=FUSED, out=out)
