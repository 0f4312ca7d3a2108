"""Hidden states as blocks multiply them: uint8 around 128, with a scale for each token.

``connect`` and ``embed`` do this in their graphs; this is the same in NumPy, for hidden states that
come from elsewhere. Knows nothing of graphs.
"""

from __future__ import annotations

import numpy as np

from sti.arrays import ByteArray, Float32Array

_ZERO = 128
_LEVELS = np.float32(1 / 127)


def quantize_tokens(hidden: Float32Array, values: ByteArray, scales: Float32Array) -> None:
    """Quantize ``[S, B, d]`` token by token: a token's scale is its ``max |x| / 127``.

    Args:
        values: overwritten, ``[S, B, d]``; 128 for tokens of scale 0, whose products are 0 anyway.
        scales: overwritten, ``[S, B, 1]``.
    """
    np.multiply(np.abs(hidden).max(axis=-1, keepdims=True), _LEVELS, out=scales)
    levels = np.rint(hidden / np.where(scales > 0, scales, np.float32(1)))
    values[...] = np.clip(levels + _ZERO, 0, 255)
