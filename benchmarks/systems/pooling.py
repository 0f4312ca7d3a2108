"""Mean pooling and L2 norm, for systems that answer with hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array


def mean_pooled(hidden: NDArray[Any], lengths: Sequence[int]) -> Float32Array:
    """Embeddings ``[n, d]`` of hidden states ``[n, tokens, d]``; texts have ``lengths`` tokens."""
    pairs = zip(hidden, lengths, strict=True)
    pooled = np.stack([rows[:length].mean(axis=0) for rows, length in pairs])
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=np.float32)
