"""The nested code: planes of a shard -> int8 weights, at any fidelity of the ladder.

One book serves a whole model. For every fidelity of the ladder it says which int8 value each code
stands for; a code of a higher fidelity begins with the code of the lower one, so a shard at
fidelity b is exactly its first planes. A few weights, the outliers, are listed beside the planes
and are exact at every fidelity. Decoding is table look-ups on integers, four weights an index
(eight at 2 bits).

``Decoder`` is the specification, plain and slow; at run time ``sti.backend.decoding`` does the
same. Knows nothing of files, graphs, scales or layers, nor how a book is made (the offline tool
does that). Bytes of planes and outliers go in, int8 (or uint8 with zero point 128) comes out. The
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

from sti.code_lookup import SEGMENT_WEIGHTS, Bytes, look_up, put_outliers
from sti.code_tables import Recipe, Recipes
from sti.errors import PackCorruptError, PackFormatError

__all__ = [
    "DEFAULT_LADDER",
    "SEGMENT_WEIGHTS",
    "WEIGHTS_MULTIPLE",
    "CodeBook",
    "Decoder",
    "check_ladder",
    "plane_bytes",
]

DEFAULT_LADDER: tuple[int, ...] = (2, 3, 4, 6, 8)
WEIGHTS_MULTIPLE = 8

_SIGN = 0x80

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


class Decoder:
    """Decodes shards by one book. Immutable, so threads may share it.

    Args:
        book: the book of the pack.
        unsigned: write uint8 with zero point 128 instead of int8.

    Attributes:
        book: as given.
        dtype: of what ``decode`` writes, int8 or uint8.
        flip: what exact values are xored with to be of ``dtype``; None for int8.
    """

    __slots__ = ("_plane_bits", "_recipes", "book", "dtype", "flip")

    def __init__(self, book: CodeBook, *, unsigned: bool = False) -> None:
        self.book = book
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if unsigned else np.int8)
        self.flip = np.array(_SIGN, dtype=np.uint8) if unsigned else None
        ladder = book.ladder
        self._plane_bits = tuple(b - a for a, b in zip((0, *ladder), ladder, strict=False))
        self._recipes = Recipes(book.ladder, book.values, unsigned=unsigned)

    def decode(self, planes: Sequence[Bytes], outliers: Bytes, out: Decoded) -> None:
        """Decode one shard of N weights.

        Args:
            planes: the first planes of the shard, each 1-D uint8 of its ``plane_bytes``; how many
                decides the fidelity. Only read.
            outliers: the shard's outliers, 1-D uint8; bytes beyond their end are ignored.
            out: 1-D contiguous ``[N]`` of ``dtype``, written in full.

        Raises:
            PackCorruptError: planes or outliers do not fit a shard of N weights.
            PackFormatError: N is not a multiple of 8, or there is no such fidelity.
        """
        self.look_up(planes, out)
        put_outliers(outliers, out.view(np.uint8), self.flip)

    def look_up(self, planes: Sequence[Bytes], out: Decoded) -> None:
        """As ``decode``, but leave outliers at what their codes say."""
        look_up(self.recipe(planes, out.size), planes, out.view(np.uint8))

    def recipe(self, planes: Sequence[Bytes], weights: int) -> Recipe:
        """How to decode these planes of a shard; checks that they fit it. Raises as ``decode``."""
        for plane, bits in zip(planes, self._plane_bits, strict=False):
            if plane.size * 8 != weights * bits:
                raise PackCorruptError(
                    f"a plane of {plane.size} bytes does not fit a shard of {weights} weights"
                )
        if weights % WEIGHTS_MULTIPLE or not 0 < len(planes) <= len(self._recipes):
            raise PackFormatError(f"cannot decode {weights} weights of {len(planes)} planes")
        return self._recipes[len(planes) - 1]
