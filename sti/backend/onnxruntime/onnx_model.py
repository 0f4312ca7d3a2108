"""ONNX models as bytes: taken apart and put together without the ``onnx`` package.

In: a serialized model. Out: its nodes, initializers, inputs and outputs, whose names can be
changed, and the bytes of a model of such parts. Only what renaming and joining needs is read; all
else is kept as the bytes it came as. Knows nothing of what operators compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.errors import BackendError
from sti.graphs.wire import bytes_of, encoded, field, fields, integer, signed, text

# Numbers of fields, by message.
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
_KEY, _VALUE = 1, 2
_VALUE_NAME = 1
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 1, 3, 8, 20
_TYPE_INT = 2
_DOMAIN, _VERSION = 1, 2

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}
"""Numbers of element types, by their names in NumPy."""

PREPACKED = "prepacked_"
"""What keys of external data begin with that tell where a packed copy lies."""


class Node(NamedTuple):
    """One node of a graph."""

    name: str
    inputs: tuple[str, ...]
    """An empty name stands for an optional input that is not given."""
    outputs: tuple[str, ...]
    rest: bytes
    """Operator, domain and attributes, serialized."""


class Named(NamedTuple):
    """An input or output of a graph, or an initializer."""

    name: str
    rest: bytes
    """All but the name, serialized."""


class Model(NamedTuple):
    """A model of one graph."""

    nodes: tuple[Node, ...]
    initializers: tuple[Named, ...]
    inputs: tuple[Named, ...]
    outputs: tuple[Named, ...]
    rest: bytes
    """Versions of the format and of the operators, serialized."""


def read_model(raw: bytes, *, where: str) -> Model:
    """Take a serialized model apart.

    Raises:
        BackendError: it is malformed, or has graphs inside of nodes; names ``where``.
    """
    try:
        return _model(raw)
    except (ValueError, UnicodeDecodeError) as error:
        raise BackendError(
            f"{where}: not a graph that can be joined with others: {error}"
        ) from error


def write_model(model: Model, *, name: str) -> bytes:
    """Serialize a model; the same bytes for the same parts."""
    graph = [text(_GRAPH_NAME, name)]
    graph += [field(_NODE, _node_bytes(node)) for node in model.nodes]
    for number, items, key in (
        (_INITIALIZER, model.initializers, _TENSOR_NAME),
        (_INPUT, model.inputs, _VALUE_NAME),
        (_OUTPUT, model.outputs, _VALUE_NAME),
    ):
        graph += [field(number, text(key, item.name) + item.rest) for item in items]
    return model.rest + field(_GRAPH, b"".join(graph))


def plain_node(
    name: str, operator: str, inputs: Sequence[str], *outputs: str, **numbers: int
) -> Node:
    """A node of an operator of the default domain, whose attributes are numbers."""
    attributes = (
        field(
            _ATTRIBUTE,
            text(_ATTRIBUTE_NAME, key)
            + integer(_ATTRIBUTE_INT, value)
            + integer(_ATTRIBUTE_TYPE, _TYPE_INT),
        )
        for key, value in numbers.items()
    )
    rest = text(_OPERATOR, operator) + b"".join(attributes)
    return Node(name, tuple(inputs), outputs, rest)


def operator_of(node: Node) -> str:
    """The name of a node's operator."""
    found = (bytes_of(value) for number, _, value in fields(node.rest) if number == _OPERATOR)
    return next(found).decode()


def numbers_of(node: Node, name: str) -> tuple[int, ...]:
    """The numbers of an attribute; none where the node has no such attribute of numbers."""
    for number, _, value in fields(node.rest):
        if number == _ATTRIBUTE:
            items = list(fields(bytes_of(value)))
            if (_ATTRIBUTE_NAME, name.encode()) in ((key, item) for key, _, item in items):
                wanted = (_ATTRIBUTE_INT, _ATTRIBUTE_INTS)
                found = (item for key, _, item in items if key in wanted)
                return tuple(signed(item) for item in found if isinstance(item, int))
    return ()


def small_values(tensor: Named) -> NDArray[Any] | None:
    """The values of an initializer; None where they are not inside the model as bytes."""
    shape: list[int] = []
    element, raw = "", b""
    for number, _, value in fields(tensor.rest):
        if number == _DIMS and isinstance(value, int):
            shape.append(value)
        elif number == _DATA_TYPE:
            element = next((name for name, known in _TYPES.items() if known == value), "")
        elif number == _RAW:
            raw = bytes_of(value)
    if not element or len(raw) != np.dtype(element).itemsize * prod(shape):
        return None
    return np.frombuffer(raw, element).reshape(shape)


def with_operators(model: Model, version: int, *, format_version: int) -> Model:
    """The model with operators of at least this version, in a format of at least that one."""
    kept = []
    for number, kind, value in fields(model.rest):
        found = value
        if number == _IR_VERSION and isinstance(value, int):
            found = max(value, format_version)
        elif number == _OPSET:
            entries = {key: item for key, _, item in fields(bytes_of(value))}
            if not entries.get(_DOMAIN):
                found = integer(_VERSION, max(signed(entries.get(_VERSION, 0)), version))
        kept.append((number, kind, found))
    return model._replace(rest=encoded(kept))


def small_tensor(name: str, array: NDArray[Any]) -> Named:
    """An initializer with its values inside the model."""
    raw = np.ascontiguousarray(array).tobytes()
    return Named(name, _type_and_shape(array) + field(_RAW, raw))


def external_tensor(name: str, array: NDArray[Any], *, file: str, offset: int) -> Named:
    """An initializer whose values lie in a file beside the model."""
    entries = {"location": file, "offset": str(offset), "length": str(array.nbytes)}
    return Named(name, _type_and_shape(array) + _external(entries))


def external_data(tensor: Named) -> dict[str, str]:
    """Where an initializer's values lie, as the model says; empty where they are inside of it.

    Raises:
        BackendError: it is malformed.
    """
    try:
        found = (value for number, _, value in fields(tensor.rest) if number == _EXTERNAL)
        return dict(_entry(bytes_of(value)) for value in found)
    except (ValueError, UnicodeDecodeError) as error:
        raise BackendError(f"initializer {tensor.name!r} is malformed: {error}") from error


def with_external_data(tensor: Named, entries: Mapping[str, str]) -> Named:
    """The same initializer with its values elsewhere."""
    kept = (field for field in fields(tensor.rest) if field[0] not in (_EXTERNAL, _LOCATION))
    return Named(tensor.name, encoded(kept) + _external(entries))


def _model(raw: bytes) -> Model:
    parts = list(fields(raw))
    graphs = [bytes_of(value) for number, _, value in parts if number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs instead of one")
    found: dict[int, list[bytes]] = {_NODE: [], _INITIALIZER: [], _INPUT: [], _OUTPUT: []}
    for number, _, value in fields(graphs[0]):
        if number in found:
            found[number].append(bytes_of(value))
    kept = (field for field in parts if field[0] in (_IR_VERSION, _OPSET))
    return Model(
        nodes=tuple(map(_node, found[_NODE])),
        initializers=tuple(_named(item, _TENSOR_NAME) for item in found[_INITIALIZER]),
        inputs=tuple(_named(item, _VALUE_NAME) for item in found[_INPUT]),
        outputs=tuple(_named(item, _VALUE_NAME) for item in found[_OUTPUT]),
        rest=encoded(kept),
    )


def _node(raw: bytes) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: []}
    rest = []
    for part in fields(raw):
        number, _, value = part
        if number in texts:
            texts[number].append(bytes_of(value).decode())
        elif number in (_OPERATOR, _ATTRIBUTE, _NODE_DOMAIN):
            rest.append(part)
            if number == _ATTRIBUTE:
                inner = {item[0] for item in fields(bytes_of(value))}
                if inner & {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}:
                    raise ValueError("a node has a graph inside of it")
    if not any(number == _OPERATOR for number, _, _ in rest):
        raise ValueError("a node has no operator")
    name = texts[_NODE_NAME][-1] if texts[_NODE_NAME] else ""
    return Node(name, tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT]), encoded(rest))


def _node_bytes(node: Node) -> bytes:
    parts = [text(_NODE_INPUT, name) for name in node.inputs]
    parts += [text(_NODE_OUTPUT, name) for name in node.outputs]
    return b"".join((*parts, text(_NODE_NAME, node.name), node.rest))


def _named(raw: bytes, key: int) -> Named:
    parts = list(fields(raw))
    names = [bytes_of(value).decode() for number, _, value in parts if number == key]
    if not names:
        raise ValueError("an input, output or initializer has no name")
    return Named(names[-1], encoded(field for field in parts if field[0] != key))


def _type_and_shape(array: NDArray[Any]) -> bytes:
    element = _TYPES.get(array.dtype.name)
    if element is None:
        raise BackendError(f"a graph cannot hold values of type {array.dtype.name}")
    return b"".join(integer(_DIMS, extent) for extent in array.shape) + integer(_DATA_TYPE, element)


def _external(entries: Mapping[str, str]) -> bytes:
    parts = [field(_EXTERNAL, text(_KEY, k) + text(_VALUE, v)) for k, v in entries.items()]
    return b"".join(parts) + integer(_LOCATION, 1)


def _entry(raw: bytes) -> tuple[str, str]:
    found = {number: bytes_of(value).decode() for number, _, value in fields(raw)}
    return found.get(_KEY, ""), found.get(_VALUE, "")
