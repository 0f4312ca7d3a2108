"""Turns recipes of the nested code into calls of graphs.

In: a recipe, the sizes of a block's operands, how many slices are decoded together. Out: ``Step``s
with sessions, bindings and memory of their own, ready to run again and again. The graphs lie in
``decode/`` (``tests/tools/decode_graphs.py`` writes them). Knows nothing of blocks or outliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.backend.onnxruntime.session import Graph, decode_options, ort_value
from sti.codec.lookup import component, contributions
from sti.codec.tables import Component, Recipe, Source, Stage
from sti.errors import BackendError

_GRAPHS = Path(__file__).with_name("decode")
_WIDE = "wide"
_QUAD, _EIGHTH = 4, 8
_I32, _I64, _U16, _U8 = (np.dtype(name) for name in ("i4", "i8", "u2", "u1"))
_PROBE = 256
_LEAST_ROOM = 1 << 18
"""Bytes that memory has at first, so that it rarely has to be replaced by a larger one."""


class Span(NamedTuple):
    """Indices of the two halves of a shard whose weights lie in one operand each.

    ``start`` and ``length`` count indices, of four weights each, in either half; a target is the
    operand's number and the first weight in its part of the slice.
    """

    start: int
    length: int
    targets: tuple[tuple[int, int], ...]


class Step(NamedTuple):
    """One call of a graph for some of the shards that are decoded together."""

    graph: Graph
    shards: slice
    """Which of the shards."""
    pieces: tuple[tuple[int, int, int], ...]
    """Of each input the plane, and first byte and end of what it takes of every shard."""
    staged: ByteArray
    """Memory of the inputs, one after the other; held here, as ONNX Runtime does not hold it."""
    targets: tuple[tuple[int, int, int], ...]
    """Operand, first weight and number of weights in every slice, for each output."""
    weights: np.dtype[Any]
    """Of the outputs: four or eight weights each."""
    spare: tuple[ByteArray, ...]
    """Memory of the outputs, held here, if they are added to their targets; else none is needed."""


class StepMaker:
    """Makes steps for one thread. Not thread-safe."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph | None] = {}
        self._memory: dict[str, ByteArray] = {}

    def steps(self, recipe: Recipe, sizes: tuple[int, ...], count: int) -> tuple[Step, ...] | None:
        """How to look up ``count`` neighbouring slices but for their outliers.

        Args:
            sizes: weights of each operand in a slice, multiples of 8.

        Returns:
            Steps in order; None where the recipe needs more than stages, or a graph does not work
            here.
        """
        if recipe.pairs is not None or not self._work(recipe):
            return None
        if recipe.wide is not None:
            return self._wide(recipe.wide, sizes, count)
        spans = _cut(sizes)
        # A span that is a piece of its operand's part lies apart in several slices.
        whole = all(
            _QUAD * span.length == sizes[operand] for span in spans for operand, _ in span.targets
        )
        runs = [slice(0, count)] if whole else [slice(at, at + 1) for at in range(count)]
        eighth = sum(sizes) // _EIGHTH
        return tuple(
            self._step(recipe, stage, run, span, eighth, adds=bool(place))
            for run in runs
            for span in spans
            for place, stage in enumerate(recipe.stages)
        )

    def _step(
        self,
        recipe: Recipe,
        stage: Stage,
        run: slice,
        span: Span,
        eighth: int,
        *,
        adds: bool,
    ) -> Step:
        """A stage of one span of the shards ``run``."""
        graph = self._bindings(_name_of(recipe, stage))
        graph.bind("table", ort_value(stage.table.view(_I32)))
        length = (run.stop - run.start) * span.length
        inputs = [
            (f"{side}.{number}", plane, start + span.start)
            for side, source in (("low", stage.low), ("high", stage.high))
            for number, (plane, start) in enumerate(_inputs(recipe, source, eighth))
        ]
        staged = self._room("staged", len(inputs) * length)
        for place, (name, _, _) in enumerate(inputs):
            graph.bind_array(name, staged[place * length :][:length])
        spare = []
        for number in range(len(span.targets) if adds else 0):
            memory = self._room(f"spare {number}", _QUAD * length)
            graph.bind_output(ort_value(memory.view(_I32)), number)
            spare.append(memory)
        return Step(
            graph=graph,
            shards=run,
            pieces=tuple((plane, begin, begin + span.length) for _, plane, begin in inputs),
            staged=staged,
            targets=tuple((*target, _QUAD * span.length) for target in span.targets),
            weights=_I32,
            spare=tuple(spare),
        )

    def _wide(
        self, table: NDArray[np.uint64], sizes: tuple[int, ...], count: int
    ) -> tuple[Step, ...]:
        """Eight weights an index, operand after operand."""
        steps, start = [], 0
        for operand, size in enumerate(sizes):
            graph = self._bindings(_WIDE)
            graph.bind("table", ort_value(table.view(_I64)))
            staged = self._room("staged", count * size // _QUAD)
            graph.bind_array("codes", staged.view(_U16))
            stop = start + size // _QUAD
            steps.append(
                Step(
                    graph=graph,
                    shards=slice(0, count),
                    pieces=((0, start, stop),),
                    staged=staged,
                    targets=((operand, 0, size),),
                    weights=_I64,
                    spare=(),
                )
            )
            start = stop
        return tuple(steps)

    def _work(self, recipe: Recipe) -> bool:
        """Whether all graphs that a recipe needs are there and do what they should."""
        if recipe.wide is not None:
            return self._works(_WIDE, recipe, None)
        return all(self._works(_name_of(recipe, stage), recipe, stage) for stage in recipe.stages)

    def _works(self, name: str, recipe: Recipe, stage: Stage | None) -> bool:
        if name not in self._graphs:
            self._graphs[name] = _working(name, recipe, stage)
        return self._graphs[name] is not None

    def _bindings(self, name: str) -> Graph:
        """A graph that works, with bindings of its own."""
        graph = self._graphs[name]
        assert graph is not None, "only recipes that work come this far"
        return graph.rebind()

    def _room(self, name: str, size: int) -> ByteArray:
        """``size`` bytes of a memory that steps share, as they follow one another."""
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(max(size, _LEAST_ROOM), dtype=np.uint8)
        return self._memory[name][:size]


@cache
def _model(name: str) -> bytes:
    return (_GRAPHS / f"{name}.onnx").read_bytes()


def _working(name: str, recipe: Recipe, stage: Stage | None) -> Graph | None:
    """A graph's session; None where ONNX Runtime refuses it, or it does not do what it should.

    ``stage`` is what it is put to the test with; None: a graph that only looks up.
    """
    try:
        graph = Graph(f"decode {name}", _model(name), decode_options())
        return graph if stage is None or _agrees(graph, recipe, stage) else None
    except BackendError:  # an old version lacks operators on bytes
        return None


def _inputs(recipe: Recipe, source: Source, eighth: int) -> list[tuple[int, int]]:
    """Plane and first byte of each input that a source of an index is made from."""
    parts = [recipe.parts[number] for number in source]
    return [
        (part.plane, (part.start + half) * eighth) for part in parts for half in range(part.bits)
    ]


def _name_of(recipe: Recipe, stage: Stage) -> str:
    """The graph of a stage: what makes the low and the high byte of its index."""
    names = []
    for source in filter(None, (stage.low, stage.high)):
        two = recipe.parts[source[0]].bits == 2
        names.append("two" if two else "one" if len(source) == 1 else "ones")
    return "_".join(names)


def _agrees(graph: Graph, recipe: Recipe, stage: Stage) -> bool:
    """Whether the graph gives what the specification says, each byte taking all its values.

    It rounds where the specification shifts: a processor or a version of ONNX Runtime that rounds
    in another way must not decode wrongly.

    Raises:
        BackendError: it looks up beyond its table.
    """
    planes: dict[int, ByteArray] = {}
    for number in (*stage.low, *stage.high):
        # All values, in another order for each component.
        values = np.arange(recipe.parts[number].bits * _PROBE) * (2 * number + 1) + number
        planes[number] = values.astype(np.uint8)
    parts = [
        component(planes[number], Component(0, 0, recipe.parts[number].bits), _PROBE)
        if number in planes
        else np.empty(0, dtype=np.uint8)
        for number in range(len(recipe.parts))
    ]
    expected = contributions(stage, parts)
    feeds = {"table": stage.table.view(_I32)}
    for side, source in (("low", stage.low), ("high", stage.high)):
        arrays = [row for number in source for row in np.atleast_2d(parts[number])]
        feeds |= {f"{side}.{number}": array for number, array in enumerate(arrays)}
    return all(
        np.array_equal(half.view(_U8), wanted)
        for half, wanted in zip(graph.answer(feeds), expected, strict=True)
    )


def _cut(sizes: Sequence[int]) -> tuple[Span, ...]:
    """The spans of shards whose parts have these sizes, multiples of 8 weights."""
    half = sum(sizes) // _EIGHTH
    ends = np.cumsum(sizes) // _QUAD
    starts = [0, *ends[:-1].tolist()]
    marks = sorted({0, half, *(int(end) % half for end in ends[:-1])})

    def home(index: int) -> tuple[int, int]:
        operand = int(np.searchsorted(ends, index, side="right"))
        return operand, _QUAD * (index - starts[operand])

    return tuple(
        Span(begin, end - begin, (home(begin), home(half + begin)))
        for begin, end in pairwise(marks)
    )
