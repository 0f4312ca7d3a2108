"""Hostile graphs that take more memory or time than there is.

In: a serialized graph, a source of random numbers. Out: a hostile one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from benchmarks.security_graph_changes import (
    FLOAT,
    Harm,
    add_constant,
    add_floats,
    add_ints,
    add_node,
    model_of,
    summed,
)


def _huge_constant_of_shape(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    shape = add_ints(model, "shape", *rng.choice(((1 << 31,), (1 << 16, 1 << 15), (1 << 40,))))
    return summed(model, rng, add_node(model, "ConstantOfShape", [shape], "huge"))


def _doubling_concat(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    value = add_floats(model, "start", rng.choice((8, 1024)))
    for number in range(rng.randrange(24, 50)):
        value = add_node(model, "Concat", [value, value], f"twice_{number}", axis=0)
    return summed(model, rng, value)


def _expand_tile(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    start, times = (
        add_floats(model, "start", 1),
        add_ints(model, "times", 1 << rng.randrange(31, 40)),
    )
    return summed(
        model, rng, add_node(model, rng.choice(("Expand", "Tile")), [start, times], "large")
    )


def _range_pad(raw: bytes, rng: random.Random) -> bytes:
    import numpy as np

    model = model_of(raw)
    if rng.random() < 0.5:
        ends = [add_constant(model, f"end_{x}", np.float32(x)) for x in (0, 1e10, 1)]
        return summed(model, rng, add_node(model, "Range", ends, "large"))
    start, pads = add_floats(model, "start", 1), add_ints(model, "pads", 0, 1 << 31)
    return summed(model, rng, add_node(model, "Pad", [start, pads], "large"))


def _outer_sums(raw: bytes, rng: random.Random) -> bytes:
    """Broadcasting, of constants that are small: ``[n, 1, 1] + [1, n, 1] + [1, 1, n]``."""
    model = model_of(raw)
    extent, axes = rng.choice(((30_000, 3), (700, 4))), 4
    value = ""
    for axis in range(axes if extent[1] == axes else 3):
        shape = [1] * extent[1]
        shape[axis] = extent[0] if extent[0] < 1000 or axis < 2 else 8
        other = add_floats(model, f"side_{axis}", *shape)
        value = (
            add_node(model, rng.choice(("Add", "Mul")), [value, other], f"grown_{axis}")
            if (value)
            else other
        )
    return summed(model, rng, value)


def _of_texts(model: Any, rng: random.Random) -> str:
    """An input that is larger for more and longer texts."""
    kinds = ((item.name, item.type.tensor_type) for item in model.graph.input)
    names = [name for name, kind in kinds if kind.elem_type == FLOAT and len(kind.shape.dim) >= 3]
    return rng.choice([name for name in names if not name.endswith("_w")])


def _outer_inputs(raw: bytes, rng: random.Random) -> bytes:
    """Broadcasting of an input against itself, so that size grows with its square."""
    model = model_of(raw)
    name = _of_texts(model, rng)
    flat = [add_ints(model, "column", -1, 1), add_ints(model, "row", 1, -1)]
    sides = [add_node(model, "Reshape", [name, shape], f"{shape}_of") for shape in flat]
    operator = rng.choice(("Add", "Mul", "MatMul", "Max"))
    return summed(model, rng, add_node(model, operator, sides, "square"))


def _repeated_gather(raw: bytes, rng: random.Random) -> bytes:
    """Rows taken again and again: small constants, a large result."""
    import numpy as np

    model = model_of(raw)
    count = rng.choice((8, 4096))
    value = again = add_constant(model, "again", np.zeros((1, count), np.int64))
    for number in range(3 if count > 8 else 11):
        value = add_node(model, "Gather", [value, again], f"more_{number}", axis=number)
    rows = add_floats(model, "rows", 8)
    return summed(model, rng, add_node(model, "Gather", [rows, value], "large", axis=0))


def _all_places(raw: bytes, rng: random.Random) -> bytes:
    """Of positions, all rows that there are: whatever a text has of tokens."""
    from onnx import helper

    model = model_of(raw)
    if all(item.name != "positions" for item in model.graph.input):
        model.graph.input.append(helper.make_tensor_value_info("positions", 10, ["P", "D"]))
    value = "positions"
    if rng.random() < 0.5:
        ends = [add_ints(model, f"end_{number}", number) for number in (0, 1 << 40, 0)]
        value = add_node(model, "Slice", [value, ends[0], ends[1], ends[0]], "sliced")
    return summed(model, rng, add_node(model, "Cast", [value], "places", to=FLOAT))


def _endless_compute(raw: bytes, rng: random.Random) -> bytes:
    """Products of a matrix that is not large by itself, again and again."""
    model = model_of(raw)
    name = _of_texts(model, rng)
    sides = []
    for number, shape in enumerate(((-1, 1), (1, -1))):
        wanted = add_ints(model, f"shape_{number}", *shape)
        sides.append(add_node(model, "Reshape", [name, wanted], f"side_{number}"))
    square = value = add_node(model, "MatMul", sides, "square")
    for number in range(rng.choice((20, 80, 2000))):
        value = add_node(model, "MatMul", [value, square], f"product_{number}")
    return summed(model, rng, value)


def _too_many_nodes(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    value = add_floats(model, "start", 1)
    for number in range(rng.choice((200, 500, 2_000, 5_000))):
        value = add_node(model, rng.choice(("Tanh", "Identity", "Abs")), [value], f"again_{number}")
    return summed(model, rng, value)


def _giant_constant(raw: bytes, rng: random.Random) -> bytes:
    model = model_of(raw)
    return summed(model, rng, add_floats(model, "giant", rng.choice((9, 1_000, 1 << 20, 1 << 22))))


def _stated_giant(raw: bytes, rng: random.Random) -> bytes:
    """A constant that says it is much larger than it is."""
    model = model_of(raw)
    del (tensor := rng.choice(model.graph.initializer)).dims[:]
    tensor.dims.extend(rng.choice(([1 << 40], [1 << 33, 1 << 33], [-1], [1 << 62, 4])))
    return bytes(model.SerializeToString())


SIZES: Mapping[str, Harm] = {
    "huge ConstantOfShape": _huge_constant_of_shape,
    "doubling concat": _doubling_concat,
    "expand or tile": _expand_tile,
    "range or pad": _range_pad,
    "outer sums": _outer_sums,
    "outer sums of inputs": _outer_inputs,
    "repeated gather": _repeated_gather,
    "all places": _all_places,
    "endless compute": _endless_compute,
    "too many nodes": _too_many_nodes,
    "giant constant": _giant_constant,
    "constant that says it is giant": _stated_giant,
}
"""By kind."""
