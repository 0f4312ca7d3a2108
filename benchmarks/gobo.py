"""GOBO, the quantizer of the paper: what the nested code is compared with.

A tensor is fitted by one Gaussian. Weights whose log-density is at or below a limit are outliers
and kept exactly; the rest is represented by 2**bits centroids of the tensor's own. The centroids
begin as means of bins of equal population; then every weight goes to its nearest centroid and
every centroid to the mean of its weights, for as long as the summed absolute error falls.

One independent copy of the tensor for each number of bits; no grid, no nesting, decoded to float.
Knows nothing of models or packs. After Zadeh et al., "GOBO: Quantizing Attention-Based NLP Models
for Low Latency and Energy Efficient Inference", MICRO 2020, section IV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array, Float64Array

LOG_DENSITY = -4.0
_MOST_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class GoboTensor:
    """A quantized tensor.

    Attributes:
        weights: float32, what the tensor decodes to.
        outliers: how many weights are kept exactly.
        centroids: float64 ``[2**bits]``, ascending.
        iterations: how often the centroids were moved.
    """

    weights: Float32Array
    outliers: int
    centroids: Float64Array
    iterations: int

    def stored_bits(self, bits: int) -> int:
        """Bits of codes, centroids, and outliers as float32 with a 32-bit position."""
        return bits * self.weights.size + 32 * len(self.centroids) + 64 * self.outliers


def quantize(
    w: Float32Array, bits: int, *, log_density: float = LOG_DENSITY, unit: float = 1.0
) -> GoboTensor:
    """Quantize a tensor of any shape to ``bits`` bits.

    Args:
        w: float32, finite, not all alike; not changed.
        bits: 1..8.
        log_density: weights this unlikely, or less likely, are outliers.
        unit: what the weights of the checkpoint were multiplied by to get ``w``. A density depends
            on it, and so does which weights are outliers.
    """
    flat = w.reshape(-1).astype(np.float64)
    is_outlier = _log_density(flat / unit) <= log_density
    kept = np.sort(flat[~is_outlier])
    centroids, iterations = _fitted(kept, _means_of_equal_bins(kept, 1 << bits))
    nearest = centroids[np.searchsorted(_borders(centroids), flat)]
    weights = np.where(is_outlier, flat, nearest).astype(np.float32).reshape(w.shape)
    return GoboTensor(weights, int(is_outlier.sum()), centroids, iterations)


def _log_density(values: Float64Array) -> Float64Array:
    mean, deviation = values.mean(), values.std()
    scaled = (values - mean) / deviation
    found: Float64Array = -0.5 * np.square(scaled) - np.log(deviation * np.sqrt(2.0 * np.pi))
    return found


def _means_of_equal_bins(ordered: Float64Array, count: int) -> Float64Array:
    return np.array([part.mean() for part in np.array_split(ordered, count)])


def _borders(centroids: Float64Array) -> Float64Array:
    """Halfway between neighbours: where the nearest centroid changes."""
    middle: Float64Array = (centroids[1:] + centroids[:-1]) / 2.0
    return middle


def _fitted(ordered: Float64Array, centroids: Float64Array) -> tuple[Float64Array, int]:
    """Centroids moved while the summed absolute error falls, and how often that was.

    In sorted values each centroid serves a run, so sums over runs come from running sums.
    """
    running = np.concatenate(([0.0], np.cumsum(ordered)))
    best = _absolute_error(ordered, running, centroids)
    for iteration in range(_MOST_ITERATIONS):
        edges = _edges(ordered, centroids)
        counts = np.diff(edges)
        sums = np.diff(running[edges])
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centroids)
        error = _absolute_error(ordered, running, moved)
        if error >= best:
            return centroids, iteration
        best, centroids = error, moved
    return centroids, _MOST_ITERATIONS


def _edges(ordered: Float64Array, centroids: Float64Array) -> NDArray[np.intp]:
    """Where the run of each centroid begins and ends, ``[count + 1]``."""
    inner = np.searchsorted(ordered, _borders(centroids))
    return np.concatenate(([0], inner, [len(ordered)]))


def _absolute_error(ordered: Float64Array, running: Float64Array, centroids: Float64Array) -> float:
    """Summed distance of all values from their nearest centroids."""
    edges = _edges(ordered, centroids)
    start, stop = edges[:-1], edges[1:]
    middle = np.clip(np.searchsorted(ordered, centroids), start, stop)
    below = centroids * (middle - start) - (running[middle] - running[start])
    above = (running[stop] - running[middle]) - centroids * (stop - middle)
    return float((below + above).sum())
