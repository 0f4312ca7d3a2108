"""Decoding at full speed: the look-ups of the nested code as graphs of ONNX Runtime.

In: a block's compressed bytes. Out: its weights in a working buffer, to the bit what
``sti.codec.decoder`` specifies. A graph computes one stage of a recipe for several shards in one
call, during which other threads run. NumPy instead drops the interpreter's lock and takes it again
around every step; threads that wait for it sleep, and two of them are slower than one
(docs/experiments.md).

Codebooks whose recipes need more than such stages, and machines on which a graph is refused or
fails its self-test, fall back to the specification itself, about five times as slow. Knows of plans
only what a block's job says; nothing of files or lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from sti.arrays import ByteArray
from sti.backend.interface import DecodeTask
from sti.backend.onnxruntime.decode_steps import Step, StepMaker
from sti.backend.onnxruntime.session import ort_value
from sti.backend.working_buffer import OutlierRoom, WorkingBuffer
from sti.codec.decoder import Decoder

_U8 = np.dtype("u1")
_Targets = dict[tuple[int, ...], tuple[ByteArray, Any]]
"""Pieces of a working buffer: their bytes, and the OrtValue of them."""


class ShardDecoder:
    """Decodes blocks on one thread. Not thread-safe; threads may share ``decoder``.

    Args:
        decoder: the codebook's decoder, which specifies the result and lends its tables.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._maker = StepMaker()
        self._steps: dict[tuple[int, tuple[int, ...], int], tuple[Step, ...] | None] = {}
        self._room = OutlierRoom()
        self._targets: WeakKeyDictionary[WorkingBuffer, _Targets] = WeakKeyDictionary()

    def decode(self, task: DecodeTask) -> None:
        """As ``sti.backend.interface.BlockDecoder`` asks.

        Raises:
            PackCorruptError: an outlier list contradicts itself.
            BackendError: a graph failed.
        """
        data, out = task.data, task.out
        slices: list[int] = []
        records: list[ByteArray] = []
        for group in task.job.groups[task.part :: task.parts]:
            planes = [[data.view(piece) for piece in shard.planes] for shard in group]
            self.look_up(planes, group[0].slice, out)
            for shard in group:
                slices.append(shard.slice)
                records.append(data.view(shard.outliers))
        if slices:
            out.put_outliers(slices, records, self._decoder.flip, self._room)

    def look_up(
        self, shards: Sequence[Sequence[ByteArray]], first: int, out: WorkingBuffer
    ) -> None:
        """Decode neighbouring slices of one fidelity but for their outliers.

        Args:
            shards: the planes of each slice.
            first: the first slice.
            out: as ``decode`` takes it.

        Raises:
            PackCorruptError, PackFormatError: planes do not fit the shards.
            BackendError: a graph failed.
        """
        key = (len(shards[0]), out.sizes, len(shards))
        if key not in self._steps:
            recipe = self._decoder.recipe(shards[0], out.shard_weights)
            self._steps[key] = self._maker.steps(recipe, out.sizes, len(shards))
        steps = self._steps[key]
        if steps is None:
            self._look_up_plainly(shards, first, out)
            return
        known = self._targets.setdefault(out, {})
        for step in steps:
            chosen = shards[step.shards]
            _copy(chosen, step)
            targets = [
                _target(known, out, first + step.shards.start, len(chosen), target, step.weights)
                for target in step.targets
            ]
            if not step.spare:
                for number, (_, value) in enumerate(targets):
                    step.graph.bind_output(value, number)
            step.graph.run()
            for (found, _), quads in zip(targets, step.spare, strict=False):
                np.add(found, quads, found)

    def _look_up_plainly(
        self, shards: Sequence[Sequence[ByteArray]], first: int, out: WorkingBuffer
    ) -> None:
        """By the specification."""
        weights = np.empty(out.shard_weights, dtype=self._decoder.dtype)
        for number, planes in enumerate(shards, start=first):
            self._decoder.look_up(planes, weights)
            out.fill(number, weights)


def _copy(shards: Sequence[Sequence[ByteArray]], step: Step) -> None:
    """Put a step's inputs end to end.

    Graphs read fresh bytes more slowly than a copy does, so even what lies as they want it is
    copied; and through memoryviews, as NumPy drops the interpreter's lock for every piece.
    """
    staged, at = step.staged.data, 0
    for number, begin, end in step.pieces:
        for planes in shards:
            stop = at + end - begin
            staged[at:stop] = planes[number].data[begin:end]
            at = stop


def _target(
    known: _Targets,
    out: WorkingBuffer,
    first: int,
    count: int,
    target: tuple[int, int, int],
    dtype: np.dtype[Any],
) -> tuple[ByteArray, Any]:
    """Where the weights of some slices go: their bytes, and the OrtValue of them as ``dtype``."""
    key = (first, count, *target, dtype.itemsize)
    found = known.get(key)
    if found is None:
        operand, start, size = target
        rows = out.operands[operand][first : first + count].reshape(-1).view(_U8)
        piece = rows[start : start + count * size]
        found = known[key] = (piece, ort_value(piece.view(dtype)))
    return found
