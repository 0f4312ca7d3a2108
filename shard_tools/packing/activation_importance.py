"""How much each plane of each shard matters, measured with activations on calibration text.

In: blocks on their grids, one after the other, and the codebook's values at every fidelity. Out:
a gain for each (plane, slice) of each block, in one unit for all: the relative squared error of
what the model's head reads. Two measurements make it:

- within a block, what each slice adds to the block's sum is computed at every fidelity. Its
  squared distance from what it adds at the top fidelity is the quantization error weighted by the
  activations it meets, softmax and activation function included; it is relative, token by token,
  to what the layer norm after the block normalizes. (Relative to the energy of all tokens together,
  the huge states of a few special tokens would hide all others.)
- between blocks, a probe with one block lowered runs on to the end, where it shows how much of
  that block's error arrives.

Used until a measured ranking replaces it. Knows no architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import Model, TokenBatch
from shard_tools.quantization.blocks import QuantizedBlock
from sti.arrays import Float32Array

_PROBE_TOKENS = 2400  # of all probes together, so that deep models do not take forever
_LEAST_PROBE_TOKENS = 64
_DIGITS = 4
_LEAST = 1e-30  # keeps a model that is all zeros from dividing by zero


class Meter:
    """Measures the blocks of one model, which must be given in the order of execution.

    Args:
        model: the float arithmetic.
        batch: calibration sentences.
        residents: resident tensors by their names in the pack.
        values: for each fidelity, ascending, float32 ``[256]``: what stands for each int8 value.
    """

    def __init__(
        self,
        model: Model,
        batch: TokenBatch,
        residents: Mapping[str, Float32Array],
        values: Mapping[int, Float32Array],
    ) -> None:
        self._model = model
        self._values = values
        *lower, self._top = values
        self._lower = tuple(lower)
        self._probed = self._lower[min(1, len(lower) - 1)] if lower else None
        self._lengths = batch.lengths
        self._hidden = model.embed(batch, residents)
        self._probe_lengths = _probe_lengths(batch.lengths, model.layers * len(model.kinds))
        # The first probe is the model at the top fidelity, each other one has one block lowered.
        self._probes = self._hidden[None, : sum(self._probe_lengths)]
        self._local: list[float] = []
        self._blocks = 0

    def measure(self, block: QuantizedBlock) -> NDArray[np.float64]:
        """Errors that the planes of a block take away, relative inside the block.

        Returns:
            float64 ``[planes, slices]``, not negative. The first row counts from absence.
        """
        self._blocks += 1
        operands = block.operands(self._values[self._top])
        exact = self._probes[:1]
        self._probes = self._through(block, operands, self._probes)
        reference = self._contributions(block, operands, self._hidden, self._lengths)
        summed = self._hidden + reference.sum(axis=0)
        weights = _token_weights(summed + block.vectors["bias"])
        errors = [_weighted(reference, weights)]
        for bits in self._lower:
            operands = block.operands(self._values[bits])
            missed = self._contributions(block, operands, self._hidden, self._lengths)
            missed -= reference
            errors.append(_weighted(missed, weights))
            if bits == self._probed:
                lowered = self._through(block, operands, exact)
                self._probes = np.concatenate([self._probes, lowered])
                self._local.append(float(errors[-1].sum()))
        errors.append(np.zeros_like(errors[0]))
        self._hidden = self._model.connect(summed, block.vectors)
        # A step up that happens to make the error larger counts as none, and so do the steps
        # below it as far as they reach: no error is less than that of a higher fidelity.
        falling = np.maximum.accumulate(np.stack(errors)[::-1], axis=0)[::-1]
        return np.asarray(falling[:-1] - falling[1:])

    def arriving(self) -> list[float]:
        """For each block measured, how much of its relative error the head gets to read.

        To be asked when all blocks are measured.
        """
        if self._probed is None:
            return [1.0] * self._blocks
        exact, *lowered = (
            self._model.readout(probe, self._probe_lengths) for probe in self._probes
        )
        energy = max(float(np.square(exact).sum(dtype=np.float64)), _LEAST)
        return [
            float(np.square(found - exact).sum(dtype=np.float64)) / energy / max(local, _LEAST)
            for found, local in zip(lowered, self._local, strict=True)
        ]

    def _through(
        self, block: QuantizedBlock, operands: Mapping[str, Float32Array], probes: Float32Array
    ) -> Float32Array:
        """Hidden states ``[probes, T, d]`` behind a block."""
        hidden = probes.reshape(-1, probes.shape[2])
        lengths = self._probe_lengths * len(probes)
        added = self._contributions(block, operands, hidden, lengths)
        summed = hidden + added.sum(axis=0)
        return self._model.connect(summed, block.vectors).reshape(probes.shape)

    def _contributions(
        self,
        block: QuantizedBlock,
        operands: Mapping[str, Float32Array],
        hidden: Float32Array,
        lengths: Sequence[int],
    ) -> Float32Array:
        """What each slice adds, ``[slices, T, d]``."""
        slices, name = self._model.slices, block.layout.name
        found = self._model.contributions(name, hidden, lengths, operands, block.vectors)
        if len(found) > slices:
            found = found.reshape(slices, -1, *hidden.shape).sum(axis=1)
        return found


def scaled_gains(taken: NDArray[np.float64], arriving: float) -> tuple[tuple[float, ...], ...]:
    """Gains as they stand in the manifest: one block's errors, as the head reads them, rounded."""
    return tuple(tuple(float(f"{gain * arriving:.{_DIGITS}g}") for gain in row) for row in taken)


def _probe_lengths(lengths: Sequence[int], blocks: int) -> tuple[int, ...]:
    """The first sentences, as many as probes can have: there is one probe a block."""
    most = max(_LEAST_PROBE_TOKENS, _PROBE_TOKENS // blocks)
    ends = np.cumsum(lengths)
    return tuple(lengths[: max(1, int(np.searchsorted(ends, most, side="right")))])


def _token_weights(summed: Float32Array) -> NDArray[np.float64]:
    """``[T]``: what turns squared errors of each token into a mean of relative ones."""
    centred = summed - summed.mean(axis=1, keepdims=True)
    energy = np.square(centred, dtype=np.float64).sum(axis=1)
    return np.asarray(1.0 / np.maximum(energy, _LEAST) / len(summed))


def _weighted(contributions: Float32Array, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted squared size of each slice's contribution, ``[slices]``."""
    squares = np.einsum("std,std->st", contributions, contributions)
    return np.asarray(squares @ weights)
