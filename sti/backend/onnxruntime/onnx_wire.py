"""ONNX models as bytes: taken apart and put together without the ``onnx`` package.

In: a serialized model. Out: its nodes, initializers, inputs and outputs, whose names can be
changed, and the bytes of a model of such parts. Only what renaming and joining needs is read; all
else is kept as the bytes it came as. Knows nothing of what operators compute.

The wire format is that of Protocol Buffers: fields of a number and a type, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.errors import BackendError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT = 10

# Numbers of fields, by message.
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
_KEY, _VALUE = 1, 2
_VALUE_NAME = 1

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}
"""Numbers of element types, by their names in NumPy."""

PREPACKED = "prepacked_"
"""What keys of external data begin with that tell where a packed copy lies."""

_Field = tuple[int, int, int | bytes]
"""Number, wire type, and value: an int for a varint, else bytes."""


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
    graph = [_text(_GRAPH_NAME, name)]
    graph += [_field(_NODE, _node_bytes(node)) for node in model.nodes]
    for number, items, key in (
        (_INITIALIZER, model.initializers, _TENSOR_NAME),
        (_INPUT, model.inputs, _VALUE_NAME),
        (_OUTPUT, model.outputs, _VALUE_NAME),
    ):
        graph += [_field(number, _text(key, item.name) + item.rest) for item in items]
    return model.rest + _field(_GRAPH, b"".join(graph))


def plain_node(name: str, operator: str, inputs: Sequence[str], output: str) -> Node:
    """A node of an operator of the default domain, without attributes and with one output."""
    return Node(name, tuple(inputs), (output,), _text(_OPERATOR, operator))


def small_tensor(name: str, array: NDArray[Any]) -> Named:
    """An initializer with its values inside the model."""
    raw = np.ascontiguousarray(array).tobytes()
    return Named(name, _type_and_shape(array) + _field(_RAW, raw))


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
        found = (value for number, _, value in _fields(tensor.rest) if number == _EXTERNAL)
        return dict(_entry(_bytes(value)) for value in found)
    except (ValueError, UnicodeDecodeError) as error:
        raise BackendError(f"initializer {tensor.name!r} is malformed: {error}") from error


def with_external_data(tensor: Named, entries: Mapping[str, str]) -> Named:
    """The same initializer with its values elsewhere."""
    kept = (field for field in _fields(tensor.rest) if field[0] not in (_EXTERNAL, _LOCATION))
    return Named(tensor.name, _encoded(kept) + _external(entries))


def _model(raw: bytes) -> Model:
    parts = list(_fields(raw))
    graphs = [_bytes(value) for number, _, value in parts if number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs instead of one")
    found: dict[int, list[bytes]] = {_NODE: [], _INITIALIZER: [], _INPUT: [], _OUTPUT: []}
    for number, _, value in _fields(graphs[0]):
        if number in found:
            found[number].append(_bytes(value))
    kept = (field for field in parts if field[0] in (_IR_VERSION, _OPSET))
    return Model(
        nodes=tuple(map(_node, found[_NODE])),
        initializers=tuple(_named(item, _TENSOR_NAME) for item in found[_INITIALIZER]),
        inputs=tuple(_named(item, _VALUE_NAME) for item in found[_INPUT]),
        outputs=tuple(_named(item, _VALUE_NAME) for item in found[_OUTPUT]),
        rest=_encoded(kept),
    )


def _node(raw: bytes) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: []}
    rest = []
    for field in _fields(raw):
        number, _, value = field
        if number in texts:
            texts[number].append(_bytes(value).decode())
        elif number in (_OPERATOR, _ATTRIBUTE, _NODE_DOMAIN):
            rest.append(field)
            if number == _ATTRIBUTE:
                inner = {item[0] for item in _fields(_bytes(value))}
                if inner & {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}:
                    raise ValueError("a node has a graph inside of it")
    if not any(number == _OPERATOR for number, _, _ in rest):
        raise ValueError("a node has no operator")
    name = texts[_NODE_NAME][-1] if texts[_NODE_NAME] else ""
    return Node(name, tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT]), _encoded(rest))


def _node_bytes(node: Node) -> bytes:
    parts = [_text(_NODE_INPUT, name) for name in node.inputs]
    parts += [_text(_NODE_OUTPUT, name) for name in node.outputs]
    return b"".join((*parts, _text(_NODE_NAME, node.name), node.rest))


def _named(raw: bytes, key: int) -> Named:
    fields = list(_fields(raw))
    names = [_bytes(value).decode() for number, _, value in fields if number == key]
    if not names:
        raise ValueError("an input, output or initializer has no name")
    return Named(names[-1], _encoded(field for field in fields if field[0] != key))


def _type_and_shape(array: NDArray[Any]) -> bytes:
    element = _TYPES.get(array.dtype.name)
    if element is None:
        raise BackendError(f"a graph cannot hold values of type {array.dtype.name}")
    return b"".join(_integer(_DIMS, extent) for extent in array.shape) + _integer(
        _DATA_TYPE, element
    )


def _external(entries: Mapping[str, str]) -> bytes:
    parts = [_field(_EXTERNAL, _text(_KEY, k) + _text(_VALUE, v)) for k, v in entries.items()]
    return b"".join(parts) + _integer(_LOCATION, 1)


def _entry(raw: bytes) -> tuple[str, str]:
    found = {number: _bytes(value).decode() for number, _, value in _fields(raw)}
    return found.get(_KEY, ""), found.get(_VALUE, "")


def _fields(raw: bytes) -> Iterator[_Field]:
    """The fields of a message, in their order."""
    place = 0
    while place < len(raw):
        tag, place = _read_varint(raw, place)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        if wire == _VARINT:
            value, place = _read_varint(raw, place)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, place = _read_varint(raw, place)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")
        if length > len(raw) - place:
            raise ValueError("it ends in the middle of a field")
        yield number, wire, raw[place : place + length]
        place += length


def _read_varint(raw: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(_MOST_VARINT):
        if place + index >= len(raw):
            raise ValueError("it ends in the middle of a number")
        byte = raw[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number is too long")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field is a number instead of bytes")
    return value


def _encoded(fields: Iterable[_Field]) -> bytes:
    parts = []
    for number, wire, value in fields:
        if isinstance(value, int):
            parts.append(_integer(number, value))
        elif wire == _BYTES:
            parts.append(_field(number, value))
        else:
            parts.append(_varint(number << 3 | wire) + value)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())
