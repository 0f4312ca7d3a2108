"""Encoding token embeddings at 4 bits, as rows that can be read one by one from storage.

In: float rows and the number of the first. Out: for each row its packed codes, the float16 scales
of its groups and its checksum, in the layout that ``sti.codec.word_rows`` specifies. A group's
scale is the one with the least squared error among several clippings of the group's range. Of the
16 codes 8 are below zero and 7 above; the sign of the scale puts the longer side where the group's
largest weight is. Knows nothing of tokens or files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sti.codec.word_rows import CHECKSUM, row_bytes, row_checksum

GROUP = 32
"""Weights that share a scale, where the width is divisible by it."""

_CUTS = np.linspace(1.0, 0.72, 8, dtype=np.float32)
"""Fractions of a group's largest weight that are tried as the value of the lowest code."""

_CHUNK_GROUPS = 16384


def group_size(hidden: int) -> int:
    """The largest divisor of ``hidden`` up to ``GROUP``."""
    return next(size for size in range(min(GROUP, hidden), 0, -1) if hidden % size == 0)


def encode_rows(rows: NDArray[np.float32], *, group: int, first: int) -> NDArray[np.uint8]:
    """Encode rows.

    Args:
        rows: float32 ``[n, hidden]``, ``hidden`` even and divisible by ``group``; not modified.
        group: weights that share a scale.
        first: the number of the first of them in the table.

    Returns:
        uint8 ``[n, row_bytes]``, a new array.
    """
    count, hidden = rows.shape
    half = hidden // 2
    out = np.empty((count, row_bytes(hidden, group)), dtype=np.uint8)
    end = out.shape[1] - CHECKSUM.itemsize
    step = max(1, _CHUNK_GROUPS * group // hidden)
    for start in range(0, count, step):
        part = rows[start : start + step]
        codes, scales = _encode_groups(part.reshape(-1, group))
        codes = codes.reshape(len(part), hidden)
        target = out[start : start + step]
        np.bitwise_or(codes[:, :half], codes[:, half:] << 4, out=target[:, :half])
        target[:, half:end] = scales.reshape(len(part), -1).view(np.uint8)
    checksums = [row_checksum(first + place, row) for place, row in enumerate(out[:, :end])]
    out[:, end:] = np.array(checksums, dtype=CHECKSUM)[:, None].view(np.uint8)
    return out


def _encode_groups(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes ``[n, group]`` and scales ``[n]`` with the least squared error found."""
    at = np.abs(values).argmax(axis=1)
    extreme = np.take_along_axis(values, at[:, None], axis=1)[:, 0]
    best_error = np.full(len(values), np.inf, dtype=np.float32)
    best_scale = np.zeros(len(values), dtype=np.float32)
    for cut in _CUTS:
        codes = _codes(values, extreme * (cut / -8.0))
        # The least-squares scale for these codes is at least as good as the scale they came from.
        norm = np.einsum("ng,ng->n", codes, codes)
        dot = np.einsum("ng,ng->n", codes, values)
        scale = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
        scale = _stored(scale).astype(np.float32)
        missed = codes * scale[:, None]
        missed -= values
        error = np.einsum("ng,ng->n", missed, missed)
        better = error < best_error
        np.copyto(best_error, error, where=better)
        np.copyto(best_scale, scale, where=better)
    return (_codes(values, best_scale) + 8).astype(np.uint8), _stored(best_scale)


def _codes(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest codes, -8 to 7, as float32 ``[n, group]``."""
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=np.abs(scale) > 1e-30)
    codes = values * inverse[:, None]
    np.rint(codes, out=codes)
    np.clip(codes, -8.0, 7.0, out=codes)
    return codes


def _stored(scale: NDArray[np.float32]) -> NDArray[np.float16]:
    limit = float(np.finfo(np.float16).max)
    return np.clip(scale, -limit, limit).astype("<f2")
