"""Reading a serialized graph of a stranger: what no writer of packs writes is refused.

In: the bytes of an ONNX model. Out: its one graph as a ``StrictGraph``, or ``Refused``. Every field
must be one that is known here, of the wire type it has in ONNX, and occur as often as it may; so
ONNX Runtime cannot find in the same bytes what was not seen here: no functions, no training, no
sparse or external tensors, no graphs inside of nodes. Knows nothing of what operators compute.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from sti.graphs.operator_table import OPSETS, VERSIONS
from sti.graphs.operators import OPERATORS, Attribute, Operator
from sti.graphs.strict_message import Message, Refused, shown
from sti.graphs.wire import byte_fields

MOST_BYTES = 1 << 16
"""Of a serialized graph: over ten times as many as the largest that is written."""
MOST_NODES, MOST_CONSTANTS, MOST_VALUES = 128, 64, 64
"""Of a graph, constants and inputs too: more than twice as many as those that are written have."""
MOST_NUMBERS = 8
"""Of a constant: axes, shapes, and numbers of which there is one."""

ELEMENTS = {1: "F32", 2: "U8", 3: "I8", 7: "I64", 10: "F16"}
"""Names of the element types that values may have, by their numbers in ONNX."""
_DTYPES = {"F32": "<f4", "U8": "u1", "I8": "i1", "I64": "<i8", "F16": "<f2"}
_NAME = re.compile(rb"[A-Za-z0-9_.]{1,64}").fullmatch

# Numbers of fields, by message.
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9
_VALUE_NAME, _VALUE_TYPE, _TENSOR_TYPE, _ELEMENT, _SHAPE, _DIM = 1, 2, 1, 1, 2, 1
_EXTENT, _SYMBOL = 1, 2
_DOMAIN, _VERSION = 1, 2


class StrictNode(NamedTuple):
    """One node, with one output."""

    operator: Operator
    attributes: dict[str, Attribute]
    inputs: tuple[bytes, ...]
    output: bytes


class StrictValue(NamedTuple):
    """An input or output of the graph, as it is declared."""

    name: str
    element: str
    extents: tuple[int | None, ...]
    """None where an extent has only a name."""


class StrictConstant(NamedTuple):
    """A constant, with its values."""

    name: bytes
    element: str
    shape: tuple[int, ...]
    whole: tuple[int, ...] | None
    """Its values, where they are whole numbers that may be a shape, axes or the like."""


class StrictGraph(NamedTuple):
    """A graph, part by part."""

    nodes: list[StrictNode]
    constants: list[StrictConstant]
    inputs: list[StrictValue]
    outputs: list[StrictValue]


class StrictReader:
    """Reads the graphs of one pack, and what they have in common once. Not thread-safe."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, StrictNode] = {}
        self._values: dict[bytes, StrictValue] = {}
        self._constants: dict[bytes, StrictConstant] = {}

    def read(self, raw: bytes) -> StrictGraph:
        """The graph of a serialized model of at most ``MOST_BYTES``.

        Raises:
            Refused: it is malformed, or holds what graphs of packs do not.
        """
        try:
            return self._graph(_only_graph(raw))
        except Refused:
            raise
        except ValueError as error:
            raise Refused(f"is malformed: {error}") from error

    def _graph(self, raw: bytes) -> StrictGraph:
        parts: dict[int, list[bytes]] = {
            number: [] for number in (_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT)
        }
        for number, part in byte_fields(raw):
            if number not in parts:
                raise Refused(f"holds what graphs of packs do not: field {number} of the graph")
            parts[number].append(part)
        for number, what, most in (
            (_GRAPH_NAME, "names", 1),
            (_NODE, "nodes", MOST_NODES),
            (_INITIALIZER, "constants", MOST_CONSTANTS),
            (_INPUT, "inputs", MOST_VALUES),
            (_OUTPUT, "outputs", MOST_VALUES),
        ):
            if len(parts[number]) > most:
                raise Refused(f"has {len(parts[number])} {what}; at most {most} are allowed")
        nodes, constants, values = self._nodes, self._constants, self._values
        return StrictGraph(
            [nodes.get(part) or nodes.setdefault(part, _node(part)) for part in parts[_NODE]],
            [
                constants.get(part) or constants.setdefault(part, _constant(part))
                for part in parts[_INITIALIZER]
            ],
            [values.get(part) or values.setdefault(part, _value(part)) for part in parts[_INPUT]],
            [values.get(part) or values.setdefault(part, _value(part)) for part in parts[_OUTPUT]],
        )


def _only_graph(raw: bytes) -> bytes:
    """The graph of a model, whose versions are supported."""
    model = Message(raw, "the model", numbers={_IR_VERSION: 1}, texts={_GRAPH: 2, _OPSET: 8})
    graphs, opsets = model.texts(_GRAPH), set()
    if len(graphs) != 1:
        raise Refused(f"has {len(graphs)} graphs instead of one")
    version = model.number(_IR_VERSION)
    if version not in VERSIONS:
        raise Refused(f"is of version {version} of ONNX; supported: {_listed(VERSIONS)}")
    for item in model.texts(_OPSET):
        opset = Message(item, "an operator set", numbers={_VERSION: 1}, texts={_DOMAIN: 1})
        domain, version = opset.text(_DOMAIN), opset.number(_VERSION)
        known = OPSETS.get(domain.decode(errors="replace"))
        if known is None or domain in opsets:
            raise Refused(f"names operators of domain {shown(domain)}, unknown or a second time")
        if version not in known:
            raise Refused(
                f"takes version {version} of the operators of domain {shown(domain)}; supported: "
                f"{_listed(known)}"
            )
        opsets.add(domain)
    if len(opsets) != len(OPSETS):
        raise Refused("does not say of which versions its operators are")
    return graphs[0]


def _node(raw: bytes) -> StrictNode:
    parts: dict[int, list[bytes]] = {
        number: []
        for number in (
            *(_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE, _NODE_DOMAIN),
        )
    }
    for number, part in byte_fields(raw):
        if number not in parts:
            raise Refused(f"has a node that holds what nodes of packs do not: field {number}")
        parts[number].append(part)
    names, domains, outputs = parts[_OPERATOR], parts[_NODE_DOMAIN], parts[_NODE_OUTPUT]
    if len(names) != 1 or len(outputs) != 1 or len(domains) > 1 or len(parts[_NODE_NAME]) > 1:
        raise Refused("has a node with more or less than one operator, output or name")
    domain = domains[0] if domains else b""
    operator = OPERATORS.get((domain, names[0]))
    if operator is None:
        raise Refused(
            f"has a node of operator {shown(names[0])}"
            + (f" of domain {shown(domain)}" if domain else "")
            + ", which graphs of packs do not have"
        )
    if not all(map(_NAME, outputs + parts[_NODE_NAME])):
        raise Refused(f"has a node {operator.name} of an odd name")
    found: dict[str, Attribute] = {}
    for item in parts[_ATTRIBUTE]:
        known = operator.attribute(item)
        if known is None or known[0] in found:
            raise Refused(f"has a node {operator.name} with an attribute that it may not have")
        found[known[0]] = known[1]
    if not operator.required <= found.keys():
        missing = min(operator.required - found.keys())
        raise Refused(f"has a node {operator.name} without its attribute {missing!r}")
    return StrictNode(operator, found, tuple(parts[_NODE_INPUT]), outputs[0])


def _constant(raw: bytes) -> StrictConstant:
    tensor = Message(
        raw,
        "a constant (values may lie in no other place)",
        numbers={_DIMS: 2, _DATA_TYPE: 1},
        texts={_TENSOR_NAME: 1, _RAW: 1},
    )
    shape, name = tuple(tensor.numbers(_DIMS)), tensor.text(_TENSOR_NAME)
    element = ELEMENTS.get(tensor.number(_DATA_TYPE))
    if element is None or not _NAME(name):
        raise Refused("has a constant of an odd name, or of a type that packs do not have")
    if len(shape) > 1 or not all(0 < extent <= MOST_NUMBERS for extent in shape):
        raise Refused(f"has a constant of shape {shape}; at most {MOST_NUMBERS} values are allowed")
    dtype = np.dtype(_DTYPES[element])
    if len(tensor.text(_RAW)) != math.prod(shape) * dtype.itemsize:
        raise Refused(f"has a constant {shown(name)} of more or fewer values than its shape says")
    values = np.frombuffer(tensor.text(_RAW), dtype)
    if not np.isfinite(values).all():
        raise Refused(f"has a constant {shown(name)} that is not finite")
    whole = tuple(values.tolist()) if element == "I64" else None
    return StrictConstant(name, element, shape, whole)


def _value(raw: bytes) -> StrictValue:
    what = "an input or output"
    value = Message(raw, what, texts={_VALUE_NAME: 1, _VALUE_TYPE: 1})
    name = value.text(_VALUE_NAME)
    if not _NAME(name):
        raise Refused("has an input or output of an odd name")
    kind = Message(value.text(_VALUE_TYPE), what, texts={_TENSOR_TYPE: 1})
    tensor = Message(kind.text(_TENSOR_TYPE), what, numbers={_ELEMENT: 1}, texts={_SHAPE: 1})
    element = ELEMENTS.get(tensor.number(_ELEMENT))
    if element is None or not tensor.texts(_SHAPE):
        raise Refused(f"has {shown(name)} without a type and shape that packs have")
    shape = Message(tensor.text(_SHAPE), what, texts={_DIM: 8})
    return StrictValue(name.decode(), element, tuple(map(_extent, shape.texts(_DIM))))


def _extent(raw: bytes) -> int | None:
    extent = Message(raw, "an extent", numbers={_EXTENT: 1}, texts={_SYMBOL: 1})
    sizes, symbols = extent.numbers(_EXTENT), extent.texts(_SYMBOL)
    if len(sizes) + len(symbols) != 1 or not all(map(_NAME, symbols)):
        raise Refused("has an input or output with an odd shape")
    return sizes[0] if sizes else None


def _listed(values: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(values)))
