"""Refuses packs whose graphs are not what graphs of packs may be.

In: a pack's manifest and resident tensors. Out: nothing, or ``PackFormatError``. Graphs come from
strangers, and ONNX Runtime would follow them to other files, and take all memory and any time. So
before it sees one, every part is read here (``strict_model``), every operator must be one of the
list (``operators``), inputs and outputs must be those that the manifest implies (``interfaces``),
and the size of everything that is computed is found without computing it (``shapes``) and must be
within a few times that of what the graph is fed. Knows nothing of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from sti.errors import PackFormatError
from sti.graphs.interfaces import (
    FORMS,
    MASKED,
    PLACES,
    Interface,
    Residents,
    Tensor,
    interfaces,
    stored,
    unfed,
)
from sti.graphs.polynomials import Growth, fixed_part, growth, is_moderate
from sti.graphs.shapes import INFER, PRODUCTS, Shape, part_of_shape
from sti.graphs.strict_message import Refused
from sti.graphs.strict_model import MOST_BYTES, StrictGraph, StrictReader, StrictValue

ITEM_BYTES = {"F32": 4, "U8": 1, "I8": 1, "I64": 8, "F16": 2}

MOST_BY_TOKEN, MOST_BY_PAIR, MOST_FIXED, MOST_PRODUCTS = 32, 6, 2, 4
"""How much a graph may compute: numbers for each token, by its width; numbers for each pair of
tokens, by its heads; other numbers, and products for each token, by the numbers it is fed that do
not depend on texts. Those that are written take about half of each.
"""


class CheckedGraphs:
    """The graphs of a pack, each checked before it is given to anybody, once.

    Threads may share it.

    Args:
        source: the pack's.
        where: names the pack in errors.
    """

    def __init__(self, source: Residents, *, where: str) -> None:
        self._source, self._where = source, where
        self._reader = StrictReader()
        self._sound: set[str] = set()
        self._interfaces: dict[str, Interface] = {}

    def check(self, forms: Collection[str] = tuple(FORMS), *, masked: bool = True) -> None:
        """Check that there are all graphs that there must be and no others, and what they are.

        Those that a part of a pack cannot feed are not looked into, and not given to anybody.

        Args:
            forms: of weights; graphs for others are only checked when they are asked for.
            masked: False: so are graphs for groups with padding.

        Raises:
            PackFormatError: a graph is missing, or not what it may be; names it.
        """
        wanted, there = self._wanted(), self._source.manifest.graphs
        unused = unfed(self._source.manifest)
        for name in (*wanted, *(name for name in there if name not in unused)):
            kind, _, form = name.rpartition(".")
            later = form not in forms or (kind.endswith(MASKED) and not masked)
            if not later or form not in FORMS or name not in wanted or name not in there:
                self._check(name)

    def graph(self, name: str) -> bytes:
        """A serialized graph.

        Raises:
            PackFormatError: as ``check``, of this graph.
        """
        self._check(name)
        return self._source.resident(self._source.manifest.graphs[name]).tobytes()

    def _wanted(self) -> Mapping[str, Interface]:
        if not self._interfaces:
            try:
                self._interfaces = dict(interfaces(self._source))
            except Refused as error:
                raise self._error("of a block", error) from error
        return self._interfaces

    def _check(self, name: str) -> None:
        if name in self._sound:
            return
        interface = self._wanted().get(name)
        tensor = self._source.manifest.graphs.get(name)
        try:
            if interface is None:
                raise Refused("is none of those that packs have")
            if tensor is None:
                raise Refused("is missing")
            raw = self._source.resident(tensor)
            if raw.nbytes > MOST_BYTES:
                raise Refused(f"has {raw.nbytes:,} bytes; at most {MOST_BYTES:,} are allowed")
            _Check(self._source, interface).check(self._reader.read(raw.tobytes()))
        except Refused as error:
            raise self._error(ascii(name[:80]), error) from error
        self._sound.add(name)

    def _error(self, graph: str, what: Refused) -> PackFormatError:
        return PackFormatError(
            f"{self._where}: graph {graph} {what}; rebuild the pack from its checkpoint, or get "
            "it from somebody you trust"
        )


class _Check:
    """The check of one graph."""

    def __init__(self, source: Residents, interface: Interface) -> None:
        self._source, self._interface = source, interface
        self._elements: dict[bytes, str] = {}
        self._shapes: dict[bytes, Shape] = {}
        self._known: dict[bytes, tuple[int, ...]] = {}
        """Values that are whole and known."""
        self._placed: set[bytes] = set()
        """Inputs with a row for each place that a model has, used or not."""

    def check(self, graph: StrictGraph) -> None:
        """Check a graph.

        Raises:
            Refused: says why.
        """
        fixed = self._inputs(graph.inputs)
        for constant in graph.constants:
            self._define(constant.name, constant.element, constant.shape)
            if constant.whole is not None:
                self._known[constant.name] = constant.whole
        self._limits(*self._nodes(graph), fixed)
        self._outputs(graph.outputs)

    def _define(self, name: bytes, element: str, shape: Shape) -> None:
        if name in self._elements:
            raise Refused(f"defines {name.decode()!r} twice")
        self._elements[name], self._shapes[name] = element, shape

    def _inputs(self, inputs: list[StrictValue]) -> int:
        """Take up the inputs; how many numbers those have that do not depend on texts."""
        interface, names, fixed = self._interface, set(), 0
        for value in inputs:
            wanted = interface.inputs.get(value.name)
            if wanted is None:
                tensor = interface.own.get(value.name)
                if tensor is None:
                    raise Refused(f"has an input {value.name!r}, which it is not fed")
                wanted = stored(self._source, tensor)
            _fits(value, wanted)
            key = value.name.encode()
            self._define(key, *wanted)
            if PLACES in wanted.shape:
                self._placed.add(key)
            names.add(value.name)
            size = prod(wanted.shape)
            if not is_moderate(size):
                raise Refused(f"has an input {value.name!r} of too many numbers")
            fixed += fixed_part(size)
        for name in interface.required:
            if name not in names:
                raise Refused(f"has no input {name!r}")
        return fixed

    def _nodes(self, graph: StrictGraph) -> tuple[int, int]:
        """Go through the nodes; bytes of all that they compute, and products of numbers."""
        elements, shapes, known = self._elements, self._shapes, self._known
        placed = self._placed
        size_bytes = products = 0
        for operator, attributes, inputs, output in graph.nodes:
            kind = operator.name
            try:
                types = tuple([elements[name] for name in inputs])
                element, infer = operator.results[types], INFER[kind]
                given = [shapes[name] for name in inputs]
                whole = [known.get(name) for name in inputs] if "I64" in types else ()
                shape = infer(attributes, given, whole)
            except KeyError:
                raise Refused(_unfit(kind, inputs, output, elements)) from None
            except Refused as error:
                raise Refused(f"node {output.decode()!r}, {kind}: {error}") from error
            if PLACES in shape or (placed and kind != "Slice" and not placed.isdisjoint(inputs)):
                raise Refused(
                    f"node {output.decode()!r}, {kind}: takes more places than there are tokens"
                )
            size = prod(shape)
            if not is_moderate(size):
                raise Refused(
                    f"node {output.decode()!r}, {kind}: computes more than graphs may: "
                    "its size grows faster than texts and pairs of tokens do"
                )
            if output in elements:
                raise Refused(f"defines {output.decode()!r} twice")
            elements[output], shapes[output] = element, shape
            size_bytes += size * ITEM_BYTES[element]
            if kind in PRODUCTS:
                products += size * given[0][-1]
            elif kind == "Shape":
                known[output] = part_of_shape(attributes, given[0])
        return size_bytes, products

    def _limits(self, size_bytes: int, products: int, fixed: int) -> None:
        """Refuse what takes too much memory or time."""
        width, heads = self._interface.width, self._interface.heads
        fixed += width
        for what, size, most in (
            (
                "bytes",
                size_bytes,
                Growth(
                    ITEM_BYTES["F32"] * MOST_FIXED * fixed,
                    ITEM_BYTES["F32"] * MOST_BY_TOKEN * width,
                    ITEM_BYTES["F32"] * MOST_BY_PAIR * heads,
                ),
            ),
            (
                "products",
                products,
                Growth(
                    MOST_PRODUCTS * fixed,
                    MOST_PRODUCTS * fixed,
                    MOST_PRODUCTS * width * min(1, heads),
                ),
            ),
        ):
            if not is_moderate(size):
                raise Refused(f"computes more {what} than graphs may")
            for part, found, limit in zip(Growth._fields, growth(size), most, strict=True):
                if found > limit:
                    kind = part.replace("_", " ")
                    raise Refused(
                        f"computes {found:,} {what} ({kind}), for this model more than {limit:,}"
                    )

    def _outputs(self, outputs: list[StrictValue]) -> None:
        wanted = self._interface.outputs
        if [value.name for value in outputs] != list(wanted):
            raise Refused(f"must have the outputs {', '.join(wanted)}")
        for value in outputs:
            _fits(value, wanted[value.name])
            name = value.name.encode()
            if name not in self._elements:
                raise Refused(f"does not compute its output {value.name!r}")
            found = Tensor(self._elements[name], self._shapes[name])
            if found != wanted[value.name]:
                raise Refused(
                    f"computes its output {value.name!r} in another type or shape than the "
                    "manifest says"
                )


def _fits(value: StrictValue, wanted: Tensor) -> None:
    """Refuse an input or output that is declared as another than it must be."""
    if value.element != wanted.element:
        raise Refused(f"has {value.name!r} of type {value.element} instead of {wanted.element}")
    fits = len(value.extents) == len(wanted.shape)
    for extent, other in zip(value.extents, wanted.shape, strict=False):
        fits = fits and (extent is None or extent == other)
    if not fits:
        raise Refused(f"has {value.name!r} of another shape than the manifest says")


def _unfit(
    operator: str, inputs: tuple[bytes, ...], output: bytes, elements: dict[bytes, str]
) -> str:
    """Why a node does not fit what is before it."""
    for name in inputs:
        if name not in elements:
            shown = name[:40].decode(errors="replace")
            return f"node {output.decode()!r}, {operator}: its input {shown!r} is not computed yet"
    types = ", ".join(elements[name] for name in inputs)
    return f"node {output.decode()!r}, {operator}: takes no inputs of types {types}"
