"""How far the tokens of a text are apart, as graphs take it.

In: a pack's resident tensors; how many tokens. Out: for each two of them which bias of a head their
attention takes. Every back end needs it. Knows nothing of what biases are.
"""

from __future__ import annotations

import numpy as np

from sti.arrays import Int64Array
from sti.backend.interface import ResidentTensors
from sti.model.manifest import POSITION_BIAS


def reach_of(source: ResidentTensors) -> int | None:
    """The largest distance that a pack's attention tells apart; None where it knows none."""
    for kind in source.manifest.kinds:
        if kind.by_distance:
            entries: int = source.resident(f"layer.0.{kind.name}.{POSITION_BIAS}").shape[-1]
            return entries // 2
    return None


def token_distances(tokens: int, reach: int) -> Int64Array:
    """How far token ``j`` is behind token ``i``, new ``[tokens, tokens]`` of 0 to ``2 * reach``.

    From ``-reach`` on, which is entry 0; those that are further apart count as that far.
    """
    places = np.arange(tokens)
    apart = places - places[:, None]
    np.clip(apart, -reach, reach, out=apart)
    apart += reach
    return apart
