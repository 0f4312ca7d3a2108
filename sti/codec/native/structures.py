"""What the kernel is given, as C lays it out: ``sti_codec.h`` in ctypes, and codes of codebooks.

In: a ``Codebook``. Out: the ``Code`` that decodes it: which components a code is joined from, and
tables for each fidelity. Knows nothing of libraries, shards or files.

The kernel joins the components of a code, in order, to fields of two bits: a two-bit component, two
one-bit components, or one. Two fields are an index of four bits. Codes of up to two fields are
looked up in a table of 16; longer ones in two such tables, whose values are added up, where the
codebook's values allow it, and else in one of 256. With three fields the second index is fields 0
and 2, so that it knows the first two bits of the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ctypes import (
    POINTER,
    Structure,
    c_int32,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.codec.codebook import Codebook
from sti.codec.tables import Component, Places, components
from sti.codec.weights import WeightForm, written, written_codes

ABI = 2

SSSE3, AVX2, CLMUL, NEON, ARM_CRC, WIDE_CLMUL = 1, 2, 4, 8, 16, 32
"""Bits of ``sti_features`` and of ``Code.features``."""

CHECK = 1
FINE, FAULTY = 0, 1

_LEVELS, _FIELDS = 7, 4
_TWO, _ONES, _ONE = 1, 2, 3
_ONCE, _SUM, _TABLE = 0, 1, 2


class Source(Structure):
    """``struct sti_source``."""

    _fields_ = (("plane", c_uint8), ("start", c_uint8))


class Level(Structure):
    """``struct sti_level``."""

    _fields_ = (
        *(("fields", c_uint8), ("look", c_uint8), ("zero", c_uint8 * 2)),
        ("kinds", c_uint8 * _FIELDS),
        ("sources", Source * 2 * _FIELDS),
        *(("head", c_uint8 * 16), ("tail", c_uint8 * 16), ("table", c_uint8 * 256)),
    )


class Code(Structure):
    """``struct sti_code``."""

    _fields_ = (
        *((name, c_uint32) for name in ("features", "levels")),
        ("exact", c_uint8 * 256),
        ("widths", c_uint8 * (_LEVELS + 1)),
        ("level", Level * _LEVELS),
    )


class Operand(Structure):
    """``struct sti_operand``."""

    _fields_ = (
        ("at", c_void_p),
        *((name, c_uint32) for name in ("slices", "parts", "rows", "columns", "joined", "zero")),
    )


class FoundFault(Structure):
    """``struct sti_fault``."""

    _fields_ = (("row", c_uint32), ("piece", c_uint32), ("what", c_uint32))


SIGNATURES = {
    "sti_abi": (c_uint32, ()),
    "sti_features": (c_uint32, ()),
    "sti_crc32": (c_uint32, (c_void_p, c_uint64, c_uint32, c_uint32)),
    "sti_decode": (
        c_int32,
        (
            *(POINTER(Code), c_void_p, c_uint64, c_void_p, c_uint32, c_void_p, c_uint32),
            *(POINTER(Operand), c_uint32, c_uint32, POINTER(FoundFault)),
        ),
    ),
    "sti_rows": (
        c_int32,
        (
            *(c_void_p, c_uint64, c_uint32, c_void_p, c_uint64, c_uint32, c_uint32, c_void_p),
            *(c_uint32, c_uint32, POINTER(c_uint64)),
        ),
    ),
}
"""What each function returns and takes."""


def code_of(codebook: Codebook, *, weights: WeightForm, features: int) -> Code:
    """The code of a codebook, for weights written in one way."""
    ladder, values = codebook.ladder, written_codes(codebook, weights)
    code = Code(features, len(ladder))
    code.exact[:] = written(weights).tolist()
    places: Places = {}
    left = 8
    for plane, (bits, parts) in enumerate(zip(ladder, components(ladder), strict=True)):
        code.widths[plane] = sum(part.bits for part in parts)
        for part in parts:
            left -= part.bits
            places[part] = left
        _fill(code.level[plane], places, values[bits])
    return code


def _fields(parts: Iterable[Component]) -> list[tuple[Component, ...]]:
    """Components joined to fields, each where its first component is."""
    fields: list[tuple[Component, ...]] = []
    for component in parts:
        lone = [number for number, field in enumerate(fields) if sum(c.bits for c in field) == 1]
        if component.bits == 1 and lone:
            fields[lone[0]] += (component,)
        else:
            fields.append((component,))
    return fields


def _fill(level: Level, places: Places, values: ByteArray) -> None:
    """Say how one fidelity decodes, whose codes stand for ``values``.

    ``places``: which bit of the code, the first one being bit 7, the lowest of each component is.
    """
    fields = _fields(places)
    level.fields = len(fields)
    for number, field in enumerate(fields):
        level.kinds[number] = _TWO if field[0].bits == 2 else (_ONES if len(field) == 2 else _ONE)
        for part, component in enumerate(field):
            level.sources[number][part] = Source(component.plane, component.start)
    if len(fields) == 1:
        level.head[:] = values.repeat(4).tolist()
        level.tail[:] = np.tile(values, 4).tolist()
        return
    table = values[_codes(fields, places) >> (8 - (len(values).bit_length() - 1))]
    if len(fields) == 2:
        level.head[:] = table[::16].tolist()
        return
    level.table[:] = table.tolist()
    summed = _summed(table, 4 if len(fields) == 3 else 1)
    level.look = _TABLE if summed is None else _SUM
    if summed is not None:
        level.head[:], level.tail[:] = (half.tolist() for half in summed)


def _codes(fields: Sequence[Sequence[Component]], places: Places) -> NDArray[np.uint8]:
    """The code, its first bit the highest of eight, behind each pair of indices, ``[256]``."""
    index = np.arange(256)
    nibbles = (0, 1, 3) if len(fields) == 3 else range(4)
    found = np.zeros(256, dtype=np.uint8)
    for field, pair in zip(fields, nibbles, strict=False):
        low = 6 - 2 * pair
        for number, component in enumerate(reversed(field)):
            bits = (index >> (low + number)) & ((1 << component.bits) - 1)
            found |= (bits << places[component]).astype(np.uint8)
    return found


def _summed(table: ByteArray, contexts: int) -> tuple[ByteArray, ByteArray] | None:
    """Two tables of 16 that add up to ``table``, if its values allow it.

    ``contexts``: 4 if the first two bits of both indices are the same bits of the code.
    """
    grid = table.reshape(contexts, 16 // contexts, contexts, 16 // contexts)
    grid = grid[np.arange(contexts), :, np.arange(contexts)]
    head, tail = grid[:, :, 0], grid[:, 0, :] - grid[:, 0, :1]
    if not np.array_equal(grid, head[:, :, None] + tail[:, None, :]):
        return None
    return head.reshape(-1), tail.reshape(-1)
