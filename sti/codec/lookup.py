"""Unpacking codes and looking them up: the planes of some records -> weights.

In: a recipe (``sti.codec.tables``) and the planes of a shard. Out: uint8 weights. Works on arrays
of whole runs of records at a time, short enough to stay in the cache. Checks nothing:
``sti.codec.decoder`` has checked the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sti.arrays import ByteArray
from sti.codec.tables import Recipe, assembled

RECORD = 1024
"""Weights of a record; the last one of an operand may have fewer."""

_AT_ONCE = 192
"""Records that are decoded at a time."""

_JOIN = {
    bits: tuple(np.array(number, dtype=np.uint8) for number in (bits, mask, 1 << bits))
    for bits, mask in ((1, 0x55), (2, 0x33), (4, 0x0F))
}
"""For fields of so many bits: these bits, a mask of every other field of a byte, what shifts by it.

Arrays, because NumPy takes longer over scalars.
"""


class Run(NamedTuple):
    """Neighbouring records of a shard, all of ``weights`` weights: its weights from start to stop.

    Attributes:
        parts: for each operand they belong to, its number, and from where to where in it.
    """

    start: int
    stop: int
    weights: int
    parts: tuple[tuple[int, int, int], ...]


def runs_of(sizes: Sequence[int]) -> tuple[Run, ...]:
    """The records of shards whose operands have these weights; full ones run across operands."""
    runs: list[Run] = []
    begin = 0
    for operand, size in enumerate(sizes):
        full = size - size % RECORD
        cuts = [*range(0, full, _AT_ONCE * RECORD), full, size]
        for start, stop in pairwise(cuts):
            if start == stop:
                continue
            run = Run(
                begin + start, begin + stop, min(RECORD, stop - start), ((operand, start, stop),)
            )
            last = runs[-1] if runs else run
            together = run.stop - last.start
            if (
                last is not run
                and last.weights == run.weights == RECORD
                and together <= _AT_ONCE * RECORD
            ):
                runs[-1] = Run(last.start, run.stop, RECORD, last.parts + run.parts)
            else:
                runs.append(run)
        begin += size
    return tuple(runs)


def look_up(
    recipe: Recipe, planes: Sequence[ByteArray], runs: Sequence[Run], rows: Sequence[ByteArray]
) -> None:
    """Decode a shard, except for its outliers.

    Args:
        recipe: how its fidelity decodes.
        planes: 1-D uint8, of the sizes they must have; not modified.
        runs: the shard's records.
        rows: for each operand uint8 ``[size]``, contiguous, overwritten; owned by the caller.
    """
    for run in runs:
        codes = _codes(recipe, planes, run)
        begin = 0
        for operand, start, stop in run.parts:
            end = begin + stop - start
            pairs, out = codes[begin:end].view(np.uint16), rows[operand][start:stop].view(np.uint16)
            # Every pair is inside the table: "clip" spares looking for one that is not.
            np.take(recipe.pairs, pairs, out=out, mode="clip")
            begin = end


def _codes(recipe: Recipe, planes: Sequence[ByteArray], run: Run) -> ByteArray:
    """The codes of a run as ``assembled`` gives them, uint8 ``[stop - start]``."""
    eighth = run.weights // 8
    records = [
        plane[run.start * bits // 8 : run.stop * bits // 8].reshape(-1, eighth * bits)
        for plane, bits in zip(planes, recipe.bits, strict=True)
    ]
    ones, twos = (
        [
            records[plane][:, eighth * start : eighth * (start + bits)]
            for plane, start, bits in parts
        ]
        for parts in (recipe.ones, recipe.twos)
    )
    return assembled(ones, twos, _joined).reshape(-1)


def _joined(fields: Sequence[ByteArray], bits: int) -> ByteArray:
    """Components of twice the bits: those of the first field above those of the second, if any.

    Args:
        fields: one or two, uint8 ``[R, m]`` each: byte i holds weights i + k m.

    Returns:
        uint8 ``[R, 2 m]``: byte i holds weights i + 2 k m.
    """
    high, *low = fields
    out = np.empty((len(high), 2, high.shape[1]), dtype=np.uint8)
    first, second = out[:, 0], out[:, 1]
    shift, mask, factor = _JOIN[bits]
    if not low:
        np.bitwise_and(high, mask, first)
        np.bitwise_and(high >> shift, mask, second)
        return out.reshape(len(high), -1)
    # Swap the upper fields of the second component with the lower fields of the first one.
    swapped = low[0] >> shift
    np.bitwise_xor(swapped, high, swapped)
    np.bitwise_and(swapped, mask, swapped)
    np.bitwise_xor(high, swapped, second)
    np.multiply(swapped, factor, swapped)  # NumPy shifts bytes to the left one by one
    np.bitwise_xor(low[0], swapped, first)
    return out.reshape(len(high), -1)
