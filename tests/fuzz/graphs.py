"""Readers of graphs: taken apart and put together again."""

from __future__ import annotations

from collections.abc import Sequence

from sti.backend.onnxruntime.onnx_model import (
    external_data,
    numbers_of,
    operator_of,
    read_model,
    small_values,
    with_operators,
    write_model,
)
from sti.errors import BackendError
from tests.fuzz import sources
from tests.fuzz.target import Target, must


def _model(data: bytes) -> None:
    model = read_model(data, where="graph")
    try:
        for node in model.nodes:
            operator_of(node)
            numbers_of(node, "axis")
        for tensor in model.initializers:
            small_values(tensor)
            external_data(tensor)
        raised = with_operators(model, 21, format_version=10)
    except BackendError:
        return
    written = write_model(raised, name="again")
    again = read_model(written, where="again")
    must(again.nodes == model.nodes, "nodes stay as they are")
    must(again.initializers == model.initializers, "initializers stay as they are")


def _sound() -> list[bytes]:
    return [sources.resident(name) for name in sources.manifest_json()["graphs"].values()]


def targets() -> Sequence[Target]:
    """The target of this module."""
    words = ("MatMul", "Loop", "If", "ConstantOfShape", "com.microsoft", "axis", "../data", "words")
    return (Target("model", _model, _sound, "protobuf", words),)
