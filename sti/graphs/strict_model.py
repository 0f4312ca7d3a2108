"""Reading a serialized graph of a stranger: what no writer of packs writes is refused.

In: the bytes of an ONNX model. Out: its one graph as a ``StrictGraph``, or ``Refused``. Every field
must be one that is known here, of the wire type it has in ONNX, and occur as often as it may; so
ONNX Runtime cannot find in the same bytes what was not seen here: no functions, no training, no
sparse or external tensors, no graphs inside of nodes. Knows nothing of what operators compute.
"""

from __future__ import annotations

import math
import re
import struct
from functools import lru_cache
from typing import NamedTuple

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
_LAYOUTS = {"F32": "f", "U8": "B", "I8": "b", "I64": "q", "F16": "e"}
"""The same as ``struct`` has them."""

# Numbers of fields, by message.
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
_OPERATOR, _ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_DOMAIN, _VERSION = 1, 2

# Small messages as a whole: tags, lengths (any byte here, compared afterwards) and contents.
_NAMES = rb"[A-Za-z0-9_.]{1,64}"
_INPUT_FIELD = rb"\x0a(.)(" + _NAMES + rb")"
_INPUTS = re.compile(_INPUT_FIELD, re.DOTALL).findall
_NODE_MESSAGE = re.compile(
    rb"((?:\x0a." + _NAMES + rb"){0,8})"  # input
    rb"\x12(.)(" + _NAMES + rb")"  # output
    rb"\x1a(.)(" + _NAMES + rb")"  # name
    rb"(\x22.*)",  # op_type, attribute, domain
    re.DOTALL,
).fullmatch
_CONSTANT = re.compile(
    rb"(?:\x08(.))?"  # dims
    rb"\x10(.)"  # data_type
    rb"\x42(.)(" + _NAMES + rb")"  # name
    rb"\x4a(.)(.*)",  # raw_data
    re.DOTALL,
).fullmatch
_EXTENT = (
    rb"\x0a(.)(?:"
    rb"\x12(.)(" + _NAMES + rb")"  # dim_param
    rb"|\x08([\x80-\xff]{0,4}[\x00-\x7f]))"  # dim_value
)
_EXTENTS = re.compile(_EXTENT, re.DOTALL).findall
_VALUE = re.compile(
    rb"\x0a(.)(" + _NAMES + rb")"  # name
    rb"(\x12.*)",  # type
    re.DOTALL,
).fullmatch
_TYPE = re.compile(
    rb"\x12(.)\x0a(.)"  # type, tensor_type
    rb"\x08(.)"  # elem_type
    rb"\x12(.)((?:"
    + _EXTENT.replace(rb"(.)", rb".")
    .replace(b"(" + _NAMES + b")", _NAMES)
    .replace(rb"([\x80-\xff]{0,4}[\x00-\x7f])", rb"[\x80-\xff]{0,4}[\x00-\x7f]")
    + rb"){0,8})",
    re.DOTALL,
).fullmatch


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
        opsets.add(_domain(item))
    if len(opsets) != len(OPSETS) or len(model.texts(_OPSET)) != len(OPSETS):
        raise Refused("does not say once for each domain of which version its operators are")
    return graphs[0]


@lru_cache(maxsize=16)
def _domain(raw: bytes) -> bytes:
    """The domain of an operator set of a version that is supported. Remembered: there are few."""
    opset = Message(raw, "an operator set", numbers={_VERSION: 1}, texts={_DOMAIN: 1})
    domain, version = opset.text(_DOMAIN), opset.number(_VERSION)
    known = OPSETS.get(domain.decode(errors="replace"))
    if known is None:
        raise Refused(f"names operators of an unknown domain, {shown(domain)}")
    if version not in known:
        raise Refused(
            f"takes version {version} of the operators of domain {shown(domain)}; supported: "
            f"{_listed(known)}"
        )
    return domain


def _node(raw: bytes) -> StrictNode:
    """A node: its inputs, its output, its name, and what it does, in the order of their fields."""
    written = _NODE_MESSAGE(raw)
    if written is None:
        raise Refused("has a node that is not written as nodes of packs are")
    given, output_bytes, output, name_bytes, name, operation = written.groups()
    inputs = _INPUTS(given)
    fits = output_bytes[0] == len(output) and name_bytes[0] == len(name)
    for input_bytes, each in inputs:
        fits = fits and input_bytes[0] == len(each)
    if not fits:
        raise Refused("is malformed: a name of a node is longer or shorter than it says")
    operator, attributes = _operation(operation)
    return StrictNode(operator, attributes, tuple([each for _, each in inputs]), output)


@lru_cache(maxsize=256)
def _operation(raw: bytes) -> tuple[Operator, dict[str, Attribute]]:
    """The operator of a node and its attributes, by the fields after its name.

    Remembered, as there are few. The attributes are not to be changed.
    """
    parts: dict[int, list[bytes]] = {number: [] for number in (_OPERATOR, _ATTRIBUTE, _NODE_DOMAIN)}
    for number, part in byte_fields(raw):
        if number not in parts:
            raise Refused(f"has a node that holds what nodes of packs do not: field {number}")
        parts[number].append(part)
    names, domains = parts[_OPERATOR], parts[_NODE_DOMAIN]
    if len(names) != 1 or len(domains) > 1:
        raise Refused("has a node with more or less than one operator")
    domain = domains[0] if domains else b""
    operator = OPERATORS.get((domain, names[0]))
    if operator is None:
        raise Refused(
            f"has a node of operator {shown(names[0])}"
            + (f" of domain {shown(domain)}" if domain else "")
            + ", which graphs of packs do not have"
        )
    found: dict[str, Attribute] = {}
    for item in parts[_ATTRIBUTE]:
        known = operator.attribute(item)
        if known is None or known[0] in found:
            raise Refused(f"has a node {operator.name} with an attribute that it may not have")
        found[known[0]] = known[1]
    if not operator.required <= found.keys():
        missing = min(operator.required - found.keys())
        raise Refused(f"has a node {operator.name} without its attribute {missing!r}")
    return operator, found


def _constant(raw: bytes) -> StrictConstant:
    written = _CONSTANT(raw)
    if written is None:
        raise Refused(
            "has a constant that is not written as those of packs are: of one dimension at most, "
            "with its values inside the model"
        )
    extent, element_number, name_bytes, name, raw_bytes, values = written.groups()
    shape = (extent[0],) if extent else ()
    element = ELEMENTS.get(element_number[0])
    count = shape[0] if shape else 1
    if element is None or name_bytes[0] != len(name) or raw_bytes[0] != len(values):
        raise Refused("has a constant of an odd name, or of a type that packs do not have")
    if not 0 < count <= MOST_NUMBERS:
        raise Refused(f"has a constant of shape {shape}; at most {MOST_NUMBERS} values are allowed")
    layout = f"<{count}{_LAYOUTS[element]}"
    if struct.calcsize(layout) != len(values):
        raise Refused(f"has a constant {shown(name)} of more or fewer values than its shape says")
    numbers = struct.unpack(layout, values)
    if not all(map(math.isfinite, numbers)):
        raise Refused(f"has a constant {shown(name)} that is not finite")
    return StrictConstant(name, element, shape, numbers if element == "I64" else None)


def _value(raw: bytes) -> StrictValue:
    written = _VALUE(raw)
    if written is None:
        raise Refused("has an input or output that is not declared as those of packs are")
    name_bytes, name, declared = written.groups()
    if name_bytes[0] != len(name):
        raise Refused("is malformed: an input or output is longer or shorter than it says")
    number, extents = _type(declared)
    element = ELEMENTS.get(number)
    if element is None:
        raise Refused(f"has {shown(name)} of a type that packs do not have")
    return StrictValue(name.decode(), element, extents)


@lru_cache(maxsize=64)
def _type(raw: bytes) -> tuple[int, tuple[int | None, ...]]:
    """The number of the element type, and the extents.

    Remembered, as there are few, and those that are not refused are short.
    """
    written = _TYPE(raw)
    if written is None:  # raised, as what is returned is remembered
        raise Refused("has an input or output that is not declared as those of packs are")
    type_bytes, tensor_bytes, number, shape_bytes, shape = written.groups()
    stated = type_bytes[0], tensor_bytes[0], shape_bytes[0]
    if stated != (len(shape) + 6, len(shape) + 4, len(shape)):
        raise Refused("is malformed: an input or output is longer or shorter than it says")
    extents: list[int | None] = []
    for size, symbol_bytes, symbol, digits in _EXTENTS(shape):
        if digits:
            fits = size[0] == 1 + len(digits)
            extents.append(sum((digit & 0x7F) << 7 * at for at, digit in enumerate(digits)))
        else:
            fits = size[0] == 2 + len(symbol) and symbol_bytes[0] == len(symbol)
            extents.append(None)
        if not fits:
            raise Refused("is malformed: an extent is longer or shorter than it says")
    return number[0], tuple(extents)


def _listed(values: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(values)))
