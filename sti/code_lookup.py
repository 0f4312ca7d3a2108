"""The inner loops of the decoder: bytes of planes -> indices -> table look-ups -> weights.

Takes recipes (``code_tables``), planes of k equal shards stacked as ``[k, bytes]``, and working
arrays; writes ``[k, N]`` uint8. A shard is worked on as two halves side by side, since a byte of
a one-bit component holds weights of both: arrays of indices are ``[k, 2, m]``. Checks nothing but
outliers: ``code`` has checked the sizes. Every call is a NumPy function on a long array that
lets other threads run; only placing the outliers holds the interpreter's lock, for microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sti.code_tables import Component, Recipe, Source, Stage
from sti.errors import PackCorruptError

CHUNK = 98_304
"""Indices worked on at a time: shards of up to 393,216 weights need one pass.

Measured: passes half as long take 4, 13, 22, 40 and 50 % more time at 2, 3, 4, 6 and 8 bits, as
each costs 10 calls or more. Longer ones leave the cache.
"""
SEGMENT_WEIGHTS = 65_536

Bytes = NDArray[np.uint8]

_EIGHTH = 8
# 0-d arrays: what a scalar operand of a ufunc costs least as.
_LOW_HALF, _HIGH_HALF = np.array(0x0F, dtype=np.uint8), np.array(0xF0, dtype=np.uint8)
_HALF_BYTE, _HALF_BYTE_UP = np.array(4, dtype=np.uint8), np.array(16, dtype=np.uint8)
_BYTE_UP = np.array(256, dtype=np.uint16)
# Views by a dtype object cost less than by a type or a name.
_COUNT, _POSITION = np.dtype("<u4"), np.dtype("<u2")
_MODE: Final = "wrap"
"""Of ``take``: no index is out of range, and this check is the cheapest (15 % against "clip";
"raise" would buffer the output)."""
_U16, _U32, _U64 = (np.dtype(name) for name in ("u2", "u4", "u8"))


@dataclass(frozen=True, slots=True)
class Room:
    """Where bytes of an index are made: ``[k, 2, m]``, and its halves, ``[k, m]`` each."""

    both: Bytes
    here: Bytes
    there: Bytes


@dataclass(frozen=True, slots=True)
class Window:
    """Views of a scratch for m indices in each half of k shards; ``[k, 2, m]`` as a rule."""

    low: Room
    high: Room
    spare: Bytes
    """``[k, m]``"""
    joined: NDArray[np.uint16]
    widened: NDArray[np.uint16]
    index: NDArray[np.intp]
    flat_index: NDArray[np.intp]
    """``[k * 2 * m]``, the same memory as ``index``."""
    quads: NDArray[np.uint32]
    """``[k * 2 * m]``, the memory of ``joined`` and ``widened``, which are done with by then."""
    quad_bytes: Bytes
    """``[k, 2, 4 * m]``, the same memory as ``quads``."""


class Scratch:
    """Working arrays of one decoding thread, of fixed size (1.8 MB); not thread-safe."""

    __slots__ = ("_stacked", "_windows", "bytes", "index", "quads")

    def __init__(self) -> None:
        self.bytes = np.empty(5 * CHUNK // 2, dtype=np.uint8)
        self.index = np.empty(CHUNK, dtype=np.intp)
        self.quads = np.empty(CHUNK, dtype=np.uint32)
        self._stacked = np.empty(4 * CHUNK, dtype=np.uint8)  # 8 bits of 4 weights an index
        self._windows: dict[tuple[int, int], Window] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.bytes, self.index, self.quads, self._stacked)
        return sum(array.nbytes for array in arrays)

    def stack(self, planes: Sequence[Sequence[Bytes]]) -> list[Bytes]:
        """The planes of several shards, ``planes[shard][plane]``, as ``[k, bytes]`` each."""
        found, start = [], 0
        for pieces in zip(*planes, strict=True):
            stop = start + len(pieces) * pieces[0].size
            flat = self._stacked[start:stop]
            np.concatenate(pieces, out=flat)
            found.append(flat.reshape(len(pieces), -1))
            start = stop
        return found

    def window(self, shards: int, indices: int) -> Window:
        """Views for ``indices`` indices in each half; made once for each of the few sizes."""
        found = self._windows.get((shards, indices))
        if found is None:
            found = self._windows[shards, indices] = self._window(shards, indices)
        return found

    def _window(self, shards: int, indices: int) -> Window:
        count, shape = shards * 2 * indices, (shards, 2, indices)
        low, high, spare = (self.bytes[start * count :][:count] for start in range(3))
        low, high = low.reshape(shape), high.reshape(shape)
        joined, widened = self.quads[:count].view(_U16).reshape(2, *shape)
        return Window(
            low=Room(low, low[:, 0], low[:, 1]),
            high=Room(high, high[:, 0], high[:, 1]),
            spare=spare[: count // 2].reshape(shards, indices),
            joined=joined,
            widened=widened,
            index=self.index[:count].reshape(shape),
            flat_index=self.index[:count],
            quads=self.quads[:count],
            quad_bytes=self.quads[:count].view(np.uint8).reshape(shards, 2, 4 * indices),
        )


def look_up(recipe: Recipe, planes: Sequence[Bytes], out: Bytes, scratch: Scratch) -> None:
    """Decode shards but for their outliers.

    Args:
        planes: ``[k, bytes]`` each; only read. Several shards only if they fit ``CHUNK``.
        out: ``[k, N]``, contiguous.
        scratch: of the calling thread.
    """
    if recipe.wide is not None:
        _run(recipe.wide, planes[0].reshape(-1).view(_U16), out.reshape(-1).view(_U64), scratch)
        return
    _add_stages(recipe, planes, out, scratch)
    if recipe.pairs is not None:
        codes = out.reshape(-1).view(_U16)
        _run(recipe.pairs, codes, codes, scratch)


def _run(
    table: NDArray[Any],
    source: NDArray[np.uint16],
    target: NDArray[Any],
    scratch: Scratch,
) -> None:
    """Look up every index of ``source``, which may be ``target``."""
    for start in range(0, source.size, CHUNK):
        piece = source[start : start + CHUNK]
        index = scratch.index[: piece.size]
        np.copyto(index, piece)
        table.take(index, None, target[start : start + CHUNK], _MODE)


def _add_stages(recipe: Recipe, planes: Sequence[Bytes], out: Bytes, scratch: Scratch) -> None:
    """Contributions of all stages, added up in ``out``."""
    shards, weights = out.shape
    eighth = weights // _EIGHTH
    parts = [_part(planes[part.plane], part, shards, eighth) for part in recipe.parts]
    rows = out.reshape(shards, 2, 4 * eighth)
    if shards * 2 * eighth <= CHUNK:
        window = scratch.window(shards, eighth)
        _add_window(recipe, parts, rows, ((window.flat_index, out.reshape(-1)),), window)
        return
    step = -(-eighth // -(-eighth // (CHUNK // 2)))
    for start in range(0, eighth, step):
        stop = min(start + step, eighth)
        window = scratch.window(shards, stop - start)
        target = rows[:, :, 4 * start : 4 * stop]
        runs = ((window.index[0, 0], target[0, 0]), (window.index[0, 1], target[0, 1]))
        _add_window(recipe, [part[..., start:stop] for part in parts], target, runs, window)


def _part(plane: Bytes, part: Component, shards: int, eighth: int) -> Bytes:
    """A component's bytes: ``[k, 2, N/8]`` if of two bits, ``[k, N/8]`` if of one."""
    found = plane[:, part.start * eighth : (part.start + part.bits) * eighth]
    return found.reshape(shards, 2, eighth) if part.bits == 2 else found


def _add_window(
    recipe: Recipe,
    parts: Sequence[Bytes],
    target: Bytes,
    runs: Sequence[tuple[NDArray[np.intp], Bytes]],
    window: Window,
) -> None:
    """All stages of the indices of one window.

    Args:
        parts: the components' bytes in the window, as ``_part`` gives them.
        target: ``[k, 2, 4 * m]``, where the weights go.
        runs: the same memory in contiguous runs, each with its indices.
    """
    first, *others = recipe.stages
    _fill_index(first, parts, window)
    for index, run in runs:
        first.table.take(index, None, run.view(_U32), _MODE)
    for stage in others:
        _fill_index(stage, parts, window)
        stage.table.take(window.flat_index, None, window.quads, _MODE)
        np.add(target, window.quad_bytes, target)


def _fill_index(stage: Stage, parts: Sequence[Bytes], window: Window) -> None:
    """``low | high << 8`` into ``window.index``."""
    low = _index_bytes(stage.low, parts, window.low, window.spare)
    if not stage.high:
        np.copyto(window.index, low)
        return
    high = _index_bytes(stage.high, parts, window.high, window.spare)
    # Widening first and then working in place is cheaper than ufuncs that widen as they go.
    np.copyto(window.joined, high)
    np.multiply(window.joined, _BYTE_UP, window.joined)
    np.copyto(window.widened, low)
    np.bitwise_or(window.joined, window.widened, window.joined)
    np.copyto(window.index, window.joined)


def _index_bytes(source: Source, parts: Sequence[Bytes], room: Room, spare: Bytes) -> Bytes:
    """One byte of each index, ``[k, 2, m]``: a two-bit component as it is, or made in ``room``."""
    first = parts[source[0]]
    if first.ndim == 3:
        return first
    np.bitwise_and(first, _LOW_HALF, room.here)
    np.right_shift(first, _HALF_BYTE, room.there)
    if len(source) == 2:
        second = parts[source[1]]
        np.multiply(second, _HALF_BYTE_UP, spare)
        np.bitwise_or(room.here, spare, room.here)
        np.bitwise_and(second, _HIGH_HALF, spare)
        np.bitwise_or(room.there, spare, room.there)
    return room.both


def put_outliers(record: Bytes, out: Bytes, flip: Bytes | None, scratch: Scratch) -> None:
    """Overwrite the outliers of one shard with their exact values.

    Args:
        record: the outliers as stored.
        out: ``[N]``.
        flip: what the values are xored with, if anything.
        scratch: of the calling thread.

    Raises:
        PackCorruptError: the record does not fit a shard of N weights.
    """
    first = 4 * -(-out.size // SEGMENT_WEIGHTS)
    counts = record[:first].view(_COUNT).tolist() if record.size >= first else []
    total = sum(counts)
    if not counts or record.size < first + 3 * total:
        raise PackCorruptError(f"outliers of {record.size} bytes list more than they hold")
    positions = record[first : first + 2 * total].view(_POSITION)
    values = record[first + 2 * total :]
    done = 0
    for segment, count in enumerate(counts):
        place = segment * SEGMENT_WEIGHTS
        for start in range(done, done + count, CHUNK):
            stop = min(start + CHUNK, done + count)
            index, exact = scratch.index[: stop - start], values[start:stop]
            np.copyto(index, positions[start:stop])
            if flip is not None:
                exact = np.bitwise_xor(exact, flip, scratch.bytes[: stop - start])
            try:
                out[place : place + SEGMENT_WEIGHTS][index] = exact
            except IndexError as error:
                raise PackCorruptError(
                    f"an outlier lies beyond the end of a shard of {out.size} weights"
                ) from error
        done += count
