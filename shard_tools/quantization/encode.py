"""Encoding int8 weights: planes and outliers of the nested code.

The byte layout is specified in ``sti.codec.codebook``. In: the flat int8 weights of a shard, a
codebook, and where outliers begin. Out: an ``EncodedShard``. Each value gets the code that fits it
best: closest at the top of the ladder, then closest at the lower fidelities, their errors weighted
by what is usual there. Knows nothing of models, matrices or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sti.codec.codebook import Codebook, plane_bytes
from sti.codec.decoder import Decoder
from sti.codec.lookup import SEGMENT_WEIGHTS
from sti.codec.tables import Component, components
from sti.errors import InputError


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """A shard as it is stored.

    Attributes:
        planes: for each fidelity, the uint8 bytes of the plane that raises a shard to it.
        outliers: uint8, the record of the outliers: counts, positions and exact values.
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
        self._components = components(codebook.ladder)

    def encode(self, q: NDArray[np.int8]) -> EncodedShard:
        """Encode one shard.

        Args:
            q: int8 ``[N]``, N a multiple of 8; not modified.

        Raises:
            PackFormatError: N is not a multiple of 8.
        """
        ladder = self.codebook.ladder
        sizes = plane_bytes(ladder, q.size)
        index = np.ascontiguousarray(q).view(np.uint8).reshape(-1)
        codes = self._codes[index]
        planes = {}
        for bits, parts, size in zip(ladder, self._components, sizes, strict=True):
            plane = np.empty(size, dtype=np.uint8)
            left = ladder[-1] - bits + sum(part.bits for part in parts)
            for part in parts:
                left -= part.bits
                start = part.start * q.size // 8
                stop = start + part.bits * q.size // 8
                plane[start:stop] = _packed(codes >> np.uint8(left), part)
            planes[bits] = plane
        return EncodedShard(planes, _outlier_record(index, np.flatnonzero(self._is_outlier[index])))


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


def _packed(codes: NDArray[np.uint8], part: Component) -> NDArray[np.uint8]:
    """The lowest bits of the codes as the bytes of a component."""
    low = (codes & np.uint8((1 << part.bits) - 1)).reshape(-1, 4)
    quads = low[:, 0].copy()
    for weight in range(1, 4):
        quads |= low[:, weight] << np.uint8(weight * part.bits)
    if part.bits == 2:
        return quads
    halves = quads.reshape(2, -1)
    low_half: NDArray[np.uint8] = halves[0]
    low_half |= halves[1] << np.uint8(4)
    return low_half


def _outlier_record(values: NDArray[np.uint8], places: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The outlier record: counts, positions and values, padded to a multiple of 4 bytes."""
    segments = -(-values.size // SEGMENT_WEIGHTS)
    counts = np.bincount(places // SEGMENT_WEIGHTS, minlength=segments).astype("<u4")
    positions = (places % SEGMENT_WEIGHTS).astype("<u2")
    record = counts.tobytes() + positions.tobytes() + values[places].tobytes()
    return np.frombuffer(record + bytes(-len(record) % 4), dtype=np.uint8)


def fidelity_values(encoder: Encoder) -> dict[int, NDArray[np.float32]]:
    """For each fidelity, the value that each int8 value decodes to, outliers included.

    Returns:
        Bits to float32 ``[256]``; the entry for q is at index ``q & 255``.
    """
    alphabet = np.arange(256, dtype=np.uint8).view(np.int8)
    encoded = encoder.encode(alphabet)
    decoder = Decoder(encoder.codebook)
    found, planes = {}, []
    for bits in encoder.codebook.ladder:
        planes.append(encoded.planes[bits])
        out = np.empty(256, dtype=np.int8)
        decoder.decode(planes, encoded.outliers, out)
        found[bits] = out.astype(np.float32)
    return found
