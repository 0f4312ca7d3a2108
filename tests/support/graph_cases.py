"""Sessions, models and random feeds for the tests of the graphs."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from shard_tools.graphs.blocks import Activation, build_attention, build_ffn
from sti.backend.token_distances import token_distances
from sti.codec.weights import WeightForm
from tests.support import graph_spec

Array = NDArray[Any]
Feeds = dict[str, Array]

HIDDEN, HEAD, NEURONS, SLICES, EPSILON = 64, 16, 32, 4, 1e-12
DISTANCES = 7


def session(model: bytes, *, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answers(made: ort.InferenceSession, feeds: Feeds) -> list[Array]:
    """All outputs for those of the feeds that are inputs."""
    found: list[Array] = made.run(None, {item.name: feeds[item.name] for item in made.get_inputs()})
    return found


def answer(made: ort.InferenceSession, feeds: Feeds) -> Array:
    """The first output."""
    return answers(made, feeds)[0]


def run(model: bytes, feeds: Feeds, *, threads: int = 1) -> Array:
    """The first output of a model."""
    return answer(session(model, threads=threads), feeds)


def saturates() -> bool:
    """Whether this processor's u8 x s8 product overflows its 16-bit sums."""
    g = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "probe",
        [
            onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, [64, 64]),
            onnx.helper.make_tensor_value_info("b", onnx.TensorProto.INT8, [64, 64]),
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [64, 64])],
    )
    model = onnx.helper.make_model(
        g, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    feeds = {"a": np.full((64, 64), 255, np.uint8), "b": np.full((64, 64), 127, np.int8)}
    return bool((run(model.SerializeToString(), feeds) != 255 * 127 * 64).any())


SATURATES = saturates()
EXACT: Literal["s8", "u8"] = "u8" if SATURATES else "s8"
"""The variant with exact products on this processor."""


def weights(rng: np.random.Generator, *shape: int) -> Array:
    found = rng.integers(-128, 128, shape).astype(np.int8)
    return found.view(np.uint8) ^ 0x80 if EXACT == "u8" else found


def flipped(feeds: Feeds) -> Feeds:
    """The same weights in the other variant."""
    other = {np.dtype(np.int8): np.uint8, np.dtype(np.uint8): np.int8}
    return {
        name: (value.view(np.uint8) ^ 0x80).view(other[value.dtype])
        if value.dtype in other and name.removeprefix("own_") != "xq"
        else value
        for name, value in feeds.items()
    }


def floats(rng: np.random.Generator, *shape: int, spread: float = 1.0) -> Array:
    return (rng.standard_normal(shape) * spread).astype(np.float32)


def row_scales(rng: np.random.Generator, *shape: int) -> Array:
    return rng.uniform(0.5e-3, 2e-3, shape).astype(np.float32)


def hidden_feeds(h: Array) -> Feeds:
    """A block's input ``h [S, B, d]``, and the same quantized."""
    return {"h": h, **graph_spec.quantized_input(h)}


def attention_feeds(
    rng: np.random.Generator, *, batch: int, tokens: int, slices: int = SLICES
) -> Feeds:
    feeds, channels = hidden_feeds(floats(rng, tokens, batch, HIDDEN)), slices * HEAD
    for name in "qkv":
        feeds[name] = weights(rng, HIDDEN, channels)
        feeds[f"{name}_scale"] = row_scales(rng, channels)
    feeds["q_scale"] /= np.float32(math.sqrt(HEAD))
    for name in ("q_bias", "v_bias"):
        feeds[name] = floats(rng, channels, spread=0.3)
    feeds |= graph_spec.own_tokens(feeds)
    return feeds | {"o": weights(rng, channels, HIDDEN), "o_scale": row_scales(rng, HIDDEN)}


def ffn_feeds(rng: np.random.Generator, *, batch: int, tokens: int, slices: int = SLICES) -> Feeds:
    channels = slices * NEURONS
    return hidden_feeds(floats(rng, tokens, batch, HIDDEN)) | {
        "up": weights(rng, HIDDEN, channels),
        "up_scale": row_scales(rng, channels),
        "up_bias": floats(rng, channels, spread=0.3),
        "down": weights(rng, channels, HIDDEN),
        "down_scale": row_scales(rng, HIDDEN),
    }


def norm_feeds(rng: np.random.Generator) -> Feeds:
    return {"gamma": 1 + floats(rng, HIDDEN, spread=0.1), "beta": floats(rng, HIDDEN, spread=0.1)}


def connect_feeds(rng: np.random.Generator, *, batch: int, tokens: int) -> Feeds:
    return norm_feeds(rng) | {
        "partial": floats(rng, tokens, batch, HIDDEN),
        "residual": floats(rng, tokens, batch, HIDDEN),
        "bias": floats(rng, HIDDEN),
    }


def embed_feeds(rng: np.random.Generator, *, batch: int, tokens: int) -> Feeds:
    return norm_feeds(rng) | {
        "words": floats(rng, batch, tokens, HIDDEN),
        "positions": floats(rng, 300, HIDDEN).astype(np.float16),
        "types": floats(rng, 2, HIDDEN),
        "type_ids": rng.integers(0, 2, (batch, tokens)),
    }


def side_feeds(
    rng: np.random.Generator, name: str, channels: int, shape: tuple[int, ...], count: int
) -> Feeds:
    """``count`` side channels; ``shape`` is the product's, without them."""
    index = np.sort(rng.choice(channels, count, replace=False)).astype(np.int64)
    return {f"{name}_idx": index, f"{name}_w": floats(rng, *shape[:-1], count, shape[-1])}


def distance_feeds(rng: np.random.Generator, *, tokens: int, slices: int = SLICES) -> Feeds:
    """Biases of each head by distance, and which of them two tokens take."""
    apart = token_distances(tokens, DISTANCES // 2)
    return {"distances": apart, "position_bias": floats(rng, slices * DISTANCES)}


def attention_model(
    variant: WeightForm = EXACT,
    *,
    masked: bool = False,
    side: tuple[str, ...] = (),
    distances: int = 0,
) -> bytes:
    return build_attention(
        hidden=HIDDEN, head=HEAD, weights=variant, masked=masked, side=side, distances=distances
    )


def ffn_model(
    variant: WeightForm = EXACT,
    *,
    activation: Activation = "gelu",
    side: tuple[str, ...] = (),
) -> bytes:
    return build_ffn(
        hidden=HIDDEN, neurons=NEURONS, weights=variant, activation=activation, side=side
    )
