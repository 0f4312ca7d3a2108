"""The specification of decoding: planes of a shard -> int8 weights, one shard at a time.

Plain and slow; ``sti.backend.onnxruntime.decoder`` does the same at full speed and must give the
same bits. In: planes and outliers as stored. Out: int8, or uint8 with zero point 128. Knows nothing
of files, graphs, scales or layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.codec.codebook import WEIGHTS_MULTIPLE, Codebook
from sti.codec.lookup import look_up, put_outliers
from sti.codec.tables import Recipe, Recipes
from sti.errors import PackCorruptError, PackFormatError

_SIGN = 0x80

Decoded = NDArray[np.int8] | ByteArray


class Decoder:
    """Decodes shards with one codebook. Safe to share between threads.

    Args:
        codebook: the codebook of the pack.
        unsigned: write uint8 with zero point 128 instead of int8.

    Attributes:
        codebook: as given.
        dtype: the type that ``decode`` writes, int8 or uint8.
        flip: uint8 that exact values are xored with to convert them to ``dtype``; None for int8.
    """

    __slots__ = ("_plane_bits", "_recipes", "codebook", "dtype", "flip")

    def __init__(self, codebook: Codebook, *, unsigned: bool = False) -> None:
        self.codebook = codebook
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if unsigned else np.int8)
        self.flip = np.array(_SIGN, dtype=np.uint8) if unsigned else None
        ladder = codebook.ladder
        self._plane_bits = tuple(b - a for a, b in zip((0, *ladder), ladder, strict=False))
        self._recipes = Recipes(codebook.ladder, codebook.values, unsigned=unsigned)

    def decode(self, planes: Sequence[ByteArray], outliers: ByteArray, out: Decoded) -> None:
        """Decode one shard of N weights.

        Args:
            planes: the first planes of the shard, each 1-D uint8 of its ``plane_bytes``; their
                number decides the fidelity. Not modified.
            outliers: the shard's outliers, 1-D uint8; bytes beyond their end are ignored.
            out: 1-D contiguous ``[N]`` of ``dtype``, written in full.

        Raises:
            PackCorruptError: planes or outliers do not fit a shard of N weights.
            PackFormatError: N is not a multiple of 8, or there is no such fidelity.
        """
        self.look_up(planes, out)
        put_outliers(outliers, out.view(np.uint8), self.flip)

    def look_up(self, planes: Sequence[ByteArray], out: Decoded) -> None:
        """As ``decode``, but outliers keep the value of their code."""
        look_up(self.recipe(planes, out.size), planes, out.view(np.uint8))

    def recipe(self, planes: Sequence[ByteArray], weights: int) -> Recipe:
        """How to decode these planes of a shard; checks that they fit it. Raises as ``decode``."""
        for plane, bits in zip(planes, self._plane_bits, strict=False):
            if plane.size * 8 != weights * bits:
                raise PackCorruptError(
                    f"a plane of {plane.size} bytes does not fit a shard of {weights} weights"
                )
        if weights % WEIGHTS_MULTIPLE or not 0 < len(planes) <= len(self._recipes):
            raise PackFormatError(f"cannot decode {weights} weights of {len(planes)} planes")
        return self._recipes[len(planes) - 1]
