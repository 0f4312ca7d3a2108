"""Weights, codebooks and ladders for tests of the nested code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from shard_tools.quantization.codebook import build_codebook, histogram
from sti.codec.codebook import DEFAULT_LADDER, Codebook

CUT = 54

Int8 = NDArray[np.int8]

ladders = st.sets(st.integers(2, 8), min_size=1).map(lambda steps: tuple(sorted(steps)))


def bell(weights: int, *, seed: int = 0) -> Int8:
    """Weights as the grid gives them: a bell with some outliers."""
    values = np.random.default_rng(seed).standard_t(12, size=weights) * 17.0
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


def bell_codebook(ladder: Sequence[int] = DEFAULT_LADDER) -> Codebook:
    return build_codebook(histogram(bell(1 << 16)), cut=CUT, ladder=ladder)


def wild_codebook(ladder: Sequence[int], *, seed: int) -> Codebook:
    """A codebook no builder would make: values without any order."""
    rng = np.random.default_rng(seed)
    values = {bits: rng.integers(-128, 128, 1 << bits).astype(np.int8) for bits in ladder}
    return Codebook(tuple(ladder), values)
