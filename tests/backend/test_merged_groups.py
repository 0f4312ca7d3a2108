"""Slice groups computed as one: the partial sums of each alone, to the bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from shard_tools.graphs.blocks import ACTIVATIONS, Activation, build_attention, build_ffn
from sti.backend.onnxruntime.blocked_quantization import FORMAT, OPERATORS, with_blocks
from sti.backend.onnxruntime.merged_groups import MergedGroups
from sti.backend.onnxruntime.onnx_model import (
    Model,
    Node,
    operator_of,
    read_model,
    small_values,
    with_operators,
    write_model,
)
from sti.backend.token_distances import token_distances
from sti.codec.weights import WeightForm

HIDDEN, HEAD, NEURONS, SLICES, DISTANCES = 48, 16, 32, 2, 5
TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}
FORMS: tuple[WeightForm, ...] = ("s8", "u8", "s7")
Arrays = dict[str, NDArray[Any]]


def attention(weights: WeightForm, side: Collection[str], distances: int = 0) -> bytes:
    return build_attention(
        hidden=HIDDEN, head=HEAD, weights=weights, masked=True, side=side, distances=distances
    )


def ffn(activation: Activation, side: Collection[str]) -> bytes:
    return build_ffn(hidden=HIDDEN, neurons=NEURONS, weights="s8", activation=activation, side=side)


def model_of(raw: bytes) -> Model:
    return with_operators(read_model(raw, where="graph"), OPERATORS, format_version=FORMAT)


def hidden_states(batch: int, tokens: int, generator: np.random.Generator) -> Arrays:
    """What all groups share."""
    h = generator.standard_normal((tokens, batch, HIDDEN)).astype(np.float32)
    scale = (np.abs(h).max(axis=-1, keepdims=True) / 127).astype(np.float32)
    found: Arrays = {
        "h": h,
        "xq": (np.rint(h / scale) + 128).astype(np.uint8),
        "xs": scale,
        "distances": token_distances(tokens, DISTANCES // 2),
        "mask": np.where(generator.random((batch, 1, 1, tokens)) < 0.2, -1e4, 0).astype(np.float32),
    }
    return found | {f"own_{name}": found[name] for name in ("h", "xq", "xs")}


def constants(raw: bytes, inner: int, number: int, generator: np.random.Generator) -> Arrays:
    """A group's weights for all inputs that are not shared, ``inner`` channels a slice."""
    channels, found = SLICES * inner, Arrays()
    for item in onnx.load_from_string(raw).graph.input:
        name, kind = item.name, item.type.tensor_type
        sizes = [axis.dim_value or axis.dim_param for axis in kind.shape.dim]
        picked = 1 + number if name.startswith(("o_", "down_")) else 3
        known = {
            "n": channels,
            "m": SLICES,
            "n_bias": SLICES * DISTANCES,
            sizes[0] if name.endswith("_idx") else "": picked,
        }
        shape = [size if isinstance(size, int) else known.get(size, picked) for size in sizes]
        if name.endswith("_idx"):
            most = channels if name.startswith(("o_", "down_")) else HIDDEN
            found[name] = np.sort(generator.choice(most, shape[0], replace=False))
        elif kind.elem_type == TYPES["float32"]:
            found[name] = generator.normal(0, 0.01, shape).astype(np.float32)
        else:
            least = -127 if kind.elem_type == TYPES["int8"] else 0
            dtype = np.int8 if least else np.uint8
            found[name] = generator.integers(least, least + 255, shape).astype(dtype)
    return found


def answer(raw: bytes, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    taken = {item.name: feeds[item.name] for item in session.get_inputs()}
    return list(session.run(None, taken))


def merged(
    raw: bytes,
    groups: Sequence[Arrays],
    shared: Arrays,
    shape: tuple[str | int, ...] | None = ("S", "B", HIDDEN),
) -> tuple[bytes, Arrays]:
    """The groups as one model, whose constants are inputs, and those.

    Args:
        shape: of its outputs, where that is known.
    """
    model, nodes, given = model_of(raw), list[Node](), Arrays()

    def constant(name: str, array: NDArray[Any]) -> str:
        assert name not in given
        given[name] = array
        return name

    names = {item.name for item in model.inputs} & set(shared)
    names |= {item.name for item in model.initializers}
    values = {item.name: small_values(item) for item in model.initializers}
    made = MergedGroups(
        groups,
        {name: name for name in names},
        {name: array for name, array in values.items() if array is not None},
        prefix="0.",
        constant=constant,
        add=nodes.append,
    )
    rows = {name: len(array) for name, array in groups[0].items() if array.ndim == 2}
    partials = made.place(with_blocks(model.nodes, rows, HIDDEN), "partial")
    found = onnx.load_from_string(write_model(model._replace(nodes=tuple(nodes)), name="merged"))
    kept = [item for item in found.graph.input if item.name in shared]
    del found.graph.input[:], found.graph.output[:]
    found.graph.input.extend(kept)
    for name, array in given.items():
        element = TYPES[array.dtype.name]
        found.graph.input.append(helper.make_tensor_value_info(name, element, array.shape))
    for name in partials:
        value = helper.make_tensor_value_info(name, TYPES["float32"], shape)
        found.graph.output.append(value)
    if shape:
        onnx.checker.check_model(found)
    return found.SerializeToString(), given


def operators(raw: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(raw).graph.node)


CASES = {
    **{f"attention {form}": (attention(form, ()), HEAD) for form in FORMS},
    "attention by distance": (attention("s8", (), DISTANCES), HEAD),
    "attention by distance, beyond the grid": (attention("s8", ("k", "v"), DISTANCES), HEAD),
    "attention, o beyond the grid": (attention("s8", ("o",)), HEAD),
    "attention, all beyond the grid": (attention("s8", ("q", "k", "v", "o")), HEAD),
    **{f"ffn {kind}": (ffn(kind, ("down",)), NEURONS) for kind in ACTIVATIONS},
    "ffn, all beyond the grid": (ffn("gelu", ("up", "down")), NEURONS),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 5), (3, 17)])
@pytest.mark.parametrize("case", CASES)
def test_groups_as_one_have_the_partial_sums_of_each_alone(
    case: str, batch: int, tokens: int, count: int
) -> None:
    raw, inner = CASES[case]
    generator = np.random.default_rng(7)
    shared = hidden_states(batch, tokens, generator)
    groups = [
        {
            name: array
            for name, array in constants(raw, inner, number, generator).items()
            if name not in shared
        }
        for number in range(count)
    ]
    whole, given = merged(raw, groups, shared)
    found = answer(whole, shared | given)
    for mine, group in zip(found, groups, strict=True):
        (alone,) = answer(raw, shared | group)
        assert np.isfinite(alone).all() and alone.any()
        np.testing.assert_array_equal(mine.view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize(
    ("case", "products"), [("attention s8", 3), ("attention by distance", 3), ("ffn gelu", 1)]
)
def test_only_the_last_product_is_one_for_each_group(case: str, products: int) -> None:
    raw, inner = CASES[case]
    generator = np.random.default_rng(7)
    shared = hidden_states(1, 4, generator)
    groups = [
        {n: a for n, a in constants(raw, inner, 0, generator).items() if n not in shared}
        for _ in range(4)
    ]
    found = operators(merged(raw, groups, shared)[0])
    assert found["MatMulIntegerToFloat"] == products + 4
    assert found["QuantizeLinear"] == 2 and not found["Flatten"] and not found["Concat"]
    assert found["Gelu"] + found["BiasGelu"] + found["Softmax"] == 1


def test_what_quantizes_by_rows_quantizes_by_blocks_to_the_bit() -> None:
    raw, inner = CASES["ffn gelu"]
    generator = np.random.default_rng(3)
    shared = hidden_states(2, 9, generator)
    feeds = shared | {
        n: a for n, a in constants(raw, inner, 0, generator).items() if n not in shared
    }
    model = model_of(raw)
    nodes = with_blocks(model.nodes, {"up": HIDDEN, "down": SLICES * inner}, HIDDEN)
    found = write_model(model._replace(nodes=nodes), name="blocks")
    before = operators(raw)
    assert operators(found) == before - Counter(Reshape=2, Flatten=1, Shape=1)
    np.testing.assert_array_equal(answer(found, feeds)[0], answer(raw, feeds)[0])


@pytest.mark.parametrize("place", range(4))
def test_what_somebody_else_takes_is_left_as_it_was(place: int) -> None:
    model = model_of(CASES["ffn gelu"][0])
    first = [operator_of(node) for node in model.nodes].index("Flatten") - 2
    between = model.nodes[first + place].outputs[0]
    other = Node("other", (between,), ("seen",), model.nodes[0].rest)
    nodes = (*model.nodes, other)
    assert with_blocks(nodes, {"down": SLICES * NEURONS}, HIDDEN) == nodes
