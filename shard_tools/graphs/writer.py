"""The pieces of every graph of a pack: a graph writer and the quantized matrix product.

In: the nodes of a graph, one by one. Out: one serialized ONNX model, the same bytes for the same
calls. Knows operators and number formats, but nothing of transformers: their blocks are in
``shard_tools.graphs.blocks``.

Activations are quantized per token, so that the sentences of a batch do not affect one another:
each token has its own scale, and the zero point is one constant per graph, as ONNX Runtime's
integer products require. Fused operators of the ``com.microsoft`` domain are written out rather
than left to an optimizer, so what runs does not depend on the optimizer's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Weights = Literal["s8", "u8"]
"""Weights of the integer products: int8, or uint8 with zero point 128."""

OPSET = 18
IR_VERSION = 8
FUSED = "com.microsoft"

FLOAT = TensorProto.FLOAT
HALF = TensorProto.FLOAT16
INT64 = TensorProto.INT64
WEIGHT_TYPES: dict[Weights, int] = {"s8": TensorProto.INT8, "u8": TensorProto.UINT8}

SIGNED_ZERO_POINT = 128


@dataclass(frozen=True, slots=True)
class Quantized:
    """Activations as uint8, and the scale of each token, ``[T]``."""

    values: str
    scale: str
    zero_point: int


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


def quantize_signed(g: GraphWriter, x: str, *, axis: int, over: Sequence[int]) -> Quantized:
    """Quantize symmetrically around 128: ``scale = max |x| / 127`` over the axes ``over``.

    ``axis`` is the axis of the tokens. A token of zeros has scale 0, so its product is 0 whatever
    its quantized values are.
    """
    largest = g.node("ReduceMax", g.node("Abs", x), g.ints(*over), keepdims=0)
    scale = g.node("Mul", largest, g.constant(np.float32(1 / 127)))
    return _quantize(g, x, scale, axis=axis, zero_point=SIGNED_ZERO_POINT)


def quantize_above(
    g: GraphWriter, x: str, *, axis: int, over: Sequence[int], least: float, zero_point: int
) -> Quantized:
    """Quantize values that never fall below ``least``, which is zero or a little less.

    ``zero_point`` of the 256 levels are enough for the values below zero, so steps are about half
    as wide as symmetric ones, and the largest value is found without a pass for ``Abs``.
    """
    largest = g.node("ReduceMax", x, g.ints(*over), keepdims=0)
    scale = g.node("Mul", largest, g.constant(np.float32(1 / (255 - zero_point))))
    if zero_point:
        scale = g.node("Max", scale, g.constant(np.float32(-least / zero_point)))
    return _quantize(g, x, scale, axis=axis, zero_point=zero_point)


def _quantize(g: GraphWriter, x: str, scale: str, *, axis: int, zero_point: int) -> Quantized:
    # The zero point must have the shape of the scale; this makes such a vector in one node.
    far = g.constant(np.float32(1e30))
    zeros = g.node("QuantizeLinear", scale, far, g.constant(np.uint8(zero_point)))
    values = g.node("QuantizeLinear", x, scale, zeros, axis=axis)
    return Quantized(values, scale, zero_point)


def product(
    g: GraphWriter,
    x: str,
    weight: str,
    *,
    token_scale: str,
    row_scale: str,
    zero_point: int,
    weights: Weights,
    out: str | None = None,
) -> str:
    """``(x - zero_point) @ weight`` in integers, times ``token_scale`` and ``row_scale``.

    ``token_scale`` must broadcast over the result, and ``row_scale`` along its last axis.
    """
    unsigned = weights == "u8"
    weight_zero = g.constant(np.uint8(128) if unsigned else np.int8(0))
    activation_zero = g.constant(np.uint8(zero_point))
    inputs = (x, weight, token_scale, row_scale, activation_zero, weight_zero)
    return g.node("MatMulIntegerToFloat", *inputs, domain=FUSED, out=out)
