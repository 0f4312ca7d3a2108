"""Encoding int8 weights: planes and outliers of the nested code.

The byte layout is specified in ``sti.codec.codebook``. In: the flat int8 weights of a shard, the
sizes of its operands, a codebook, and where outliers begin. Out: an ``EncodedShard``. Each value
gets the code that fits it best: closest at the top of the ladder, then closest at the lower
fidelities, their errors weighted by what is usual there. Knows nothing of models, matrices or
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sti.codec.codebook import WEIGHTS_MULTIPLE, Codebook
from sti.codec.lookup import RECORD
from sti.codec.outliers import COUNT, PADDED, POSITION, SEGMENT_WEIGHTS
from sti.codec.tables import Component, components
from sti.errors import InputError, PackFormatError


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """A shard as it is stored.

    Attributes:
        planes: for each fidelity, the uint8 bytes of the plane that raises a shard to it.
        outliers: uint8, the outlier list: counts, positions and exact values.
    """

    planes: Mapping[int, NDArray[np.uint8]]
    outliers: NDArray[np.uint8]


class Encoder:
    """Encodes shards with one codebook. Immutable, so threads may share it.

    Args:
        codebook: the codebook of the pack.
        cut: weights with ``abs(q) > cut`` are outliers, 1..127.

    Raises:
        InputError: ``cut`` is out of range.
    """

    def __init__(self, codebook: Codebook, *, cut: int) -> None:
        if not 1 <= cut <= 127:
            raise InputError(f"the outlier limit must be within 1..127, got {cut}")
        self.codebook = codebook
        self.cut = cut
        self._codes = best_codes(codebook)
        self._is_outlier = np.abs(np.arange(256, dtype=np.uint8).view(np.int8).astype(int)) > cut

    def encode(self, q: NDArray[np.int8], sizes: Sequence[int]) -> EncodedShard:
        """Encode one shard.

        Args:
            q: int8 ``[N]``, the weights of its operands, one after the other; not modified.
            sizes: weights of each operand, multiples of 8 that add up to N.

        Raises:
            PackFormatError: the sizes cannot be coded or do not add up to N.
        """
        if q.size != sum(sizes) or any(n < 1 or n % WEIGHTS_MULTIPLE for n in sizes) or not sizes:
            raise PackFormatError(
                f"{q.size} weights cannot be coded as operands of {list(sizes)}: not multiples of"
                f" {WEIGHTS_MULTIPLE}, or of another sum"
            )
        index = np.ascontiguousarray(q).view(np.uint8).reshape(-1)
        places = np.flatnonzero(self._is_outlier[index])
        codes = self._codes[index]
        return stored_shard(self.codebook.ladder, codes, places, index[places], sizes)


def stored_shard(
    ladder: Sequence[int],
    codes: NDArray[np.uint8],
    places: NDArray[np.intp],
    exact: NDArray[np.uint8],
    sizes: Sequence[int],
) -> EncodedShard:
    """A shard of which every code is known.

    Args:
        codes: uint8 ``[N]``, of the top fidelity, those of outliers included.
        places: which weights are outliers, ascending.
        exact: their int8 values, as uint8.
        sizes: weights of each operand, multiples of 8 that add up to N.
    """
    operands = np.split(codes, np.cumsum(sizes)[:-1])
    planes = {}
    for bits, parts in zip(ladder, components(ladder), strict=True):
        below = ladder[-1] - bits
        planes[bits] = np.concatenate(
            [
                _packed(run >> np.uint8(below), parts)
                for operand in operands
                for run in _runs(operand)
            ]
        )
    return EncodedShard(planes, _outlier_list(places, exact, sizes))


def _outlier_list(
    places: NDArray[np.intp], exact: NDArray[np.uint8], sizes: Sequence[int]
) -> NDArray[np.uint8]:
    """Counts, positions and values of all operands' outliers, padded."""
    counts, positions, start = [], [], 0
    for size in sizes:
        low, high = np.searchsorted(places, (start, start + size))
        inside = places[low:high] - start
        segments = -(-size // SEGMENT_WEIGHTS)
        counts.append(np.bincount(inside // SEGMENT_WEIGHTS, minlength=segments))
        positions.append(inside % SEGMENT_WEIGHTS)
        start += size
    listed = (
        np.concatenate(counts).astype(COUNT).tobytes()
        + np.concatenate(positions).astype(POSITION).tobytes()
        + exact.tobytes()
    )
    return np.frombuffer(listed + bytes(-len(listed) % PADDED), dtype=np.uint8)


def best_codes(codebook: Codebook) -> NDArray[np.uint8]:
    """The top code of each int8 value, uint8 ``[256]``, indexed by the value's bits as uint8."""
    top = codebook.ladder[-1]
    alphabet = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
    codes = np.arange(1 << top)
    errors = np.zeros((len(alphabet), len(codes)))
    for bits in codebook.ladder[:-1]:
        missed = alphabet[:, None] - codebook.values[bits].astype(np.int64)[codes >> (top - bits)]
        errors += np.square(missed) * 4.0**bits  # one more bit divides the usual error by four
    missed = alphabet[:, None] - codebook.values[top].astype(np.int64)
    # The factor exceeds the sum of all other errors, so the top fidelity takes precedence.
    errors += np.square(missed) * (errors.max() + 1.0)
    codes8: NDArray[np.uint8] = errors.argmin(axis=1).astype(np.uint8)
    return codes8


def _runs(codes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """An operand's codes as ``[records, weights]``: the full records, then the short one."""
    full = codes.size - codes.size % RECORD
    runs = codes[:full].reshape(-1, RECORD), codes[full:].reshape(1, -1)
    return [run for run in runs if run.size]


def _packed(codes: NDArray[np.uint8], parts: Sequence[Component]) -> NDArray[np.uint8]:
    """What a plane has of some records, 1-D.

    Args:
        codes: ``[records, weights]``, down to the plane's lowest bit; not modified.
        parts: the components of the plane.
    """
    packed, left = [], sum(part.bits for part in parts)
    for part in parts:
        left -= part.bits
        per_byte = 8 // part.bits
        fields = codes >> np.uint8(left) & np.uint8((1 << part.bits) - 1)
        fields = fields.reshape(len(codes), per_byte, -1)
        shifts = np.arange(0, 8, part.bits, dtype=np.uint8)[:, None]
        packed.append(np.bitwise_or.reduce(fields << shifts, axis=1))
    return np.concatenate(packed, axis=1).reshape(-1)


def fidelity_values(encoder: Encoder) -> dict[int, NDArray[np.float32]]:
    """For each fidelity, the value that each int8 value decodes to, outliers included.

    Returns:
        Bits to float32 ``[256]``; the entry for q is at index ``q & 255``.
    """
    alphabet = np.arange(256, dtype=np.uint8).view(np.int8)
    codes = best_codes(encoder.codebook)
    exact = np.abs(alphabet.astype(np.int64)) > encoder.cut
    top = encoder.codebook.ladder[-1]
    return {
        bits: np.where(exact, alphabet, values[codes >> np.uint8(top - bits)]).astype(np.float32)
        for bits, values in encoder.codebook.values.items()
    }
