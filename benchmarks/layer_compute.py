"""One transformer layer: streamed-weight graphs against ONNX Runtime with constant weights.

    python -m benchmarks.layer_compute

Milliseconds of the fastest of many runs (what else a machine does only adds), the systems taking
turns, with the layer's weights in the cache, of

- streamed: attention, connect, ffn, connect of a pack; the weights are graph inputs
- products: the bare MatMulInteger nodes of the streamed layer and nothing else: its ceiling
- int8: the same layer as people run it: exported, quantize_dynamic, default optimizations
- tuned: that model without SkipLayerNormalization, which is slow on a CPU
- fp32: the exported model

In the cache, because that is where the engine's weights were just decoded to, by another core.
Knows nothing of packs, decoding or storage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.common import LIMITS, Column, Report, Table, about_machine, at_most, parser
from benchmarks.ort_layer import EPSILON, Shape, exported, quantized
from shard_tools.graphs.blocks import build_attention, build_connect, build_ffn
from sti.codec.weights import DTYPES, WeightForm

Array = NDArray[Any]
Feeds = dict[str, Array]
Timed = Callable[[], object]

SHAPES = (
    Shape("base", 768, 12, 3072, 1, 128),
    Shape("base", 768, 12, 3072, 1, 32),
    Shape("base", 768, 12, 3072, 1, 8),
    Shape("minilm", 384, 12, 1536, 1, 128),
    Shape("minilm", 384, 12, 1536, 1, 16),
    Shape("minilm", 384, 12, 1536, 32, 16),
)
LIMIT, LIMIT_TOKENS = 1.15, 128
"""Streamed over int8 for a BERT-base layer of so many tokens."""

_COLUMNS = (
    Column("layer"),
    Column("batch"),
    Column("tokens"),
    Column("streamed ms", ".3f"),
    Column("products ms", ".3f"),
    Column("int8 ms", ".3f"),
    Column("tuned ms", ".3f"),
    Column("fp32 ms", ".3f"),
    Column("streamed/int8", ".2f"),
    Column("streamed/tuned", ".2f"),
    Column("streamed/products", ".2f"),
    Column("streamed GMAC/s", ".0f"),
    Column("products GMAC/s", ".0f"),
)
_RUNS_A_TURN = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What all rows share."""

    weights: WeightForm
    threads: int
    repeats: int


def default_options(threads: int) -> ort.SessionOptions:
    """Default optimizations; workers do not spin, so that two threads can be compared."""
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
    arrays = {**feeds, **dict(zip(names, session.run(None, feeds), strict=True))}
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    for name, value in values.items():
        bind = binding.bind_ortvalue_output if name in names else binding.bind_ortvalue_input
        bind(name, value)

    # The OrtValues share the memory of their arrays: both must live as long as the run.
    def run(_kept: object = (arrays, values)) -> None:
        session.run_with_iobinding(binding)

    return run


def streamed_feeds(shape: Shape, weights: WeightForm) -> dict[str, Feeds]:
    """Random inputs of each graph of a layer."""
    rng = np.random.default_rng(1)
    d, m, n, f = shape.hidden, shape.heads, shape.head, shape.neurons
    low, high = {"s8": (-128, 128), "u8": (0, 256), "s7": (-64, 64)}[weights]

    def operand(*extents: int) -> Array:
        return rng.integers(low, high, extents).astype(DTYPES[weights])

    def floats(*extents: int, spread: float = 1.0) -> Array:
        return (spread * rng.standard_normal(extents)).astype(np.float32)

    def scales(*extents: int) -> Array:
        return rng.uniform(2e-4, 6e-4, extents).astype(np.float32)

    h = floats(shape.tokens, shape.batch, d)
    given = {"xs": np.abs(h).max(axis=-1, keepdims=True) * np.float32(1 / 127)}
    given["xq"] = (np.rint(h / given["xs"]) + 128).astype(np.uint8)
    own = {f"own_{name}": value for name, value in given.items()}
    attention = given | own | {"o": operand(m * n, d), "o_scale": scales(d)}
    for name in "qkv":
        attention |= {name: operand(d, m * n), f"{name}_scale": scales(m * n)}
    for name in ("q_bias", "v_bias"):
        attention[name] = floats(m * n, spread=0.1)
    ffn = given | {
        "up": operand(d, m * f),
        "up_scale": scales(m * f),
        "up_bias": floats(m * f, spread=0.1),
        "down": operand(m * f, d),
        "down_scale": scales(d),
    }
    connect = {
        "partial": floats(shape.tokens, shape.batch, d),
        "residual": h,
        "bias": floats(d, spread=0.1),
        "gamma": 1 + floats(d, spread=0.1),
        "beta": floats(d, spread=0.1),
    }
    return {"attention": attention, "ffn": ffn, "connect": connect}


def streamed(shape: Shape, feeds: Mapping[str, Feeds], settings: Settings) -> Timed:
    """A pack's graphs over one layer."""
    d, weights = shape.hidden, settings.weights
    models = {
        "attention": build_attention(hidden=d, head=shape.head, weights=weights, masked=False),
        "ffn": build_ffn(hidden=d, neurons=shape.neurons, weights=weights, activation="gelu"),
        "connect": build_connect(hidden=d, epsilon=EPSILON),
    }
    options = streamed_options(settings.threads)
    runs = {name: bound(model, feeds[name], options) for name, model in models.items()}

    def run() -> None:
        for name in ("attention", "connect", "ffn", "connect"):
            runs[name]()

    return run


def products(shape: Shape, feeds: Mapping[str, Feeds], settings: Settings) -> Timed:
    """The bare integer products of a layer, on the weights in ``feeds``."""
    rng = np.random.default_rng(3)
    rows = shape.batch * shape.tokens
    widths = {"x": shape.hidden, "x_o": shape.hidden, "x_down": shape.inner}
    operands: Feeds = {
        name: rng.integers(0, 256, (rows, width)).astype(np.uint8) for name, width in widths.items()
    }
    operands |= {name: feeds["attention"][name] for name in "qkvo"}
    operands |= {name: feeds["ffn"][name] for name in ("up", "down")}
    unsigned = settings.weights == "u8"
    weight_names = ("q", "k", "v", "o", "up", "down")
    weight_type = TensorProto.UINT8 if unsigned else TensorProto.INT8
    zeros = [
        helper.make_tensor("zero", TensorProto.UINT8, [], [128]),
        helper.make_tensor("weight_zero", weight_type, [], [128 if unsigned else 0]),
    ]
    nodes = []
    for name in weight_names:
        x = f"x_{name}" if f"x_{name}" in widths else "x"
        feed = [x, name, "zero", "weight_zero"]
        nodes.append(helper.make_node("MatMulInteger", feed, [f"y_{name}"]))
    graph = helper.make_graph(
        nodes,
        "products",
        [
            helper.make_tensor_value_info(
                name, weight_type if name in weight_names else TensorProto.UINT8, [None, None]
            )
            for name in operands
        ],
        [helper.make_tensor_value_info(node.output[0], TensorProto.INT32, None) for node in nodes],
        zeros,
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return bound(made.SerializeToString(), operands, streamed_options(settings.threads))


def interleaved(runs: Mapping[str, Timed], repeats: int) -> dict[str, float]:
    """Least milliseconds of each, taken in turns; the first run of a turn fills the caches."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            run()
            for _ in range(_RUNS_A_TURN):
                start = perf_counter()
                run()
                times[name].append(1e3 * (perf_counter() - start))
    return {name: min(found) for name, found in times.items()}


def measure(shape: Shape, settings: Settings) -> dict[str, float]:
    """Milliseconds of each system on one shape."""
    feeds = streamed_feeds(shape, settings.weights)
    model = exported(shape)
    int8, default = quantized(model), default_options(settings.threads)
    whole: Feeds = {
        "h": np.ascontiguousarray(feeds["connect"]["residual"].swapaxes(0, 1)),
        "mask": np.zeros((shape.batch, 1, 1, shape.tokens), dtype=np.float32),
    }
    return interleaved(
        {
            "streamed": streamed(shape, feeds, settings),
            "products": products(shape, feeds, settings),
            "int8": bound(int8, whole, default),
            "tuned": bound(int8, whole, default, disabled=["SkipLayerNormFusion"]),
            "fp32": bound(model, whole, default),
        },
        settings.repeats,
    )


def report(shapes: Sequence[Shape], settings: Settings) -> Report:
    """Measure all shapes."""
    about = [
        *about_machine(),
        f"{settings.threads} compute threads, {settings.weights} weights, {settings.repeats} turns",
    ]
    table, limits = Table("One layer", _COLUMNS), Table("Limits", LIMITS)
    for shape in shapes:
        ms = measure(shape, settings)
        ratio = ms["streamed"] / ms["int8"]
        table.rows.append(
            (
                shape.name,
                shape.batch,
                shape.tokens,
                *(ms[name] for name in ("streamed", "products", "int8", "tuned", "fp32")),
                ratio,
                ms["streamed"] / ms["tuned"],
                ms["streamed"] / ms["products"],
                shape.products / ms["streamed"] / 1e6,
                shape.products / ms["products"] / 1e6,
            )
        )
        if shape.name == "base" and shape.tokens == LIMIT_TOKENS:
            limits.rows.append(at_most("streamed layer / int8 layer", ratio, LIMIT))
    tables = [table, limits] if limits.rows else [table]
    return Report("Compute of one layer", about, tables)


def main() -> None:
    """Command line."""
    options = parser("layer_compute", __doc__, "--layer base --tokens 128")
    options.add_argument("--layer", choices=sorted({shape.name for shape in SHAPES}))
    options.add_argument("--tokens", type=int, help="only shapes of so many tokens")
    options.add_argument("--threads", type=int, default=1, help="default: 1")
    options.add_argument("--weights", choices=("s8", "u8", "s7"), default="s8", help="default: s8")
    options.add_argument("--repeats", type=int, default=20, help="turns; default: 20")
    given = options.parse_args()
    chosen = [
        shape
        for shape in SHAPES
        if given.layer in (None, shape.name) and given.tokens in (None, shape.tokens)
    ]
    if not chosen:
        options.error(f"no shape of {given.tokens} tokens")
    report(chosen, Settings(given.weights, given.threads, given.repeats)).print(given.output)


if __name__ == "__main__":
    main()
