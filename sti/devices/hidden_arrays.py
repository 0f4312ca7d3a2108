"""Hidden states and answers as arrays of a message, and back.

In: ``HiddenStates``, and how their numbers travel, or a head's answers. Out: arrays; or the same
again, checked against what was to come. ``float32`` is exact; ``float16`` rounds to 11 bits;
``int8`` gives each token a scale, its largest number over 127, as blocks do with their inputs
(``sti.backend.quantized``). Knows nothing of networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array
from sti.errors import PeerError
from sti.pipeline.sources import HiddenStates
from sti.planning.links import FLOAT16, FLOAT32, INT8

_LEVELS = np.float32(127)
_MOST_FLOAT16 = np.float32(65504)


def to_arrays(packed: Float32Array, link_type: str) -> tuple[NDArray[Any], ...]:
    """The numbers ``[T, hidden]`` as they travel; float32 ones as they are."""
    if link_type == FLOAT32:
        return (packed,)
    if link_type == FLOAT16:
        return (np.clip(packed, -_MOST_FLOAT16, _MOST_FLOAT16).astype(np.float16),)
    scales = np.abs(packed).max(axis=1, keepdims=True) / _LEVELS
    levels = np.rint(packed / np.where(scales > 0, scales, np.float32(1)))
    return levels.astype(np.int8), scales.astype(np.float32)


def from_arrays(
    arrays: Sequence[NDArray[Any]],
    link_type: str,
    lengths: Sequence[tuple[int, ...]],
    hidden: int,
    *,
    where: str,
) -> HiddenStates:
    """What ``to_arrays`` made of the hidden states of such sentences.

    Raises:
        PeerError: it is something else, or has numbers that are not finite; names ``where``.
    """
    tokens = sum(sum(group) for group in lengths)
    due = _due(tokens, hidden, link_type)
    found = [(array.dtype.name, array.shape) for array in arrays]
    if found != due:
        raise PeerError(f"{where}: sent arrays {found}, and {due} were due")
    packed = arrays[0].astype(np.float32, copy=False)
    if link_type == INT8:
        with np.errstate(over="ignore"):  # which is refused below
            packed = packed * arrays[1]
    if not np.isfinite(packed).all():
        raise PeerError(f"{where}: sent hidden states that are not finite")
    return HiddenStates(tuple(lengths), packed)


def joined(answers: Sequence[Float32Array]) -> tuple[list[list[int]], Float32Array]:
    """The shapes of a head's answers, and all their numbers, ``[n]``: there may be many."""
    shapes = [list(answer.shape) for answer in answers]
    return shapes, np.concatenate([answer.reshape(-1) for answer in answers])


def split(
    shapes: Sequence[Any], arrays: Sequence[NDArray[Any]], *, where: str
) -> tuple[Float32Array, ...]:
    """What ``joined`` was given; views.

    Raises:
        PeerError: it is something else; names ``where``.
    """
    good = all(
        isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)
        for shape in shapes
    )
    sizes = [math.prod(shape) for shape in shapes] if good else [-1]
    if [(array.dtype.name, array.shape) for array in arrays] != [("float32", (sum(sizes),))]:
        raise PeerError(f"{where}: sent no answers of the shapes {list(shapes)!r:.200}")
    ends = list(accumulate(sizes))
    return tuple(
        arrays[0][end - size : end].reshape(shape)
        for end, size, shape in zip(ends, sizes, shapes, strict=True)
    )


def _due(tokens: int, hidden: int, link_type: str) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of the arrays that hidden states travel as."""
    if link_type == INT8:
        return [("int8", (tokens, hidden)), ("float32", (tokens, 1))]
    return [(link_type, (tokens, hidden))]
