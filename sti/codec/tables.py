"""Look-up tables of the nested code: a codebook's values -> how to decode each fidelity.

A fidelity decodes in stages. A stage joins one or two bytes (each four weights of two bits, or
two times four weights of one bit) into an index of up to 16 bits and looks up four contributions,
one for each weight; the contributions of all stages are added modulo 256. Codes of up to 4 bits
need one stage, whose contributions are the values themselves. Longer codes decode in one of two
ways:

- where the values are a sum ``f(first bits) + g(last bits)`` (``g`` may also see the first two
  bits of the code), the stages look up ``f`` and ``g``: nothing else is needed;
- otherwise the stages add up to the code, and a last table turns pairs of codes into values.

The codebook's values decide which, so any codebook decodes. Knows the ladder and the order of bits
in a plane; knows nothing of shards, outliers, files or of how codebooks are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray

_T = TypeVar("_T", bound=np.generic)

_QUAD = 4  # weights per index
_STAGE_BITS = 4  # at most, of each weight
_CONTEXT_BITS = 2
_SIGN = 0x80


class Component(NamedTuple):
    """Bits of all weights that are stored together: two each in N/4 bytes, or one in N/8 bytes.

    ``start`` counts units of N/8 bytes from the beginning of plane number ``plane``.
    """

    plane: int
    start: int
    bits: int


Source = tuple[int, ...]
"""Numbers of the components in one byte of an index: one of two bits, or one or two of one bit."""


class Stage(NamedTuple):
    """One look-up: ``table[low | high << 8]`` holds the contributions to four weights."""

    low: Source
    high: Source
    table: NDArray[np.uint32]


class Recipe(NamedTuple):
    """How one fidelity decodes.

    Attributes:
        parts: the components of all planes up to the fidelity, in order.
        wide: for a single two-bit component: 65,536 entries of eight weights; else None.
        stages: added up for each weight; empty where ``wide`` is used.
        pairs: 65,536 entries of two values, for stages that add up to codes; else None.
    """

    parts: tuple[Component, ...]
    wide: NDArray[np.uint64] | None
    stages: tuple[Stage, ...]
    pairs: NDArray[np.uint16] | None


def components(ladder: Sequence[int]) -> tuple[tuple[Component, ...], ...]:
    """The components of each plane, in order: two-bit ones, then a one-bit one if needed."""
    planes = []
    for plane, (lower, bits) in enumerate(zip((0, *ladder), ladder, strict=False)):
        twos, ones = divmod(bits - lower, 2)
        parts = [Component(plane, 2 * index, 2) for index in range(twos)]
        parts += [Component(plane, 2 * twos, 1)] * ones
        planes.append(tuple(parts))
    return tuple(planes)


class Recipes(Sequence[Recipe]):
    """One recipe for each fidelity, in ladder order, made at first use.

    A run needs the tables of the few fidelities in its plan, and opening a pack should not wait for
    the others. Safe to share between threads; tables are read-only.

    Args:
        ladder: the fidelities.
        values: for each fidelity int8 ``[2**bits]``, the value of each code.
        unsigned: decode to uint8 with zero point 128 instead of int8.
    """

    def __init__(
        self, ladder: Sequence[int], values: Mapping[int, NDArray[np.int8]], *, unsigned: bool
    ) -> None:
        planes = components(ladder)
        self._counts = [sum(map(len, planes[: level + 1])) for level in range(len(ladder))]
        self._values = [values[bits] for bits in ladder]
        self._flip = np.uint8(_SIGN if unsigned else 0)
        self._builder = _Builder([part for plane in planes for part in plane])
        self._made: dict[int, Recipe] = {}

    def __len__(self) -> int:
        return len(self._counts)

    @overload
    def __getitem__(self, level: int) -> Recipe: ...

    @overload
    def __getitem__(self, level: slice) -> Sequence[Recipe]: ...

    def __getitem__(self, level: int | slice) -> Recipe | Sequence[Recipe]:
        if isinstance(level, slice):
            return [self[index] for index in range(*level.indices(len(self)))]
        found = self._made.get(level)
        if found is None:
            values = self._values[level].view(np.uint8) ^ self._flip
            made = self._builder.recipe(self._counts[level], values)
            # Another thread may have made it meanwhile; every thread must get the same one.
            found = self._made.setdefault(level, made)
        return found


class _Builder:
    """Makes recipes for a ladder, each table once."""

    def __init__(self, parts: Sequence[Component]) -> None:
        self._parts = parts
        self._stages: dict[tuple[tuple[int, ...], bytes], Stage] = {}
        self._heads: dict[int, ByteArray] = {}

    def recipe(self, count: int, values: ByteArray) -> Recipe:
        """The recipe for the first ``count`` components, whose codes stand for ``values``."""
        parts = tuple(self._parts[:count])
        groups = self._groups(count)
        if count == 1:
            return Recipe(parts, self._wide(values), (), None)
        if len(groups) == 1:
            return Recipe(parts, None, (self._stage(groups[0], values),), None)
        summed = self._summed(groups[0], groups[1], values) if len(groups) == 2 else None
        if summed is not None:
            return Recipe(parts, None, summed, None)
        stages, left = [], len(values).bit_length() - 1
        for group in groups:
            left -= self._bits(group)
            codes = np.arange(1 << self._bits(group)) << left
            stages.append(self._stage(group, codes.astype(np.uint8)))
        pair = np.arange(1 << 16, dtype=np.uint16).view(np.uint8) & np.uint8(len(values) - 1)
        return Recipe(parts, None, tuple(stages), _frozen(values[pair].view(np.uint16)))

    def _wide(self, values: ByteArray) -> NDArray[np.uint64]:
        """Entries for two bytes of a two-bit component."""
        quads = self._stage((0,), values).table.astype(np.uint64)
        both: NDArray[np.uint64] = quads[:, None] << np.uint64(32) | quads
        return _frozen(both.reshape(-1))

    def _groups(self, count: int) -> list[tuple[int, ...]]:
        """The first ``count`` components, cut into the longest runs that fit a stage."""
        groups: list[tuple[int, ...]] = [()]
        for number in range(count):
            if self._bits((*groups[-1], number)) > _STAGE_BITS:
                groups.append(())
            groups[-1] = (*groups[-1], number)
        return groups

    def _bits(self, group: Sequence[int]) -> int:
        return sum(self._parts[number].bits for number in group)

    def _summed(
        self, first: tuple[int, ...], last: tuple[int, ...], values: ByteArray
    ) -> tuple[Stage, Stage] | None:
        """Two stages whose contributions add up to the values, if the values allow it."""
        grid = values.reshape(1 << self._bits(first), -1)
        roomy = self._bits(last) + _CONTEXT_BITS <= _STAGE_BITS
        for contexts, seen in ((1, ()), (1 << _CONTEXT_BITS, (0,)))[: 1 + roomy]:
            cut = grid.reshape(contexts, -1, grid.shape[1])
            head, tail = cut[:, :, 0], cut[:, 0, :] - cut[:, 0, :1]
            if not np.array_equal(cut, head[:, :, None] + tail[:, None, :]):
                continue
            # A constant may move from head to tail: share the head of a higher fidelity if it fits.
            other = self._heads.get(len(grid), head).reshape(contexts, -1)
            shift = (head - other)[:, :1]
            if np.array_equal(head, other + shift):
                head, tail = other, tail + shift
            self._heads[len(grid)] = head.reshape(-1)
            return (
                self._stage(first, head.reshape(-1)),
                self._stage((*seen, *last), tail.reshape(-1)),
            )
        return None

    def _stage(self, group: tuple[int, ...], contributions: ByteArray) -> Stage:
        """A stage whose ``contributions`` are indexed by the bits of ``group``, joined in order."""
        key = (group, contributions.tobytes())
        if key not in self._stages:
            low, high = self._sources(group)
            # Byte by byte: looking up 4 x 65,536 codes takes ten times as long.
            lows, highs = self._byte_codes(group, low), self._byte_codes(group, high)
            table = np.zeros((len(highs), len(lows)), dtype=np.uint32)
            codes = np.arange(contributions.size)[:, None]
            for weight in range(_QUAD):
                rows = contributions[codes | lows[:, weight]].astype(np.uint32) << 8 * weight
                table += rows[highs[:, weight]]
            self._stages[key] = Stage(low, high, _frozen(table.reshape(-1)))
        return self._stages[key]

    def _sources(self, group: Sequence[int]) -> tuple[Source, Source]:
        """The bytes of a stage's index: two-bit components first, then one-bit ones in pairs."""
        ones = tuple(number for number in group if self._parts[number].bits == 1)
        found: list[Source] = [(number,) for number in group if self._parts[number].bits == 2]
        found += [ones[at : at + 2] for at in range(0, len(ones), 2)]
        low, high = (*found, ())[:2]
        return low, high

    def _byte_codes(self, group: Sequence[int], source: Source) -> ByteArray:
        """The codes of the four weights behind each value of an index byte, ``[n, 4]``.

        A code is the bits of ``group``, joined; every component is in one byte of the index, so
        one byte gives part of each code.
        """
        shifts, below = {}, 0
        for number in reversed(group):
            shifts[number] = below
            below += self._parts[number].bits
        byte = np.arange(1 << self._bits(source) * _QUAD, dtype=np.uint8)
        codes, place = np.zeros((byte.size, _QUAD), dtype=np.uint8), 0
        for number in source:
            bits = self._parts[number].bits
            for weight in range(_QUAD):
                found = (byte >> (place + bits * weight)) & ((1 << bits) - 1)
                codes[:, weight] |= found << shifts[number]
            place += bits * _QUAD
        return codes


def _frozen(table: NDArray[_T]) -> NDArray[_T]:
    table.flags.writeable = False
    return table
