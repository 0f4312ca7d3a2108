"""The nested code: which int8 value each code stands for, at every fidelity of the ladder.

One codebook serves a whole model. A code of a higher fidelity begins with the code of the lower
one, so a shard at fidelity b is exactly its first planes. A few weights, the outliers, are listed
beside the planes and are exact at every fidelity.

In: a ladder and its values, or the JSON of a manifest. Out: a checked, immutable ``Codebook``, and
the sizes of planes. Decoding is specified by ``sti.codec.decoder``; codebooks are made offline, by
``shard_tools.quantization.codebook``. Knows nothing of files, graphs, scales or layers. The
alternative, a copy of the shard for every fidelity (paper, section 4.2), takes 23 bits per weight
for this ladder instead of 8.

A shard holds the weights of its operands, one after the other. Each operand, of a multiple of 8
weights, is cut into records of 1,024 weights; its last one may be shorter. A plane of a shard that
adds w bits has, for each operand and each record in turn, w // 2 two-bit components followed, if w
is odd, by a one-bit component; higher bits come first. In a record of n weights:

- two-bit component, n/4 bytes: byte i holds weights i, i + n/4, i + 2 n/4 and i + 3 n/4, the first
  in the lowest bits;
- one-bit component, n/8 bytes: byte i holds weights i, i + n/8, ... i + 7 n/8, the first in the
  lowest bit.

Outliers are listed by segments of 65,536 weights, which begin anew at each operand. The list of a
shard, little endian: uint32 counts, one for each segment; then uint16 positions inside their
segments, strictly ascending; then int8 values; then zeros up to a multiple of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError

DEFAULT_LADDER: tuple[int, ...] = (2, 3, 4, 6, 8)
WEIGHTS_MULTIPLE = 8


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
class Codebook:
    """The int8 value that each code stands for, by fidelity. Immutable; threads may share it.

    Attributes:
        ladder: the fidelities, increasing, within 2..8 bits.
        values: for each fidelity, read-only int8 ``[2**bits]``; the arrays given are copied.

    Raises:
        PackFormatError: the ladder is malformed, or values do not match it in shape or type.
    """

    ladder: tuple[int, ...]
    values: Mapping[int, NDArray[np.int8]]

    def __post_init__(self) -> None:
        check_ladder(self.ladder)
        if tuple(self.values) != self.ladder:
            raise PackFormatError(
                f"codebook has values for {list(self.values)} bits, not for {list(self.ladder)}"
            )
        frozen = {}
        for bits, table in self.values.items():
            if table.dtype != np.int8 or table.shape != (1 << bits,):
                raise PackFormatError(f"codebook: {bits} bits need {1 << bits} int8 values")
            frozen[bits] = table.copy()
            frozen[bits].flags.writeable = False
        object.__setattr__(self, "values", MappingProxyType(frozen))

    def to_json(self) -> dict[str, object]:
        """The codebook as JSON values; ``from_json`` reads it back."""
        return {
            "ladder": list(self.ladder),
            "values": {str(bits): table.tolist() for bits, table in self.values.items()},
        }

    @classmethod
    def from_json(cls, data: object) -> Codebook:
        """The codebook that ``to_json`` wrote.

        Raises:
            PackFormatError: ``data`` is not a codebook.
        """
        match data:
            case {"ladder": list() as ladder, "values": dict() as tables, **rest} if not rest:
                pass
            case _:
                raise PackFormatError("codebook: expected a ladder and values")
        if not all(type(bits) is int for bits in ladder):
            raise PackFormatError("codebook: the ladder must be whole numbers")
        if list(tables) != [str(bits) for bits in ladder]:
            raise PackFormatError("codebook: values do not match the ladder")
        values = {}
        for bits in check_ladder(ladder):
            table = tables[str(bits)]
            if not (isinstance(table, list) and all(_is_int8(value) for value in table)):
                raise PackFormatError(f"codebook: values of {bits} bits must be int8 numbers")
            values[bits] = np.array(table, dtype=np.int8)
        return cls(tuple(ladder), values)


def _is_int8(value: object) -> bool:
    return type(value) is int and -128 <= value <= 127
