"""The nested code: planes of a shard -> int8 weights, at any fidelity of the ladder.

One book serves a whole model. For every fidelity of the ladder it says which int8 value each code
stands for; a code of a higher fidelity begins with the code of the lower one, so a shard at
fidelity b is exactly its first planes. A few weights, the outliers, are listed beside the planes
and are exact at every fidelity. Decoding is table look-ups on integers, four weights an index
(eight at 2 bits); it never computes in float and needs no memory beyond the caller's ``Scratch``.

Knows nothing of files, graphs, scales or layers, nor how a book is made (the offline tool does
that). Bytes of planes and outliers go in, int8 (or uint8 with zero point 128) comes out. The
alternative, a copy of the shard for every fidelity (paper, section 4.2), takes 23 bits a weight
for this ladder instead of 8.

A plane of a shard of N weights (N a multiple of 8) that adds w bits is a sequence of w // 2
two-bit components followed, if w is odd, by a one-bit component; higher bits come first.

- two-bit component, N/4 bytes: byte i holds weights 4i .. 4i+3, the first in the lowest bits;
- one-bit component, N/8 bytes: the low half of byte i holds weights 4i .. 4i+3, the first in the
  lowest bit, and its high half weights 4j .. 4j+3 with j = i + N/8.

The outliers of a shard, little endian: uint32 counts, one for each segment of 65,536 weights;
then uint16 positions inside their segments, ascending; then int8 values; then zeros up to a
multiple of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.code_tables import Component, Recipe, Source, Stage, build_recipes
from sti.errors import PackCorruptError, PackFormatError

DEFAULT_LADDER: tuple[int, ...] = (2, 3, 4, 6, 8)
SEGMENT_WEIGHTS = 65_536
WEIGHTS_MULTIPLE = 8

_CHUNK = 32_768  # indices worked on at a time; fewer cost calls, more cost cache
_SIGN = 0x80

# 0-d arrays: what a scalar operand of a ufunc costs least as.
_LOW_HALF, _HIGH_HALF = np.array(0x0F, dtype=np.uint8), np.array(0xF0, dtype=np.uint8)
_HALF_BYTE, _HALF_BYTE_UP = np.array(4, dtype=np.uint8), np.array(16, dtype=np.uint8)
_BYTE_UP = np.array(256, dtype=np.uint16)

_COUNT, _POSITION = np.dtype("<u4"), np.dtype("<u2")
_U16, _U32, _U64 = (np.dtype(name) for name in ("u2", "u4", "u8"))

Bytes = NDArray[np.uint8]
Decoded = NDArray[np.int8] | Bytes


def check_ladder(ladder: Sequence[int]) -> tuple[int, ...]:
    """The ladder as a tuple.

    Raises:
        PackFormatError: it is not a strictly increasing sequence of fidelities from 2 to 8 bits.
    """
    steps = tuple(ladder)
    increasing = all(low < high for low, high in pairwise(steps))
    if not (steps and increasing and steps[0] >= 2 and steps[-1] <= 8):
        raise PackFormatError(f"a ladder must increase within 2..8 bits, got {list(ladder)}")
    return steps


def plane_bytes(ladder: Sequence[int], weights: int) -> tuple[int, ...]:
    """Bytes of each plane, in ladder order, of a shard of ``weights`` weights.

    Raises:
        PackFormatError: the ladder is malformed or ``weights`` is not a multiple of 8.
    """
    steps = check_ladder(ladder)
    if weights < 1 or weights % WEIGHTS_MULTIPLE:
        raise PackFormatError(
            f"a shard of {weights} weights cannot be coded: not a multiple of {WEIGHTS_MULTIPLE}"
        )
    return tuple(
        weights * (bits - lower) // 8 for lower, bits in zip((0, *steps), steps, strict=False)
    )


@dataclass(frozen=True, slots=True)
class CodeBook:
    """What every code of every fidelity stands for.

    Attributes:
        ladder: the fidelities, increasing, within 2..8 bits.
        values: for each fidelity, read-only int8 ``[2**bits]``.
    """

    ladder: tuple[int, ...]
    values: Mapping[int, NDArray[np.int8]]

    def __post_init__(self) -> None:
        check_ladder(self.ladder)
        if tuple(self.values) != self.ladder:
            raise PackFormatError(
                f"code book has values for {list(self.values)} bits, not for {list(self.ladder)}"
            )
        frozen = {}
        for bits, table in self.values.items():
            if table.dtype != np.int8 or table.shape != (1 << bits,):
                raise PackFormatError(f"code book: {bits} bits need {1 << bits} int8 values")
            frozen[bits] = table.copy()
            frozen[bits].flags.writeable = False
        object.__setattr__(self, "values", MappingProxyType(frozen))

    def to_json(self) -> dict[str, object]:
        """The book as JSON values; ``from_json`` reads it back."""
        return {
            "ladder": list(self.ladder),
            "values": {str(bits): table.tolist() for bits, table in self.values.items()},
        }

    @classmethod
    def from_json(cls, data: object) -> CodeBook:
        """The book that ``to_json`` wrote.

        Raises:
            PackFormatError: ``data`` is not a book.
        """
        match data:
            case {"ladder": list() as ladder, "values": dict() as tables, **rest} if not rest:
                pass
            case _:
                raise PackFormatError("code book: expected a ladder and values")
        if not all(type(bits) is int for bits in ladder):
            raise PackFormatError("code book: the ladder must be whole numbers")
        if list(tables) != [str(bits) for bits in ladder]:
            raise PackFormatError("code book: values do not match the ladder")
        values = {}
        for bits in check_ladder(ladder):
            table = tables[str(bits)]
            if not (isinstance(table, list) and all(_is_int8(value) for value in table)):
                raise PackFormatError(f"code book: values of {bits} bits must be int8 numbers")
            values[bits] = np.array(table, dtype=np.int8)
        return cls(tuple(ladder), values)


def _is_int8(value: object) -> bool:
    return type(value) is int and -128 <= value <= 127


@dataclass(frozen=True, slots=True)
class Window:
    """Views of a scratch for m indices in each half: ``[2, m]`` unless said otherwise."""

    low: tuple[Bytes, Bytes, Bytes]
    high: tuple[Bytes, Bytes, Bytes]
    """The array, and its two rows."""
    spare: Bytes
    """``[m]``"""
    joined: NDArray[np.uint16]
    widened: NDArray[np.uint16]
    index: NDArray[np.intp]
    flat_index: NDArray[np.intp]
    """``[2 * m]``, the same memory as ``index``."""
    quads: NDArray[np.uint32]
    """``[2 * m]``"""
    quad_bytes: Bytes
    """``[2, 4 * m]``, the same memory as ``quads``."""


class Scratch:
    """Working arrays of one decoding thread, of fixed size (about 0.5 MB); not thread-safe."""

    __slots__ = ("_windows", "bytes", "index", "joined", "quads")

    def __init__(self) -> None:
        self.bytes = np.empty((3, _CHUNK), dtype=np.uint8)
        self.joined = np.empty((2, _CHUNK), dtype=np.uint16)
        self.index = np.empty(_CHUNK, dtype=np.intp)
        self.quads = np.empty(_CHUNK, dtype=np.uint32)
        self._windows: dict[int, Window] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in (self.bytes, self.joined, self.index, self.quads))

    def window(self, indices: int) -> Window:
        """Views for ``indices`` indices in each half; made once for each of the few lengths."""
        found = self._windows.get(indices)
        if found is None:
            low, high, spare = self.bytes[:, : 2 * indices].reshape(3, 2, indices)
            joined, widened = self.joined[:, : 2 * indices].reshape(2, 2, indices)
            index, quads = self.index[: 2 * indices], self.quads[: 2 * indices]
            found = self._windows[indices] = Window(
                low=(low, low[0], low[1]),
                high=(high, high[0], high[1]),
                spare=spare[0],
                joined=joined,
                widened=widened,
                index=index.reshape(2, -1),
                flat_index=index,
                quads=quads,
                quad_bytes=quads.view(np.uint8).reshape(2, -1),
            )
        return found


class Decoder:
    """Decodes shards by one book. Immutable, so threads may share it.

    Args:
        book: the book of the pack.
        unsigned: write uint8 with zero point 128 instead of int8.

    Attributes:
        book: as given.
        dtype: of what ``decode`` writes, int8 or uint8.
        table_bytes: memory of the look-up tables.
    """

    __slots__ = ("_flip", "_plane_bits", "_recipes", "book", "dtype", "table_bytes")

    def __init__(self, book: CodeBook, *, unsigned: bool = False) -> None:
        self.book = book
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if unsigned else np.int8)
        self._flip = np.array(_SIGN, dtype=np.uint8) if unsigned else None
        ladder = book.ladder
        self._plane_bits = tuple(b - a for a, b in zip((0, *ladder), ladder, strict=False))
        self._recipes = build_recipes(book.ladder, book.values, unsigned=unsigned)
        tables = {id(table): table for recipe in self._recipes for table in recipe.tables}
        self.table_bytes = sum(table.nbytes for table in tables.values())

    def scratch(self) -> Scratch:
        """New working arrays; every thread that decodes needs its own."""
        return Scratch()

    def decode(
        self, planes: Sequence[Bytes], outliers: Bytes, out: Decoded, scratch: Scratch
    ) -> None:
        """Decode one shard of N weights.

        Args:
            planes: the first planes of the shard, each 1-D uint8 of its ``plane_bytes``; how many
                decides the fidelity. Only read.
            outliers: the shard's outliers, 1-D uint8; bytes beyond their end are ignored.
            out: 1-D contiguous ``[N]`` of ``dtype``, written in full.
            scratch: of the calling thread.

        Raises:
            PackCorruptError: planes or outliers do not fit a shard of N weights.
            PackFormatError: N is not a multiple of 8.
        """
        weights = out.size
        for plane, bits in zip(planes, self._plane_bits, strict=False):
            if plane.size * 8 != weights * bits:
                raise PackCorruptError(
                    f"a plane of {plane.size} bytes does not fit a shard of {weights} weights"
                )
        if weights % WEIGHTS_MULTIPLE or not 0 < len(planes) <= len(self._recipes):
            raise PackFormatError(f"cannot decode {weights} weights of {len(planes)} planes")
        recipe = self._recipes[len(planes) - 1]
        written = out.view(np.uint8)
        if recipe.wide is not None:
            _look_up_wide(recipe.wide, planes[0], written, scratch)
        else:
            _add_stages(recipe, planes, written, scratch)
            if recipe.pairs is not None:
                _look_up_pairs(recipe.pairs, written, scratch)
        _put_outliers(outliers, written, self._flip, scratch)


def _look_up_wide(table: NDArray[np.uint64], plane: Bytes, out: Bytes, scratch: Scratch) -> None:
    """Eight weights an index: two bytes of a two-bit component."""
    source, target = plane.view(_U16), out.view(_U64)
    for start in range(0, source.size, _CHUNK):
        piece = source[start : start + _CHUNK]
        index = scratch.index[: piece.size]
        np.copyto(index, piece)
        table.take(index, None, target[start : start + _CHUNK], "clip")


def _look_up_pairs(table: NDArray[np.uint16], out: Bytes, scratch: Scratch) -> None:
    """Codes to values in place, two an index."""
    pairs = out.view(_U16)
    for start in range(0, len(pairs), _CHUNK):
        piece = pairs[start : start + _CHUNK]
        index = scratch.index[: len(piece)]
        np.copyto(index, piece)
        table.take(index, None, piece, "clip")


def _add_stages(recipe: Recipe, planes: Sequence[Bytes], out: Bytes, scratch: Scratch) -> None:
    """Contributions of all stages, added up in ``out``.

    Works on the two halves of the shard side by side, as rows: a byte of a one-bit component
    holds weights of both.
    """
    eighth = out.size // WEIGHTS_MULTIPLE
    parts = [_part(planes[part.plane], part, eighth) for part in recipe.parts]
    rows = out.reshape(2, -1)
    if eighth <= _CHUNK // 2:
        window = scratch.window(eighth)
        _add_chunk(recipe, parts, rows, ((window.flat_index, out),), window)
        return
    step = -(-eighth // -(-eighth // (_CHUNK // 2)))
    for start in range(0, eighth, step):
        stop = min(start + step, eighth)
        window = scratch.window(stop - start)
        target = rows[:, 4 * start : 4 * stop]
        runs = ((window.index[0], target[0]), (window.index[1], target[1]))
        _add_chunk(recipe, [part[..., start:stop] for part in parts], target, runs, window)


def _part(plane: Bytes, part: Component, eighth: int) -> Bytes:
    """A component's bytes: ``[2, N/8]``, a row for each half, or ``[N/8]`` for one of one bit."""
    found = plane[part.start * eighth : (part.start + part.bits) * eighth]
    return found.reshape(2, eighth) if part.bits == 2 else found


def _add_chunk(
    recipe: Recipe,
    parts: Sequence[Bytes],
    target: Bytes,
    runs: Sequence[tuple[NDArray[np.intp], Bytes]],
    window: Window,
) -> None:
    """All stages of the indices of one window.

    Args:
        parts: the components' bytes in the window, as ``_part`` gives them.
        target: ``[2, 4 * m]``, where the weights go.
        runs: the same memory in contiguous runs, each with its indices.
    """
    first, *others = recipe.stages
    _fill_index(first, parts, window)
    for index, run in runs:
        first.table.take(index, None, run.view(_U32), "clip")
    for stage in others:
        _fill_index(stage, parts, window)
        stage.table.take(window.flat_index, None, window.quads, "clip")
        np.add(target, window.quad_bytes, target)


def _fill_index(stage: Stage, parts: Sequence[Bytes], window: Window) -> None:
    """``low | high << 8`` for both halves, into ``window.index``."""
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


def _index_bytes(
    source: Source, parts: Sequence[Bytes], room: tuple[Bytes, Bytes, Bytes], spare: Bytes
) -> Bytes:
    """One byte of each index, ``[2, m]``: a view of a two-bit component, or made in ``room``."""
    first = parts[source[0]]
    if first.ndim == 2:
        return first
    both, here, there = room
    np.bitwise_and(first, _LOW_HALF, here)
    np.right_shift(first, _HALF_BYTE, there)
    if len(source) == 2:
        second = parts[source[1]]
        np.multiply(second, _HALF_BYTE_UP, spare)
        np.bitwise_or(here, spare, here)
        np.bitwise_and(second, _HIGH_HALF, spare)
        np.bitwise_or(there, spare, there)
    return both


def _put_outliers(record: Bytes, out: Bytes, flip: Bytes | None, scratch: Scratch) -> None:
    """Overwrite the outliers with their exact values, xored with ``flip`` if there is one."""
    first = 4 * -(-out.size // SEGMENT_WEIGHTS)
    counts = record[:first].view(_COUNT).tolist() if record.size >= first else []
    end = first + 2 * sum(counts)
    positions, values = record[first:end].view(_POSITION), record[end:]
    if not counts or values.size < positions.size:
        raise PackCorruptError(f"outliers of {record.size} bytes list more than they hold")
    done = 0
    for segment, count in enumerate(counts):
        place = segment * SEGMENT_WEIGHTS
        for start in range(done, done + count, _CHUNK):
            stop = min(start + _CHUNK, done + count)
            index, exact = scratch.index[: stop - start], values[start:stop]
            np.copyto(index, positions[start:stop])
            if flip is not None:
                exact = np.bitwise_xor(exact, flip, scratch.bytes[0, : stop - start])
            try:
                out[place : place + SEGMENT_WEIGHTS][index] = exact
            except IndexError as error:
                raise PackCorruptError(
                    f"an outlier lies beyond the end of a shard of {out.size} weights"
                ) from error
        done += count
