"""How decoded weights are written: int8, uint8 with zero point 128, or int8 halves of 7 bits.

Out: for each way its type, and the bytes that stand for int8 values and for codes. Halves lie in
-64 .. 63, so that no sum of two products with uint8 exceeds 16 bits. Those of outliers are rounded
to the nearest whole number, to the even one of two; those of codes as ``sti.codec.halves`` says.
Knows nothing of planes or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from sti.arrays import ByteArray
from sti.codec.codebook import Codebook
from sti.codec.halves import LEAST_HALF, MOST_HALF, bell_of, halves_of

WeightForm = Literal["s8", "u8", "s7"]
"""How weights are written: int8, uint8 with zero point 128, halves in int8."""

DTYPES: Mapping[WeightForm, np.dtype[Any]] = {
    "s8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "s7": np.dtype(np.int8),
}

_SIGN = 0x80
"""Xor turns an int8 into a uint8 with zero point 128."""


def written(weights: WeightForm) -> ByteArray:
    """The bytes that stand for outliers, uint8 ``[256]``, indexed by a value's own byte."""
    values = np.arange(256, dtype=np.uint8)
    if weights == "s8":
        return values
    if weights == "u8":
        return values ^ np.uint8(_SIGN)
    halves = np.rint(values.view(np.int8) / 2).clip(LEAST_HALF, MOST_HALF)
    return halves.astype(np.int8).view(np.uint8)


def written_codes(codebook: Codebook, weights: WeightForm) -> dict[int, ByteArray]:
    """For each fidelity the bytes that stand for its codes, uint8 ``[2**bits]``."""
    if weights == "s7":
        bell = bell_of(codebook)
        halves = {bits: halves_of(values, bell) for bits, values in codebook.values.items()}
        return {bits: values.view(np.uint8) for bits, values in halves.items()}
    exact = written(weights)
    return {bits: exact[values.view(np.uint8)] for bits, values in codebook.values.items()}
