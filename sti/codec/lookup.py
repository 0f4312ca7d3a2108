"""The specification of decoding: bytes of planes -> indices -> table look-ups -> weights.

One shard at a time, as plain as NumPy allows; ``sti.backend.onnxruntime.decoder`` does the same
faster and must give the same bits. In: a recipe (``sti.codec.tables``) and the planes of a shard.
Out: uint8 ``[N]``. A byte of a one-bit component holds weights of both halves of a shard, so arrays
of indices are ``[2, N / 8]``. Checks outliers only: ``sti.codec.decoder`` has checked the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.codec.tables import Component, Recipe, Source, Stage
from sti.errors import PackCorruptError

SEGMENT_WEIGHTS = 65_536


COUNT, POSITION = np.dtype("<u4"), np.dtype("<u2")
"""Types in an outlier record, which holds counts, then positions, then int8 values."""

_EIGHTH = 8
_LOW_HALF, _HIGH_HALF = 0x0F, 0xF0
_U16 = np.dtype("u2")


def look_up(recipe: Recipe, planes: Sequence[ByteArray], out: ByteArray) -> None:
    """Decode a shard, except for its outliers.

    Args:
        recipe: how its fidelity decodes.
        planes: uint8, 1-D each, of checked sizes; not modified.
        out: uint8, contiguous ``[N]``, overwritten; owned by the caller.
    """
    if recipe.wide is not None:
        out[:] = recipe.wide[planes[0].view(_U16)].view(np.uint8)
        return
    eighth = out.size // _EIGHTH
    parts = [component(planes[part.plane], part, eighth) for part in recipe.parts]
    out[:] = 0
    for stage in recipe.stages:
        np.add(out, contributions(stage, parts).reshape(-1), out)
    if recipe.pairs is not None:
        out[:] = recipe.pairs[out.view(_U16)].view(np.uint8)


def component(plane: ByteArray, part: Component, eighth: int) -> ByteArray:
    """A component's bytes: ``[2, N/8]`` if of two bits, ``[N/8]`` if of one; a view."""
    found = plane[part.start * eighth : (part.start + part.bits) * eighth]
    return found.reshape(2, eighth) if part.bits == 2 else found


def contributions(stage: Stage, parts: Sequence[ByteArray]) -> ByteArray:
    """What a stage adds to each weight, ``[2, m * 4]``, from the bytes of all components."""
    index: NDArray[Any] = _index_byte(stage.low, parts)
    if stage.high:
        index = index | _index_byte(stage.high, parts).astype(_U16) << 8
    quads: NDArray[np.uint32] = stage.table[index]
    return quads.view(np.uint8)


def _index_byte(source: Source, parts: Sequence[ByteArray]) -> ByteArray:
    """One byte of each index, ``[2, m]``."""
    first = parts[source[0]]
    if first.ndim == 2:
        return first
    found = np.stack((first & _LOW_HALF, first >> 4))
    if len(source) == 2:
        second = parts[source[1]]
        found |= np.stack((second << 4, second & _HIGH_HALF))
    return found


def put_outliers(record: ByteArray, out: ByteArray, flip: ByteArray | None) -> None:
    """Overwrite the outliers of one shard with their exact values.

    Args:
        record: uint8, the outliers as stored.
        out: uint8 ``[N]``, changed in place.
        flip: uint8 that the values are xored with; None to leave them as they are.

    Raises:
        PackCorruptError: the record does not fit a shard of N weights.
    """
    head = COUNT.itemsize * -(-out.size // SEGMENT_WEIGHTS)
    counts = record[:head].view(COUNT).tolist() if record.size >= head else []
    total = sum(counts)
    if not counts or record.size < head + 3 * total:
        raise too_short(record.size)
    positions = record[head : head + 2 * total].view(POSITION).astype(np.intp)
    exact = record[head + 2 * total :][:total]
    positions += np.repeat(np.arange(len(counts)) * SEGMENT_WEIGHTS, counts)
    if (positions[1:] <= positions[:-1]).any():
        raise unordered()
    if total and positions[-1] >= out.size:
        raise beyond(out.size)
    out[positions] = exact if flip is None else exact ^ flip


def too_short(size: int) -> PackCorruptError:
    """The error for a record of ``size`` bytes that is too short for what it says."""
    return PackCorruptError(f"a list of outliers of {size} bytes is too short for what it lists")


def unordered() -> PackCorruptError:
    """The error for outliers that are not listed in the order of their weights."""
    return PackCorruptError("positions of outliers are not in ascending order")


def beyond(weights: int) -> PackCorruptError:
    """The error for an outlier beyond the ``weights`` of its shard."""
    return PackCorruptError(f"an outlier is beyond the end of a shard of {weights} weights")
