"""Hostile packs whose residents do harm: graphs, weights that stay in memory, and staircases.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed. What is inside of
a graph is in ``security_graphs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np

from benchmarks.security_harms import EITHER, REFUSED, UNUSED, Kind
from benchmarks.security_packs import PackParts, Tensor


def _no_graph(parts: PackParts, rng: Random) -> None:
    name = rng.choice(list(parts.manifest["graphs"]))
    tensor = parts.manifest["graphs"].pop(name)
    if rng.random() < 0.5:
        del parts.residents[tensor]


def _unknown_graph(parts: PackParts, rng: Random) -> None:
    graphs = parts.manifest["graphs"]
    name = rng.choice(("decoder", "attention.s4", "\x1b]0;x\x07", "", "ffn_masked.s8", "x" * 9999))
    graphs[name] = rng.choice(list(graphs.values()))


def _swapped_graphs(parts: PackParts, rng: Random) -> None:
    graphs = parts.manifest["graphs"]
    base = {name: name.replace("_masked", "").rpartition(".")[0] or name for name in graphs}
    one = rng.choice(list(graphs))
    other = rng.choice([name for name in graphs if base[name] != base[one]])
    graphs[one] = graphs[other]


def _graph_bytes(parts: PackParts, rng: Random) -> None:
    name = rng.choice(list(parts.manifest["graphs"].values()))
    data = bytearray(parts.residents[name].data)
    for _ in range(rng.randrange(1, 9)):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    found = rng.choice((bytes(data), data[: rng.randrange(len(data))], b"", rng.randbytes(500)))
    parts.residents[name] = Tensor("U8", (len(found),), bytes(found))


def _floats_of(parts: PackParts) -> list[str]:
    return [
        name
        for name, tensor in parts.residents.items()
        if tensor.dtype in ("F32", "F16") and tensor.data
    ]


def _not_finite(parts: PackParts, rng: Random) -> None:
    def change(array: np.ndarray[Any, Any]) -> None:
        flat = array.reshape(-1)
        value = rng.choice((np.nan, np.inf, -np.inf))
        if rng.random() < 0.5:
            flat[rng.randrange(len(flat))] = value
        else:
            flat[:] = value

    parts.change(rng.choice(_floats_of(parts)), change)


def _absurd(parts: PackParts, rng: Random) -> None:
    names = [name for name in _floats_of(parts) if parts.residents[name].dtype == "F32"]
    parts.change(rng.choice(names), lambda array: array.fill(rng.choice((3e38, -3e38, 1e20))))


def _other_floats(parts: PackParts, rng: Random) -> None:
    """Other finite weights are another model, however odd."""
    noise = np.random.default_rng(rng.randrange(1 << 30))

    def change(array: np.ndarray[Any, Any]) -> None:
        largest = 1e4 if array.dtype == np.float16 else rng.choice((1.0, 1e6, 1e14))
        array[...] = (noise.standard_normal(array.shape) * largest / 10).astype(array.dtype)

    names = [name for name in _floats_of(parts) if name != "index.gains"]
    parts.change(rng.choice(names), change)


def _inputs_of(parts: PackParts) -> list[str]:
    return [name for name in parts.residents if name.startswith(("layer.", "embed.", "head."))]


def _other_shape(parts: PackParts, rng: Random) -> None:
    names = [name for name in _inputs_of(parts) if len(parts.residents[name].data) > 8]
    name = rng.choice(names)
    tensor = parts.residents[name]
    count = int(np.prod(tensor.shape))
    shapes = [(count, 1), (1, count), (count,), (1, 1, 1, count), tensor.shape[::-1]]
    shapes = [shape for shape in shapes if shape != tensor.shape]
    parts.residents[name] = tensor._replace(shape=rng.choice(shapes))


def _other_size(parts: PackParts, rng: Random) -> None:
    name = rng.choice([name for name in _inputs_of(parts) if parts.residents[name].data])
    array = parts.residents[name].array
    more = rng.choice((array[:-1], array[:0], np.concatenate((array, array)), array[..., :-1]))
    parts.residents[name] = Tensor.of(np.ascontiguousarray(more))


def _many_rows(parts: PackParts, rng: Random) -> None:
    """More numbers than the model has, for any input of a graph; of some the rows are free."""
    more = ["head.positions", "embed.more", "embed.types", "embed.positions", "head.classifier_w"]
    name = rng.choice((*more, *_inputs_of(parts)))
    found = parts.residents.get(name, Tensor.of(np.zeros((1, 1), np.float32))).array
    rows = 8_000_000 // max(1, found[:1].nbytes)
    many = np.zeros((rows, *found.shape[1:]), found.dtype)
    parts.residents[name] = Tensor.of(many)


def _other_type(parts: PackParts, rng: Random) -> None:
    name = rng.choice(_inputs_of(parts))
    array = parts.residents[name].array
    types = [kind for kind in ("<f4", "<f2", "<i8", "u1", "<u4", "<u2") if array.dtype != kind]
    with np.errstate(all="ignore"):
        parts.residents[name] = Tensor.of(array.astype(rng.choice(types)))


def _index_range(parts: PackParts, rng: Random) -> None:
    names = [name for name, tensor in parts.residents.items() if tensor.dtype == "I64"]
    name = rng.choice([name for name in names if parts.residents[name].data])

    def change(array: np.ndarray[Any, Any]) -> None:
        choice = rng.randrange(4)
        if choice == 0:
            array[-1] = rng.choice((1 << 62, 10**6, -1, -(1 << 62)))
        elif choice == 1:
            array[0] = rng.choice((-1, -(1 << 62)))
        elif len(array) > 1 and choice == 2:
            array[:] = array[::-1].copy()
        else:
            array[:] = 1 << 40

    parts.change(name, change)


def _flat_index(parts: PackParts, rng: Random) -> None:
    names = [name for name, tensor in parts.residents.items() if tensor.dtype == "I64"]
    name = rng.choice(names)
    tensor = parts.residents[name]
    shapes = [(*tensor.shape, 1), (1, *tensor.shape), (1, 1, *tensor.shape)]
    parts.residents[name] = tensor._replace(shape=rng.choice(shapes))


def _staircases(parts: PackParts, rng: Random) -> None:
    """They are only a help: where they are wrong, others are made."""
    data = rng.choice((b"", b"stair", b"stair\x01" + rng.randbytes(400), rng.randbytes(100_000)))
    parts.residents["staircases"] = Tensor("U8", (len(data),), data)


RESIDENTS: Mapping[str, Kind] = {
    "graphs left out": Kind(REFUSED, _no_graph),
    "graphs of no name": Kind(REFUSED, _unknown_graph),
    "graphs swapped": Kind(UNUSED, _swapped_graphs),
    "graphs damaged": Kind(EITHER, _graph_bytes),
    "residents not finite": Kind(REFUSED, _not_finite),
    "residents absurdly large": Kind(REFUSED, _absurd),
    "residents of other values": Kind(EITHER, _other_floats),
    "residents of other shapes": Kind(REFUSED, _other_shape),
    "residents of other sizes": Kind(REFUSED, _other_size),
    "residents of many rows": Kind(REFUSED, _many_rows),
    "residents of other types": Kind(REFUSED, _other_type),
    "channels out of range": Kind(REFUSED, _index_range),
    "channels of other shapes": Kind(REFUSED, _flat_index),
    "staircases": Kind(EITHER, _staircases),
}
"""By name."""
