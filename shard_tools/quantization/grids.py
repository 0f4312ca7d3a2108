"""Quantizing float matrices to int8 grids, one grid per output channel.

The step of each output channel's symmetric grid follows the spread of the channel
(``grid_sigmas * sigma / 127``), not its largest weight: otherwise a handful of weights far outside
would waste most of the grid on values that hardly occur. Weights beyond the grid are kept exact
separately, as rows of a small float matrix over the few input channels in which they cluster.
Where hardly any channel has weights far outside, as in models that were not trained, grids are
narrow instead, and end at the largest weight of each channel.

In: a float matrix. Out: a ``QuantizedMatrix``; the codebook and the planes are made from its int8
values (``shard_tools.quantization.codebook`` and ``encode``). Knows nothing of models, shards,
planes or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sti.errors import CheckpointError, InputError

DEFAULT_GRID_SIGMAS = 7.0
"""Wider grids make 8 bits coarser, narrower ones leave more weights to the side inputs.

For models whose channels have weights far outside, as trained ones have (1.5 % of MiniLM's).
Cosine of MiniLM embeddings to float at 2, 3, 4, 6 and 8 bits: 0.657, 0.900, 0.974, 0.9976 and
0.9990 for 7 sigma; 0.625, 0.894, 0.971, 0.9974 and 0.9987 for 8; 0.640, 0.899, 0.973, 0.9973 and
0.9993 for 6, whose codebook decodes more slowly.
"""
NARROW_GRID_SIGMAS = 2.5
"""For models without such weights: nearly every channel's grid then ends at its largest weight.

Bell-shaped weights (channels of 384) at 2, 3, 4, 6 and 8 bits, square error over that of 7 sigma:
0.96, 0.89, 0.79, 0.57 and 0.20. Outliers are then 1.1 % of the weights, and the codebook decodes
more slowly, which is why models that gain nothing at 2 bits keep 7 sigma.
"""
DEFAULT_OUTLIER_SIGMAS = 3.0
"""In MiniLM, outliers are 0.52 % of the weights and take 0.125 bits per weight.

A limit of 2.75 sigma costs 0.2 bits, for cosines of 0.665, 0.908, 0.976 and 0.9977 at 2, 3, 4 and 6
bits; 3.25 saves 0.06 bits, for 0.644, 0.904, 0.973 and 0.9978."""

_GRID_MAX = 127
_MOST_CODED = 104
"""Values beyond are outliers on any grid.

Every value has a code of its own at 8 bits, so a code of 2 bits stands for at most 64 of them: the
outermost ones would have to begin too close to the middle if all 127 were coded. Square error of
bell-shaped weights on narrow grids at 2 bits, with a limit of 96, 104, 112 and 127, over that of 7
sigma: 0.84, 0.96, 1.09 and 1.63; outliers are 1.8, 1.1, 0.6 and 0 % of the weights.
"""
_STRETCH = 1.5
_STRETCHED_SIGMAS = _STRETCH * DEFAULT_GRID_SIGMAS
"""A channel's grid is widened by up to that factor, and at least to this width, if that makes its
largest weight fit.

Only weights further out become side inputs. A stray weight thus makes one channel in hundreds a
little coarser, instead of costing every run a gathered input channel and a pass over the outputs.
"""
_WIDER = tuple(np.float32(1.0 + 0.005 * number) for number in range(1, 12))
"""Factors by which a narrow grid's step may grow where its weights then round better.

Square error of bell-shaped weights at 8 bits, in channels of 64 and of 384, over that without:
0.87 and 0.97.
"""
_NO_STEP = 1e-30
"""Step of a channel of zeros: tiny, as low fidelities have no code that means 0."""
# Entries beyond this many standard deviations do not count towards the spread of a channel.
_TRIM_SIGMAS = 5.0


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix quantized to int8; ``q * scale`` plus the side weights approximates it.

    Attributes:
        q: int8 ``[in, out]``; weights beyond the grid are clipped to +-127.
        scale: float32 ``[out]``, the grid step of each output channel, positive.
        side_index: int64 ``[k]``, ascending input channels with weights beyond the grid.
        side_weights: float32 ``[k, out]``, the remainder of those weights after ``q * scale``;
            elsewhere 0.
    """

    q: NDArray[np.int8]
    scale: NDArray[np.float32]
    side_index: NDArray[np.int64]
    side_weights: NDArray[np.float32]


def quantize_matrix(
    w: NDArray[np.float32], *, name: str = "matrix", grid_sigmas: float = DEFAULT_GRID_SIGMAS
) -> QuantizedMatrix:
    """Quantize every output channel (column) of ``w`` to its int8 grid.

    Args:
        w: float32 ``[in, out]``, not modified.
        name: the matrix, for messages.
        grid_sigmas: half the width of the grid, in standard deviations of a channel.

    Raises:
        CheckpointError: ``w`` is not a matrix or has weights that are not finite.
        InputError: ``grid_sigmas`` is not positive.
    """
    _check_sigmas("grid_sigmas", grid_sigmas)
    if w.ndim != 2 or w.size == 0:
        raise CheckpointError(f"{name}: expected a matrix, got shape {w.shape}")
    w = np.asarray(w, dtype=np.float32)
    if not np.isfinite(w).all():
        raise CheckpointError(f"{name}: has weights that are NaN or infinite; export it again")
    scale = grid_steps(w, grid_sigmas)
    if grid_sigmas <= NARROW_GRID_SIGMAS:
        scale = _closest_steps(w, scale)
    grid = w / scale
    np.rint(grid, out=grid)
    beyond = np.abs(grid) > _GRID_MAX
    np.clip(grid, -_GRID_MAX, _GRID_MAX, out=grid)
    side_index = np.flatnonzero(beyond.any(axis=1))
    kept = grid[side_index] * scale
    side_weights = np.where(beyond[side_index], w[side_index] - kept, np.float32(0.0))
    return QuantizedMatrix(grid.astype(np.int8), scale, side_index, side_weights)


def outlier_cut(
    *,
    grid_sigmas: float = DEFAULT_GRID_SIGMAS,
    outlier_sigmas: float = DEFAULT_OUTLIER_SIGMAS,
) -> int:
    """The largest absolute int8 value that planes code; larger values are outliers.

    Raises:
        InputError: a width is not positive, or no value would be left to code.
    """
    _check_sigmas("grid_sigmas", grid_sigmas)
    _check_sigmas("outlier_sigmas", outlier_sigmas)
    cut = min(round(_GRID_MAX * outlier_sigmas / grid_sigmas), _MOST_CODED)
    if cut < 2:
        raise InputError(
            f"outliers beyond {outlier_sigmas} sigma on a grid of {grid_sigmas} sigma leave "
            "nothing to code; narrow the grid or raise the outlier limit"
        )
    return cut


def grid_steps(
    w: NDArray[np.float32], grid_sigmas: float = DEFAULT_GRID_SIGMAS
) -> NDArray[np.float32]:
    """Grid step of each column of ``w [in, out]``, float32 ``[out]``, all positive."""
    spread = _spreads(w)
    step = spread * (grid_sigmas / _GRID_MAX)
    # A channel of zeros except for a few weights has no useful spread: its grid fits the largest.
    step = np.where(spread > 0, step, np.abs(w).max(axis=0) / _GRID_MAX)
    needed = np.abs(w).max(axis=0) / (_GRID_MAX * np.maximum(step, np.finfo(np.float32).tiny))
    stretch = max(_STRETCH, _STRETCHED_SIGMAS / grid_sigmas)
    step = np.where(needed <= stretch, step * np.maximum(needed, 1.0), step)
    usable = step >= np.finfo(np.float32).tiny
    return np.where(usable, step, _NO_STEP).astype(np.float32)


def _closest_steps(w: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each column the step, hardly wider than ``scale``, on whose grid its weights lie best."""
    best = scale
    least = _rounding_errors(w, scale)
    for factor in _WIDER:
        wider = scale * factor
        errors = _rounding_errors(w, wider)
        best = np.where(errors < least, wider, best)
        least = np.minimum(errors, least)
    return best


def _rounding_errors(w: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of squares of what rounding to the grid changes, by column; as if it had no end."""
    grid = w / scale
    off = (grid - np.rint(grid)).astype(np.float64)
    errors: NDArray[np.float64] = np.square(off).sum(axis=0) * np.square(scale.astype(np.float64))
    return errors


def far_channels(w: NDArray[np.float32]) -> int:
    """How many columns of ``w [in, out]`` have a weight beyond ``DEFAULT_GRID_SIGMAS``."""
    return int(np.count_nonzero(np.abs(w).max(axis=0) > DEFAULT_GRID_SIGMAS * _spreads(w)))


def _spreads(w: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation of each column without its far weights; 0 where none is left."""
    square = np.square(w, dtype=np.float64)
    mean_square = square.mean(axis=0)
    square[square > _TRIM_SIGMAS**2 * mean_square] = 0.0
    trimmed = np.count_nonzero(square, axis=0)
    spread: NDArray[np.float64] = np.sqrt(square.sum(axis=0) / np.maximum(trimmed, 1))
    return spread


def _check_sigmas(what: str, sigmas: float) -> None:
    if not (np.isfinite(sigmas) and sigmas > 0):
        raise InputError(f"{what} must be a positive number, got {sigmas}")
