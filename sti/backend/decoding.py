"""Decoding at full speed: the look-ups of the nested code as graphs of ONNX Runtime.

In: a block's compressed bytes. Out: its weights in a working buffer, to the bit what ``sti.code``
specifies. A graph computes one stage of a recipe for several shards in one call that lets other
threads run, so that decode threads hardly ever wait for the interpreter; NumPy, which takes and
drops its lock around every step, makes two of them slower than one (docs/experiments.md).

Books whose recipes need more than stages, and processors on which a graph does not do what it
should, are served by the specification itself. Knows nothing of files, plans or lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.backend.session import Graph, decode_options, ort_value
from sti.blocks import GROUP_WEIGHTS, BlockBytes, BlockJob
from sti.code import Decoder
from sti.code_lookup import Bytes, component, contributions
from sti.code_tables import Component, Recipe, Source, Stage
from sti.weights import OutlierRoom, WorkingBuffer

_GRAPHS = Path(__file__).with_name("decode")
_QUAD, _EIGHTH = 4, 8
_I32, _I64, _U16, _U8 = (np.dtype(name) for name in ("i4", "i8", "u2", "u1"))
_PROBE = 256


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
    staged: Bytes
    """Memory of the inputs, one after the other."""
    targets: tuple[tuple[int, int, int], ...]
    """Operand, first weight and number of weights in every slice, for each output."""
    weights: np.dtype[Any]
    """Of the outputs: four or eight weights each."""
    spare: tuple[Bytes, ...]
    """The memory of the outputs, if they are added to their targets; else they are the targets."""


class ShardDecoder:
    """Decodes blocks on one thread. Not thread-safe; threads may share ``decoder``.

    Args:
        decoder: the book's decoder, which specifies the result and lends its tables.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._sessions: dict[str, Graph] = {}
        self._agreed: dict[str, bool] = {}
        self._steps: dict[tuple[int, tuple[int, ...], int], tuple[Step, ...] | None] = {}
        self._memory: dict[str, Bytes] = {}
        self._room_of_outliers = OutlierRoom()

    def decode(
        self,
        job: BlockJob,
        data: BlockBytes,
        out: WorkingBuffer,
        *,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        """Decode every ``parts``-th group of shards of a block, starting with group ``part``.

        Args:
            data: the block's bytes; only read.
            out: slice ``s`` goes to row ``s`` of each operand; threads with different ``part``
                write different rows.

        Raises:
            PackCorruptError: an outlier list contradicts itself.
        """
        slices: list[int] = []
        records: list[Bytes] = []
        for group in job.groups[part::parts]:
            planes = [[data.view(piece) for piece in shard.planes] for shard in group]
            self.look_up(planes, group[0].slice, out)
            for shard in group:
                slices.append(shard.slice)
                records.append(data.view(shard.outliers))
        if slices:
            out.put_outliers(slices, records, self._decoder.flip, self._room_of_outliers)

    def look_up(self, shards: Sequence[Sequence[Bytes]], first: int, out: WorkingBuffer) -> None:
        """Decode neighbouring slices of one fidelity but for their outliers.

        Args:
            shards: the planes of each slice.
            first: the first slice.
            out: as ``decode`` takes it.

        Raises:
            PackCorruptError, PackFormatError: planes do not fit the shards.
        """
        key = (len(shards[0]), out.sizes, len(shards))
        if key not in self._steps:
            recipe = self._decoder.recipe(shards[0], out.shard_weights)
            self._steps[key] = self._prepare(recipe, out.sizes, len(shards))
        steps = self._steps[key]
        if steps is None:
            self._look_up_plainly(shards, first, out)
            return
        for step in steps:
            # Copied, where one input could be read where it lies: that takes longer, as graphs
            # read fresh bytes more slowly than a copy does (docs/experiments.md).
            chosen = shards[step.shards]
            pieces = [planes[n][begin:end] for n, begin, end in step.pieces for planes in chosen]
            np.concatenate(pieces, out=step.staged)
            targets = [
                _target(out, first + step.shards.start, len(chosen), target, step.weights)
                for target in step.targets
            ]
            if not step.spare:
                for number, (_, value) in enumerate(targets):
                    step.graph.bind_output(value, number)
            step.graph.run()
            for (found, _), quads in zip(targets, step.spare, strict=False):
                np.add(found, quads, found)

    def _look_up_plainly(
        self, shards: Sequence[Sequence[Bytes]], first: int, out: WorkingBuffer
    ) -> None:
        """By the specification."""
        weights = np.empty(out.shard_weights, dtype=self._decoder.dtype)
        for number, planes in enumerate(shards, start=first):
            self._decoder.look_up(planes, weights)
            out.fill(number, weights)

    def _prepare(
        self, recipe: Recipe, sizes: tuple[int, ...], count: int
    ) -> tuple[Step, ...] | None:
        """The steps for ``count`` shards; None where there are none, or a graph does not work."""
        if recipe.pairs is not None:
            return None
        if recipe.wide is not None:
            return self._prepare_wide(recipe.wide, sizes, count)
        if not all(self._agrees(recipe, stage) for stage in recipe.stages):
            return None
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
        graph = self._session(_name_of(recipe, stage)).again()
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

    def _prepare_wide(
        self, table: NDArray[np.uint64], sizes: tuple[int, ...], count: int
    ) -> tuple[Step, ...]:
        """Eight weights an index, operand after operand."""
        steps, start = [], 0
        for operand, size in enumerate(sizes):
            graph = self._session("wide").again()
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

    def _session(self, name: str) -> Graph:
        if name not in self._sessions:
            self._sessions[name] = Graph(f"decode {name}", _model(name), decode_options())
        return self._sessions[name]

    def _agrees(self, recipe: Recipe, stage: Stage) -> bool:
        """Whether a stage's graph does what it should here."""
        name = _name_of(recipe, stage)
        if name not in self._agreed:
            self._agreed[name] = _agrees(self._session(name), recipe, stage)
        return self._agreed[name]

    def _room(self, name: str, size: int) -> Bytes:
        """``size`` bytes of a memory that steps share, as they follow one another."""
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(max(size, GROUP_WEIGHTS // 2), dtype=np.uint8)
        return self._memory[name][:size]


def _target(
    out: WorkingBuffer,
    first: int,
    count: int,
    target: tuple[int, int, int],
    dtype: np.dtype[Any],
) -> tuple[Bytes, Any]:
    """Where the weights of some slices go: their bytes, and the OrtValue of them as ``dtype``."""
    key = (first, count, *target, dtype.itemsize)
    found: tuple[Bytes, Any] | None = out.bound.get(key)
    if found is None:
        operand, start, size = target
        rows = out.operands[operand][first : first + count].reshape(-1).view(_U8)
        piece = rows[start : start + count * size]
        found = out.bound[key] = (piece, ort_value(piece.view(dtype)))
    return found


@cache
def _model(name: str) -> bytes:
    return (_GRAPHS / f"{name}.onnx").read_bytes()


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
    """Whether the graph gives what the specification says, for all values of all bytes.

    It rounds where the specification shifts: a processor or a version of ONNX Runtime that rounds
    in another way must not decode wrongly.
    """
    planes: dict[int, Bytes] = {}
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
    found = graph.session.run(None, feeds)
    return all(
        np.array_equal(half.view(_U8), wanted) for half, wanted in zip(found, expected, strict=True)
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
