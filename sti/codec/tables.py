"""From a ladder and a codebook: where the bits of a code are, and what codes stand for.

Out: the components of each plane, and for each fidelity a ``Recipe``: which components its codes
are joined from, and a table of the values of two codes at a time. Knows the ladder and the order of
bits in a plane; knows nothing of shards, outliers, files or of how codebooks are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray

_T = TypeVar("_T")

_BYTES = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)


class Component(NamedTuple):
    """Bits of all weights of a record that are stored together: two each, or one.

    ``start`` counts units of n/8 bytes, for a record of n weights, from the beginning of what
    plane number ``plane`` has of it.
    """

    plane: int
    start: int
    bits: int


Places = dict[Component, int]


class Recipe(NamedTuple):
    """How one fidelity decodes.

    Attributes:
        bits: of each plane up to the fidelity.
        ones: the one-bit components of these planes.
        twos: the two-bit ones.
        pairs: values of two codes as ``assembled`` gives them, uint16 ``[2**16]``, indexed by both
            as one uint16.
    """

    bits: tuple[int, ...]
    ones: tuple[Component, ...]
    twos: tuple[Component, ...]
    pairs: NDArray[np.uint16]


def components(ladder: Sequence[int]) -> tuple[tuple[Component, ...], ...]:
    """The components of each plane, in order: two-bit ones, then a one-bit one if needed."""
    planes = []
    for plane, bits in enumerate(plane_bits(ladder)):
        twos, ones = divmod(bits, 2)
        parts = [Component(plane, 2 * index, 2) for index in range(twos)]
        parts += [Component(plane, 2 * twos, 1)] * ones
        planes.append(tuple(parts))
    return tuple(planes)


def plane_bits(ladder: Sequence[int]) -> tuple[int, ...]:
    """The bits that each plane adds."""
    return tuple(bits - lower for lower, bits in zip((0, *ladder), ladder, strict=False))


class Recipes:
    """One recipe for each fidelity, made at first use. Threads may share it.

    A run needs the tables of the few fidelities in its plan, and opening a pack should not wait for
    the others.

    Args:
        ladder: the fidelities.
        values: for each fidelity uint8 ``[2**bits]``, the byte that each code stands for
            (``sti.codec.weights.written_codes``).
    """

    def __init__(self, ladder: Sequence[int], values: Mapping[int, ByteArray]) -> None:
        self._planes = components(ladder)
        self._bits = plane_bits(ladder)
        self._values = [values[bits] for bits in ladder]
        self._made: dict[int, Recipe] = {}

    def of(self, planes: int) -> Recipe:
        """The recipe for shards of so many planes, 1 to all; every thread gets the same one."""
        found = self._made.get(planes)
        if found is None:
            made = _recipe(self._bits[:planes], self._planes[:planes], self._values[planes - 1])
            found = self._made.setdefault(planes, made)
        return found


def assembled(
    ones: Sequence[_T], twos: Sequence[_T], join: Callable[[Sequence[_T], int], _T]
) -> _T:
    """Join one- and two-bit fields to codes of a byte, two at a time.

    The bits of a code come out in another order, the same for all weights, and perhaps with zeros
    between: what matters is that up to eight bits always fit.

    Args:
        join: makes one field of twice as many bits of one or two fields of so many.
    """
    fields = list(ones)
    for bits in (1, 2, 4):
        fields = [join(fields[at : at + 2], bits) for at in range(0, len(fields), 2)]
        if bits == 1:
            fields = [*twos, *fields]
    return fields[0]


def _recipe(
    bits: tuple[int, ...], planes: Sequence[Sequence[Component]], values: ByteArray
) -> Recipe:
    parts = [part for plane in planes for part in plane]
    ones, twos = (tuple(part for part in parts if part.bits == n) for n in (1, 2))
    places = assembled([{part: 0} for part in ones], [{part: 0} for part in twos], _joined_places)
    found, left = np.arange(1 << 8), sum(bits)
    codes = np.zeros(1 << 8, dtype=np.intp)
    for part in parts:
        left -= part.bits
        codes |= (found >> places[part] & ((1 << part.bits) - 1)) << left
    pairs: NDArray[np.uint16] = values[codes][_BYTES].view(np.uint16)
    pairs.flags.writeable = False
    return Recipe(bits, ones, twos, pairs)


def _joined_places(fields: Sequence[Places], bits: int) -> Places:
    """Where the lowest bit of each component is in joined fields."""
    high, *low = fields
    if not low:
        return high
    return {part: place + bits for part, place in high.items()} | low[0]
