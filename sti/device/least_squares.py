"""Non-negative costs, fitted to times by least squares. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

K = TypeVar("K", bound=Hashable)


def fit_costs(
    terms: ArrayLike, seconds: ArrayLike, *, scale: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Coefficients ``c >= 0`` that minimize ``sum(((terms @ c - seconds) / scale) ** 2)``.

    Exact: the optimum is the best of the unconstrained optima of all subsets of terms, of which
    there are few.

    Args:
        terms: ``[n, k]``, ``k`` at most 8.
        seconds: ``[n]``.
        scale: ``[n]``, all above zero: what errors are relative to; ``seconds`` by default.

    Returns:
        float64 ``[k]``; terms that do not help are zero. Where several solutions fit equally well,
        the one with the fewest terms.
    """
    unit = np.asarray(seconds if scale is None else scale, dtype=np.float64)
    y = np.asarray(seconds, dtype=np.float64) / unit
    a = np.asarray(terms, dtype=np.float64) / unit[:, None]
    size = np.sqrt((a * a).sum(axis=0))
    size[size == 0] = 1.0
    a /= size
    best, least = np.zeros(a.shape[1]), float((y * y).sum())
    for count in range(1, a.shape[1] + 1):
        for subset in combinations(range(a.shape[1]), count):
            chosen = list(subset)
            found = np.linalg.lstsq(a[:, chosen], y, rcond=None)[0]
            error = float(((a[:, chosen] @ found - y) ** 2).sum())
            if (found >= 0).all() and error < least - 1e-12:
                least = error
                best = np.zeros(a.shape[1])
                best[chosen] = found
    costs: NDArray[np.float64] = best / size
    return costs
