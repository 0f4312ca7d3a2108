"""One transformer layer as ONNX Runtime users have it: exported in float, then quantized.

In: the layer's shape. Out: serialized models with constant random weights: speed depends on shapes
alone. The nodes and their order are those of an export from PyTorch. Knows nothing of packs.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

EPSILON = 1e-12


@dataclass(frozen=True, slots=True)
class Shape:
    """One layer and its input."""

    name: str
    hidden: int
    heads: int
    inner: int
    batch: int
    tokens: int

    @property
    def head(self) -> int:
        """Numbers a head."""
        return self.hidden // self.heads

    @property
    def neurons(self) -> int:
        """Inner neurons for each head."""
        return self.inner // self.heads

    @property
    def products(self) -> int:
        """Multiplications of the weight products."""
        return self.batch * self.tokens * self.hidden * (4 * self.hidden + 2 * self.inner)


def exported(shape: Shape) -> bytes:
    """A post-norm layer in float: ``h [B, S, d]``, ``mask [B, 1, 1, S]`` -> ``out``."""
    return _Exported(shape).layer()


def quantized(model: bytes) -> bytes:
    """The model with weights in int8 and activations quantized as they come, default options."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place, "float.onnx"), Path(place, "int8.onnx")
        source.write_bytes(model)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return target.read_bytes()


class _Exported:
    """Writes a layer with constant weights the way PyTorch exports one."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(7)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int, around: float = 0.0) -> str:
        values = around + 0.04 * self.rng.standard_normal(shape)
        return self.constant(values.astype(np.float32))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"node_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def linear(self, x: str, rows: int, columns: int) -> str:
        bias = self.weight(columns)
        return self.node("Add", bias, self.node("MatMul", x, self.weight(rows, columns)))

    def extents(self, *last: int) -> str:
        """The shape ``[B, S, *last]``."""
        return self.constant(np.array([0, 0, *last]))

    def heads(self, x: str, order: Sequence[int]) -> str:
        y = self.linear(x, self.shape.hidden, self.shape.hidden)
        y = self.node("Reshape", y, self.extents(self.shape.heads, self.shape.head))
        return self.node("Transpose", y, perm=list(order))

    def norm(self, x: str, residual: str) -> str:
        gamma, beta = self.weight(self.shape.hidden, around=1.0), self.weight(self.shape.hidden)
        total = self.node("Add", x, residual)
        return self.node("LayerNormalization", total, gamma, beta, axis=-1, epsilon=EPSILON)

    def layer(self) -> bytes:
        hidden, inner = self.shape.hidden, self.shape.inner
        q, k, v = (self.heads("h", o) for o in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)))
        scores = self.node("MatMul", q, k)
        scores = self.node("Div", scores, self.scalar(self.shape.head**0.5))
        scores = self.node("Softmax", self.node("Add", scores, "mask"), axis=-1)
        context = self.node("Transpose", self.node("MatMul", scores, v), perm=[0, 2, 1, 3])
        context = self.node("Reshape", context, self.extents(hidden))
        middle = self.norm(self.linear(context, hidden, hidden), "h")
        u = self.linear(middle, hidden, inner)
        power = self.node("Erf", self.node("Div", u, self.scalar(2**0.5)))
        u = self.node("Mul", u, self.node("Add", power, self.scalar(1.0)))
        u = self.node("Mul", u, self.scalar(0.5))
        self.norm(self.linear(u, inner, hidden), middle)
        self.nodes[-1].output[0] = "out"
        rows: list[str | int | None] = ["B", "S", hidden]
        graph = helper.make_graph(
            self.nodes,
            "layer",
            [
                helper.make_tensor_value_info("h", TensorProto.FLOAT, rows),
                helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["B", 1, 1, "S"]),
            ],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, rows)],
            self.constants,
        )
        made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return bytes(made.SerializeToString())
