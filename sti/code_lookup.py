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
_QUAD = 4  # weights of an index
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
    """``[k * 2 * m]``, the same memory as ``index``; cut into runs."""
    quads: NDArray[np.uint32]
    """``[k * 2 * m]``, the memory of ``joined`` and ``widened``, which are done with by then."""
    quad_bytes: Bytes
    """``[k * 2 * m * 4]``, the same memory as ``quads``."""


@dataclass(frozen=True, slots=True)
class Run:
    """Indices of a window whose weights lie side by side in one part of the output."""

    part: int
    place: slice
    """Where they are in the window's flat index."""
    weights: slice
    """Where their weights are in ``quad_bytes``."""
    columns: slice
    """Which of each shard's indices they are, in the order of its weights."""
    target: slice
    """Where their weights go in the flat part."""


class Scratch:
    """Working arrays of one decoding thread, of fixed size (1.8 MB); not thread-safe."""

    __slots__ = ("_runs", "_stacked", "_windows", "bytes", "index", "quads")

    def __init__(self) -> None:
        self.bytes = np.empty(5 * CHUNK // 2, dtype=np.uint8)
        self.index = np.empty(CHUNK, dtype=np.intp)
        self.quads = np.empty(CHUNK, dtype=np.uint32)
        self._stacked = np.empty(4 * CHUNK, dtype=np.uint8)  # 8 bits of 4 weights an index
        self._windows: dict[tuple[int, int], Window] = {}
        self._runs: dict[tuple[int, tuple[int, ...], int, int], tuple[Run, ...]] = {}

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

    def runs(self, shards: int, sizes: tuple[int, ...], start: int, stop: int) -> tuple[Run, ...]:
        """The runs of the window of indices ``start`` to ``stop`` in each half of k shards.

        ``sizes`` are those of the output's parts. Made once for each of the few combinations.
        """
        key = shards, sizes, start, stop
        found = self._runs.get(key)
        if found is None:
            found = self._runs[key] = _cut(shards, sizes, start, stop)
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
            quad_bytes=self.quads[:count].view(np.uint8),
        )


def _cut(shards: int, sizes: Sequence[int], start: int, stop: int) -> tuple[Run, ...]:
    """``Scratch.runs``. A window that is not the whole of its shards is one of a single shard."""
    half = sum(sizes) // (2 * _QUAD)
    whole = stop - start == half
    spans = [(0, 2 * half)] if whole else [(start, stop), (half + start, half + stop)]
    runs: list[Run] = []
    place = first = 0
    for part, size in enumerate(sizes):
        last = first + size // _QUAD
        columns = 0
        for low, high in spans:
            begin, end = max(first, low), min(last, high)
            if begin < end:
                count = shards * (end - begin)
                at = place if shards > 1 else columns + begin - low
                runs.append(
                    Run(
                        part=part,
                        place=slice(at, at + count),
                        weights=slice(_QUAD * at, _QUAD * (at + count)),
                        columns=slice(columns + begin - low, columns + end - low),
                        target=slice(_QUAD * (begin - first), _QUAD * (begin - first + count)),
                    )
                )
                place += count
            columns += high - low
        first = last
    return tuple(runs)


def look_up(
    recipe: Recipe, planes: Sequence[Bytes], out: Sequence[Bytes], scratch: Scratch
) -> None:
    """Decode shards but for their outliers.

    Args:
        planes: ``[k, bytes]`` each; only read. Several shards only if they fit ``CHUNK``.
        out: where the parts of the shards go, in order: contiguous ``[k, part]`` each, every part a
            multiple of 8 weights.
        scratch: of the calling thread.
    """
    shards, sizes = len(out[0]), tuple(part.shape[1] for part in out)
    eighth = sum(sizes) // _EIGHTH
    if recipe.wide is not None:
        _look_up_wide(recipe.wide, planes[0].view(_U16), out, scratch)
        return
    parts = [_component(planes[part.plane], part, shards, eighth) for part in recipe.parts]
    if shards * 2 * eighth <= CHUNK:
        window = scratch.window(shards, eighth)
        _add_window(recipe, parts, out, scratch.runs(shards, sizes, 0, eighth), window)
    else:
        step = -(-eighth // -(-eighth // (CHUNK // 2)))
        for start in range(0, eighth, step):
            stop = min(start + step, eighth)
            window = scratch.window(1, stop - start)
            pieces = [part[..., start:stop] for part in parts]
            _add_window(recipe, pieces, out, scratch.runs(1, sizes, start, stop), window)
    if recipe.pairs is not None:
        for part in out:
            codes = part.reshape(-1).view(_U16)
            _run(recipe.pairs, codes, codes, scratch)


def _look_up_wide(
    table: NDArray[np.uint64], source: NDArray[np.uint16], out: Sequence[Bytes], scratch: Scratch
) -> None:
    """Eight weights an index: ``source [k, N / 8]``, the parts of ``out`` one after the other."""
    start = 0
    for part in out:
        stop = start + part.shape[1] // _EIGHTH
        rows, target = source[:, start:stop], part.reshape(-1).view(_U64)
        if len(rows) == 1:
            _run(table, rows[0], target, scratch)
        else:
            index = scratch.index[: rows.size]
            np.copyto(index.reshape(rows.shape), rows)
            table.take(index, None, target, _MODE)
        start = stop


def _run(
    table: NDArray[Any],
    source: NDArray[np.uint16],
    target: NDArray[Any],
    scratch: Scratch,
) -> None:
    """Look up every index of ``source [n]``, which may be ``target [n]``."""
    for start in range(0, source.size, CHUNK):
        piece = source[start : start + CHUNK]
        index = scratch.index[: piece.size]
        np.copyto(index, piece)
        table.take(index, None, target[start : start + CHUNK], _MODE)


def _component(plane: Bytes, part: Component, shards: int, eighth: int) -> Bytes:
    """A component's bytes: ``[k, 2, N/8]`` if of two bits, ``[k, N/8]`` if of one."""
    found = plane[:, part.start * eighth : (part.start + part.bits) * eighth]
    return found.reshape(shards, 2, eighth) if part.bits == 2 else found


def _add_window(
    recipe: Recipe,
    parts: Sequence[Bytes],
    out: Sequence[Bytes],
    runs: Sequence[Run],
    window: Window,
) -> None:
    """All stages of the indices of one window.

    Args:
        parts: the components' bytes in the window, as ``_component`` gives them.
        out: as ``look_up`` takes it.
        runs: which indices of the window belong where.
    """
    first, *others = recipe.stages
    _fill_index(first, parts, runs, window)
    targets = [out[run.part].reshape(-1)[run.target] for run in runs]
    for run, target in zip(runs, targets, strict=True):
        first.table.take(window.flat_index[run.place], None, target.view(_U32), _MODE)
    for stage in others:
        _fill_index(stage, parts, runs, window)
        stage.table.take(window.flat_index, None, window.quads, _MODE)
        for run, target in zip(runs, targets, strict=True):
            np.add(target, window.quad_bytes[run.weights], target)


def _fill_index(stage: Stage, parts: Sequence[Bytes], runs: Sequence[Run], window: Window) -> None:
    """``low | high << 8`` into ``window.index``, run after run."""
    source: NDArray[Any] = _index_bytes(stage.low, parts, window.low, window.spare)
    if stage.high:
        high = _index_bytes(stage.high, parts, window.high, window.spare)
        # Widening first and then working in place is cheaper than ufuncs that widen as they go.
        np.copyto(window.joined, high)
        np.multiply(window.joined, _BYTE_UP, window.joined)
        np.copyto(window.widened, source)
        np.bitwise_or(window.joined, window.widened, window.joined)
        source = window.joined
    shards = len(source)
    if shards == 1:
        np.copyto(window.index, source)
        return
    rows = source.reshape(shards, -1)
    for run in runs:
        np.copyto(window.flat_index[run.place].reshape(shards, -1), rows[:, run.columns])


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


def put_outliers(record: Bytes, out: Sequence[Bytes], flip: Bytes | None, scratch: Scratch) -> None:
    """Overwrite the outliers of one shard with their exact values.

    Args:
        record: the outliers as stored.
        out: the parts of the shard, in order, N weights together.
        flip: what the values are xored with, if anything.
        scratch: of the calling thread.

    Raises:
        PackCorruptError: the record does not fit a shard of N weights.
    """
    size = sum(part.size for part in out)
    first = 4 * -(-size // SEGMENT_WEIGHTS)
    counts = record[:first].view(_COUNT).tolist() if record.size >= first else []
    total = sum(counts)
    if not counts or record.size < first + 3 * total:
        raise PackCorruptError(f"outliers of {record.size} bytes list more than they hold")
    positions = record[first : first + 2 * total].view(_POSITION)
    exact = record[first + 2 * total :][:total]
    if flip is not None:
        exact = np.bitwise_xor(exact, flip)
    # More than the scratch takes are a quarter of all weights: nothing that speed matters for.
    index = scratch.index[:total] if total <= CHUNK else np.empty(total, dtype=np.intp)
    np.copyto(index, positions)
    done = counts[0]
    for segment, count in enumerate(counts[1:], start=1):
        here = index[done : done + count]
        np.add(here, segment * SEGMENT_WEIGHTS, here)
        done += count
    _put(index, exact, out, size)


def _put(index: NDArray[np.intp], exact: Bytes, out: Sequence[Bytes], size: int) -> None:
    """``exact`` to the places ``index``, ascending, of a shard cut into the parts ``out``."""
    stop = base = 0
    try:
        for part in out:
            start, end = stop, base + part.size
            stop = len(index) if end == size else int(index.searchsorted(end))
            here = index[start:stop]
            if base:
                np.subtract(here, base, here)
            part[here] = exact[start:stop]
            base = end
    except IndexError as error:
        raise PackCorruptError(
            f"an outlier lies beyond the end of a shard of {size} weights"
        ) from error
