"""Weights, codebooks and ladders for tests of the nested code, and its bytes read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import EncodedShard
from sti.codec.codebook import DEFAULT_LADDER, Codebook

CUT = 54

Int8 = NDArray[np.int8]

ladders = st.sets(st.integers(2, 8), min_size=1).map(lambda steps: tuple(sorted(steps)))


def bell(weights: int, *, seed: int = 0) -> Int8:
    """Weights as the grid gives them: a bell with some outliers."""
    values = np.random.default_rng(seed).standard_t(12, size=weights) * 17.0
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


@cache
def bell_codebook(ladder: tuple[int, ...] = DEFAULT_LADDER) -> Codebook:
    """The codebook of a bell; shared, so do not change it."""
    return build_codebook(histogram(bell(1 << 16)), cut=CUT, ladder=ladder)


def wild_codebook(ladder: Sequence[int], *, seed: int) -> Codebook:
    """A codebook no builder would make: values without any order."""
    rng = np.random.default_rng(seed)
    values = {bits: rng.integers(-128, 128, 1 << bits).astype(np.int8) for bits in ladder}
    return Codebook(tuple(ladder), values)


def specified_codes(
    planes: Sequence[bytes], ladder: Sequence[int], sizes: Sequence[int]
) -> list[int]:
    """The code of every weight of a shard, bit by bit as the layout is written down."""
    codes = []
    starts = [0] * len(planes)
    for size in sizes:
        for first in range(0, size, 1024):
            weights = min(1024, size - first)
            record = [0] * weights
            for number, plane in enumerate(planes):
                lower = ladder[number - 1] if number else 0
                width = ladder[number] - lower
                for bits in [2] * (width // 2) + [1] * (width % 2):
                    stored = weights * bits // 8
                    for weight in range(weights):
                        k, i = divmod(weight, stored)
                        found = plane[starts[number] + i] >> (bits * k)
                        record[weight] = record[weight] << bits | found & ((1 << bits) - 1)
                    starts[number] += stored
            codes += record
    assert starts == [len(plane) for plane in planes]
    return codes


def specified_outliers(stored: bytes, sizes: Sequence[int]) -> dict[int, int]:
    """Place in the shard to exact value, entry by entry as the layout is written down."""
    segments, start = [], 0
    for size in sizes:
        segments += [start + first for first in range(0, size, 65536)]
        start += size
    counts = [int.from_bytes(stored[4 * n : 4 * n + 4], "little") for n in range(len(segments))]
    at, total = 4 * len(segments), sum(counts)
    values = stored[at + 2 * total : at + 3 * total]
    bases = [base for base, count in zip(segments, counts, strict=True) for _ in range(count)]
    found = {}
    for number, base in enumerate(bases):
        position = int.from_bytes(stored[at + 2 * number :][:2], "little")
        found[base + position] = int.from_bytes(values[number : number + 1], "little", signed=True)
    return found


def specified_weights(
    shard: EncodedShard, codebook: Codebook, sizes: Sequence[int], planes: int
) -> Int8:
    """What a shard decodes to at its first planes, weight by weight."""
    stored = [plane.tobytes() for plane in shard.planes.values()][:planes]
    values = codebook.values[codebook.ladder[planes - 1]].tolist()
    weights = [values[code] for code in specified_codes(stored, codebook.ladder, sizes)]
    for place, value in specified_outliers(shard.outliers.tobytes(), sizes).items():
        weights[place] = value
    return np.array(weights, dtype=np.int8)
