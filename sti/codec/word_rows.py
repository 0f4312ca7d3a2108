"""Decoding rows of the token embedding table: checked 4-bit codes and scales -> float32.

A row of h weights in groups of g is stored as h/2 bytes of codes (byte i holds weights i, in its
low half, and i + h/2), h/g float16 scales, and the CRC-32 of its number and of these bytes; all
little endian, the number as uint32. A weight is its code less 8, times the scale of its group.

In: rows as they are stored, and their numbers. Out: floats. Knows nothing of files or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.codec.decoders import kernel

CHECKSUM = np.dtype("<u4")
"""The last bytes of a row."""

_ROWS_AT_ONCE = 32


def row_bytes(hidden: int, group: int) -> int:
    """Bytes of one stored row."""
    return hidden // 2 + hidden // group * 2 + CHECKSUM.itemsize


def row_checksum(number: int, row: ByteArray) -> int:
    """The checksum of row ``number``, whose bytes before it are ``row``, 1-D contiguous."""
    return crc32(row, crc32(number.to_bytes(4, "little")))


def decode_rows(
    raw: ByteArray, ids: Int64Array, group: int, out: Float32Array, *, check: bool = True
) -> int | None:
    """Decode token embeddings.

    Args:
        raw: uint8 ``[n, row_bytes]``, C-contiguous, rows as they are stored; not modified.
        ids: int64 ``[n]``, the number of each row in its table.
        group: weights that share a scale.
        out: float32 ``[n, hidden]``, C-contiguous, overwritten; owned by the caller.
        check: whether to check the rows' checksums.

    Returns:
        The first place whose checksum does not match; nothing is promised of ``out`` then. None if
        there is none.

    Raises:
        BackendError: ``STI_KERNEL`` names a path that does not work here.
    """
    chosen = kernel()
    if chosen is None:
        return portable_rows(raw, ids, group, out, check=check)
    native, path = chosen
    found: int | None = native.native_rows(raw, ids, group, out, path=path, check=check)
    return found


def portable_rows(
    raw: ByteArray, ids: Int64Array, group: int, out: Float32Array, *, check: bool = True
) -> int | None:
    """As ``decode_rows``, in NumPy: what the native kernel must give to the bit."""
    if check:
        bad = _first_bad(raw, ids.tolist())
        if bad is not None:
            return bad
    hidden = out.shape[1]
    half, end = hidden // 2, raw.shape[1] - CHECKSUM.itemsize
    for start in range(0, len(raw), _ROWS_AT_ONCE):  # so that temporary arrays stay small
        some, target = raw[start : start + _ROWS_AT_ONCE], out[start : start + _ROWS_AT_ONCE]
        codes = some[:, :half]
        scales = np.ascontiguousarray(some[:, half:end]).view("<f2")
        np.copyto(target[:, :half], codes & 15)
        np.copyto(target[:, half:], codes >> 4)
        groups = target.reshape(len(some), -1, group)
        groups -= 8.0
        groups *= scales[:, :, None]
    return None


def _first_bad(raw: ByteArray, ids: Sequence[int]) -> int | None:
    """The first row whose checksum is not its own."""
    stored = np.ascontiguousarray(raw[:, -CHECKSUM.itemsize :]).view(CHECKSUM)[:, 0].tolist()
    for place, (row, number, checksum) in enumerate(
        zip(raw[:, : -CHECKSUM.itemsize], ids, stored, strict=True)
    ):
        if row_checksum(number, row) != checksum:
            return place
    return None
