"""Which bucket a distance between two tokens is in: exact ones for small, shared for large ones.

In: how many buckets there are, and from which distance on the last one is shared. Out: buckets by
distance. As T5 has them, in float32 as transformers computes them. Pure.
"""

from __future__ import annotations

import math

import numpy as np

from sti.arrays import Int64Array


def buckets_by_distance(buckets: int, most_distance: int) -> Int64Array:
    """The bucket of each distance from ``-r`` to ``r``, new ``[2 r + 1]``.

    Distances beyond are in the bucket of the nearest: ``r`` is the least for which that is so.

    Args:
        buckets: of both directions; even, at least 4.
        most_distance: more than a quarter of the buckets.
    """
    each = buckets // 2
    exact = each // 2
    far = np.arange(most_distance + 1)
    scaled = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
    scaled = scaled / np.float32(math.log(most_distance / exact)) * np.float32(each - exact)
    shared = np.minimum(exact + scaled.astype(np.int64), each - 1)
    behind = np.where(far < exact, far, shared)
    reach = int(np.argmax(behind == behind[-1]))
    behind = behind[: reach + 1]
    return np.concatenate([behind[:0:-1], behind[:1], behind[1:] + each])
