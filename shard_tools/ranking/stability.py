"""How far a ranking can be trusted: whether other calibration texts would give the same one. Pure.

In: for each shard one value per text, whose mean is the shard's importance. Out: rank correlations
between random halves of the texts and between bootstrap resamples and the whole, and how much of
the variance between shards is more than noise. Knows nothing of where the values come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shard_tools.measuring.metrics import spearman
from sti.arrays import Float64Array

SPLITS = 50
RESAMPLES = 200
_LOW = 0.05


@dataclass(frozen=True, slots=True)
class Stability:
    """How stable one ranking of shards is."""

    halves: float
    """Mean Spearman correlation of the rankings by two random halves of the texts."""
    bootstrap: float
    """Spearman correlation with the whole that 95 of 100 bootstrap resamples reach."""
    beyond_noise: float
    """Share of the variance between shards that sampling of the texts does not explain, 0 to 1."""

    def to_json(self) -> dict[str, float]:
        """Rounded to three decimals."""
        return {
            "spearman_halves": round(self.halves, 3),
            "spearman_bootstrap_low": round(self.bootstrap, 3),
            "beyond_noise": round(self.beyond_noise, 3),
        }


def stability(values: NDArray[np.float32], *, seed: int) -> Stability:
    """Stability of the ranking by ``values.mean(axis=-1)``.

    Args:
        values: ``[..., n]``: a shard's value for each text. The leading extents are flattened.
    """
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    count = flat.shape[1]
    rng = np.random.default_rng(seed)
    means = flat.mean(axis=1)
    correlations = []
    for _ in range(SPLITS):
        mixed = rng.permutation(count)
        first, second = flat[:, mixed[: count // 2]], flat[:, mixed[count // 2 :]]
        correlations.append(spearman(first.mean(axis=1), second.mean(axis=1)))
    weights = rng.multinomial(count, np.full(count, 1.0 / count), RESAMPLES) / count
    resampled = weights @ flat.T
    reached = [spearman(row, means) for row in resampled]
    return Stability(
        halves=float(np.mean(correlations)),
        bootstrap=float(np.quantile(reached, _LOW)),
        beyond_noise=_beyond_noise(flat, means),
    )


def _beyond_noise(flat: Float64Array, means: Float64Array) -> float:
    """One minus the sampling variance of the means over the variance between them.

    What a text does to all shards alike changes no ranking and is taken out.
    """
    own = flat - flat.mean(axis=0)
    noise = float((own.var(axis=1, ddof=1) / flat.shape[1]).mean())
    spread = float(means.var(ddof=1)) if len(means) > 1 else 0.0
    return max(0.0, 1.0 - noise / spread) if spread > 0.0 else 0.0
