"""Readers of graphs: taken apart and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.onnx_model import (
    external_data,
    numbers_of,
    operator_of,
    read_model,
    small_values,
    with_operators,
    write_model,
)
from sti.errors import PackFormatError
from sti.graphs.check import CheckedGraphs
from sti.model.manifest import Manifest
from tests.fuzz import sources
from tests.fuzz.target import Target, must


class _Stranger:
    """A pack whose graphs are all the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.manifest: Manifest = sources.manifest()
        self._data = data

    def resident(self, name: str) -> NDArray[Any]:
        if name in self.manifest.graphs.values():
            return np.frombuffer(self._data, np.uint8)
        return sources.residents()[name]

    def has_resident(self, name: str) -> bool:
        return name in sources.residents()


def _graph(data: bytes) -> None:
    """Read a graph as each one of a pack."""
    checked = CheckedGraphs(_Stranger(data), where="pack")
    for name in sources.manifest().graphs:
        with suppress(PackFormatError):
            must(checked.graph(name) == data, "a graph that is taken is taken as it is")
            _used(data)


def _used(data: bytes) -> None:
    """Join a graph with others, as where weights are held."""
    model = read_model(data, where="graph")
    for node in model.nodes:
        operator_of(node)
        numbers_of(node, "axis")
    for tensor in model.initializers:
        small_values(tensor)
        external_data(tensor)
    with_operators(model, 21, format_version=10)


def _model(data: bytes) -> None:
    """Graphs that come from a cache of the user's own are read without that."""
    model = read_model(data, where="graph")
    again = read_model(write_model(model, name="again"), where="again")
    must(again.nodes == model.nodes, "nodes stay as they are")
    must(again.initializers == model.initializers, "initializers stay as they are")


def _sound() -> list[bytes]:
    return [
        sources.residents()[name].tobytes() for name in sources.manifest_json()["graphs"].values()
    ]


def targets() -> Sequence[Target]:
    """The targets of this module."""
    words = ("MatMul", "Loop", "If", "ConstantOfShape", "com.microsoft", "axis", "../data", "words")
    return (
        Target("graph", _graph, _sound, "protobuf", words),
        Target("model", _model, _sound, "protobuf", words),
    )
