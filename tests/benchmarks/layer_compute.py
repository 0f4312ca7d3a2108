"""One transformer layer: streamed-weight graphs against ONNX Runtime with constant weights.

    python -m tests.benchmarks.layer_compute [--shape base] [--threads 1] [--output md]

Rows are shapes; columns are, in milliseconds, medians of interleaved runs:

* streamed: attention, connect, ffn, connect of a pack, weights as graph inputs
* int8: the same layer as people run it: exported in float, ``quantize_dynamic``, default session
* int8 tuned: that model without ``SkipLayerNormalization``, which is slow on a CPU
* fp32: the exported model
* products: bare ``MatMulInteger`` nodes of the streamed shapes and nothing else, the ceiling

The float model is timed by itself: its weights would drive the others' out of the cache, which in
the engine hold weights that were just decoded. Knows nothing of packs, decoding or storage.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from shard_tools import graphs

Array = NDArray[Any]
Feeds = dict[str, Array]
Timed = Callable[[], object]

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
        return self.hidden // self.heads

    @property
    def neurons(self) -> int:
        return self.inner // self.heads

    @property
    def products(self) -> int:
        """Multiplications of the weight products."""
        return self.batch * self.tokens * self.hidden * (4 * self.hidden + 2 * self.inner)


SHAPES = (
    Shape("base", 768, 12, 3072, 1, 128),
    Shape("base", 768, 12, 3072, 1, 32),
    Shape("base", 768, 12, 3072, 1, 8),
    Shape("minilm", 384, 12, 1536, 1, 128),
    Shape("minilm", 384, 12, 1536, 1, 16),
    Shape("minilm", 384, 12, 1536, 32, 16),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of one shape, and what follows from them."""

    shape: str
    batch: int
    tokens: int
    threads: int
    streamed_ms: float
    int8_ms: float
    int8_tuned_ms: float
    fp32_ms: float
    products_ms: float
    against_int8: float
    against_tuned: float
    against_ceiling: float
    gmac_per_s: float


class _Exported:
    """Writes a layer with constant weights the way PyTorch exports one."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(7)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Array) -> str:
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
        rows = ["B", "S", hidden]
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


def quantized(model: bytes) -> bytes:
    """The model with weights in int8 and activations quantized as they come, default options."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place, "float.onnx"), Path(place, "int8.onnx")
        source.write_bytes(model)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return target.read_bytes()


def products_model(shape: Shape, weight_type: int) -> bytes:
    """Only the integer products of the streamed layer."""
    nodes, inputs, outputs = [], [], []
    d, n, f = shape.hidden, shape.head, shape.neurons
    rows = {"q": (d, n), "k": (d, n), "v": (d, n), "o": (n, d), "up": (d, f), "down": (f, d)}
    joins = {"o", "down"}
    zeros = [
        helper.make_tensor("activation_zero", TensorProto.UINT8, [], [128]),
        helper.make_tensor(
            "weight_zero", weight_type, [], [128 if weight_type == TensorProto.UINT8 else 0]
        ),
        helper.make_tensor("flat", TensorProto.INT64, [2], [-1, d]),
    ]
    for name, extents in rows.items():
        operand = name
        inputs.append(helper.make_tensor_value_info(name, weight_type, ["m", *extents]))
        if name in joins:
            operand = f"{name}_flat"
            nodes.append(helper.make_node("Reshape", [name, "flat"], [operand]))
        x = f"x_{name}" if name in joins else "x"
        feeds = [x, operand, "activation_zero", "weight_zero"]
        nodes.append(helper.make_node("MatMulInteger", feeds, [f"y_{name}"]))
        outputs.append(helper.make_tensor_value_info(f"y_{name}", TensorProto.INT32, None))
    for name in ("x", "x_o", "x_down"):
        inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    graph = helper.make_graph(nodes, "products", inputs, outputs, zeros)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(made.SerializeToString())


def default_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def streamed_options(threads: int) -> ort.SessionOptions:
    """As the engine sets them."""
    options = default_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False
    return options


def bound(
    model: bytes, feeds: Feeds, options: ort.SessionOptions, *, disabled: Sequence[str] = ()
) -> Timed:
    """A run over inputs and outputs that were bound once."""
    session = ort.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )
    binding = session.io_binding()
    names = [item.name for item in session.get_outputs()]
    # OrtValues share the memory of their arrays, so both are kept with the run.
    arrays = {**feeds, **dict(zip(names, session.run(None, feeds), strict=True))}
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    for name, value in values.items():
        bind = binding.bind_ortvalue_output if name in names else binding.bind_ortvalue_input
        bind(name, value)

    def run(kept: object = (arrays, values)) -> None:
        session.run_with_iobinding(binding)

    return run


def streamed_feeds(shape: Shape, rng: np.random.Generator, kind: type) -> dict[str, Feeds]:
    d, m, n, f = shape.hidden, shape.heads, shape.head, shape.neurons
    low = 0 if kind is np.uint8 else -128

    def weights(*extents: int) -> Array:
        return rng.integers(low, low + 256, extents).astype(kind)

    def floats(*extents: int, spread: float = 1.0) -> Array:
        return (spread * rng.standard_normal(extents)).astype(np.float32)

    def scales(*extents: int) -> Array:
        return rng.uniform(2e-4, 6e-4, extents).astype(np.float32)

    h = floats(shape.batch, shape.tokens, d)
    inner = {name: weights(m, d, n) for name in "qkv"}
    inner |= {f"{name}_scale": scales(m, 1, n) for name in "qkv"}
    biases = {name: floats(m, 1, n, spread=0.1) for name in ("q_bias", "v_bias")}
    return {
        "attention": {"h": h, **inner, **biases, "o": weights(m, n, d), "o_scale": scales(d)},
        "ffn": {
            "h": h,
            "up": weights(m, d, f),
            "up_scale": scales(m, 1, f),
            "up_bias": floats(m, 1, f, spread=0.1),
            "down": weights(m, f, d),
            "down_scale": scales(d),
        },
        "connect": {
            "partial": floats(shape.batch, shape.tokens, d),
            "residual": h,
            "bias": floats(d, spread=0.1),
            "gamma": 1 + floats(d, spread=0.1),
            "beta": floats(d, spread=0.1),
        },
    }


def streamed(shape: Shape, feeds: Mapping[str, Feeds], variant: graphs.Weights, threads: int) -> Timed:
    """A pack's graphs over one layer."""
    d = shape.hidden
    models = {
        "attention": graphs.build_attention(
            hidden=d, head=shape.head, weights=variant, masked=False
        ),
        "ffn": graphs.build_ffn(
            hidden=d, neurons=shape.neurons, weights=variant, activation="gelu"
        ),
        "connect": graphs.build_connect(hidden=d, epsilon=EPSILON),
    }
    options = streamed_options(threads)
    runs = {name: bound(model, feeds[name], options) for name, model in models.items()}

    def run() -> None:
        for name in ("attention", "connect", "ffn", "connect"):
            runs[name]()

    return run


def products(shape: Shape, feeds: Mapping[str, Feeds], variant: graphs.Weights, threads: int) -> Timed:
    """The bare products on the operands of ``feeds``."""
    rng = np.random.default_rng(3)
    rows = shape.batch * shape.tokens
    operands = {name: feeds["attention"][name] for name in "qkvo"}
    operands |= {name: feeds["ffn"][name] for name in ("up", "down")}
    for name, width in (("x", shape.hidden), ("x_o", shape.hidden), ("x_down", shape.inner)):
        operands[name] = rng.integers(0, 256, (rows, width)).astype(np.uint8)
    kind = TensorProto.UINT8 if variant == "u8" else TensorProto.INT8
    return bound(products_model(shape, kind), operands, streamed_options(threads))


def interleaved(runs: Mapping[str, Timed], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, taken in turns after two runs to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            start = perf_counter()
            run()
            if turn >= 2:
                times[name].append(1e3 * (perf_counter() - start))
    return {name: median(found) for name, found in times.items()}


def measure(shape: Shape, *, variant: graphs.Weights, threads: int, repeats: int) -> Row:
    """One row of the table."""
    rng = np.random.default_rng(1)
    feeds = streamed_feeds(shape, rng, np.uint8 if variant == "u8" else np.int8)
    exported = _Exported(shape).layer()
    whole: Feeds = {
        "h": feeds["attention"]["h"],
        "mask": np.zeros((shape.batch, 1, 1, shape.tokens), dtype=np.float32),
    }
    int8, default = quantized(exported), default_options(threads)
    found = interleaved(
        {
            "streamed": streamed(shape, feeds, variant, threads),
            "int8": bound(int8, whole, default),
            "tuned": bound(int8, whole, default, disabled=["SkipLayerNormFusion"]),
            "products": products(shape, feeds, variant, threads),
        },
        repeats,
    )
    found |= interleaved({"fp32": bound(exported, whole, default)}, max(3, repeats // 3))
    return Row(
        shape=shape.name,
        batch=shape.batch,
        tokens=shape.tokens,
        threads=threads,
        streamed_ms=found["streamed"],
        int8_ms=found["int8"],
        int8_tuned_ms=found["tuned"],
        fp32_ms=found["fp32"],
        products_ms=found["products"],
        against_int8=found["streamed"] / found["int8"],
        against_tuned=found["streamed"] / found["tuned"],
        against_ceiling=found["streamed"] / found["products"],
        gmac_per_s=shape.products / found["streamed"] / 1e6,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = list(asdict(rows[0]))
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in asdict(row).values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted({shape.name for shape in SHAPES}))
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", choices=("s8", "u8"), default="s8")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", choices=("md", "json"), default="md")
    options = parser.parse_args()
    rows = [
        measure(shape, variant=options.weights, threads=options.threads, repeats=options.repeats)
        for shape in SHAPES
        if options.shape in (None, shape.name) and options.tokens in (None, shape.tokens)
    ]
    if not rows:
        parser.error("no such shape")
    if options.output == "json":
        machine = {"machine": platform.machine(), "onnxruntime": ort.__version__}
        print(json.dumps(machine | {"rows": [asdict(row) for row in rows]}, indent=2))
    else:
        print(f"{platform.machine()}, onnxruntime {ort.__version__}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
