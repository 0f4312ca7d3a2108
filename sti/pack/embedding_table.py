"""Decoding rows of the token embedding table: 4-bit codes and scales -> float32.

In: rows as they are stored, and their layout. Out: floats. Knows nothing of files or tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sti.model.manifest import EmbeddingTable

_ROWS_AT_ONCE = 32


def decode_rows(raw: NDArray[np.uint8], table: EmbeddingTable, out: NDArray[np.float32]) -> None:
    """Decode token embeddings.

    Args:
        raw: uint8 ``[n, row_bytes]``, rows as they are stored; not modified.
        table: their layout.
        out: float32 ``[n, hidden]``, C-contiguous, overwritten; owned by the caller.
    """
    half = table.hidden // 2
    for start in range(0, len(raw), _ROWS_AT_ONCE):  # so that temporary arrays stay small
        some, target = raw[start : start + _ROWS_AT_ONCE], out[start : start + _ROWS_AT_ONCE]
        codes = some[:, :half]
        scales = np.ascontiguousarray(some[:, half:]).view("<f2")
        np.copyto(target[:, :half], codes & 15)
        np.copyto(target[:, half:], codes >> 4)
        groups = target.reshape(len(some), -1, table.group)
        groups -= 8.0
        groups *= scales[:, :, None]
