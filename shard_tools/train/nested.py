"""The nested code inside the training loop: forward at a fidelity, gradients straight through.

In: float weights cut into slices, and the fidelity of each slice. Out: the weights as the pack's
code would give them back, with gradients that pass unchanged (straight-through estimator: Bengio et
al., 2013). Grids and codebook are those of ``shard_tools.quantization.grids`` and
``shard_tools.quantization.codebook``, fitted again every so often as the weights move. Knows
nothing of layers, tasks or data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import Encoder, fidelity_values
from shard_tools.quantization.grids import grid_steps, outlier_cut

Tensor = torch.Tensor
_GRID_MAX = 127


@dataclass(slots=True)
class Grid:
    """The grid of one matrix, in the matrix's own layout.

    Attributes:
        step: float32, broadcasts against the weights.
        codes: int32, the int8 value of each weight plus 128, as of the last ``NestedCode.encode``.
        beyond: int64 ``[k]``, flat places of weights outside the grid, which stay exact.
    """

    step: Tensor
    codes: Tensor
    beyond: Tensor


class NestedCode:
    """One codebook and the grids of all matrices of a model.

    Args:
        matrices: name to parameter ``[slices, rows, columns]``.
        outputs_last: the matrices whose output channels are the columns; of all others they are
            the rows of every slice.
        ladder: the fidelities to train for.

    Attributes:
        ladder: as given.
        grids: by the matrices' names.

    Call ``refit`` before the first use and whenever the weights have moved; call ``encode`` after
    every step of the optimizer. Not thread-safe.
    """

    def __init__(
        self,
        matrices: Mapping[str, torch.nn.Parameter],
        *,
        outputs_last: frozenset[str],
        ladder: Sequence[int],
    ) -> None:
        self._matrices = dict(matrices)
        self._outputs_last = outputs_last
        self.ladder = tuple(ladder)
        self.grids: dict[str, Grid] = {}
        self._table = torch.zeros(len(self.ladder) * 256)

    @torch.no_grad()
    def refit(self) -> None:
        """Fit grids and codebook to the weights as they are."""
        counts = np.zeros(256, dtype=np.int64)
        for name, matrix in self._matrices.items():
            step = self._steps(name, matrix)
            codes = torch.empty(matrix.shape, dtype=torch.int32)
            self.grids[name] = Grid(step, codes, torch.empty(0, dtype=torch.int64))
        self.encode()
        for grid in self.grids.values():
            values = (grid.codes - 128).to(torch.int8).numpy()
            counts += histogram(values)
        cut = outlier_cut()
        codebook = build_codebook(counts, cut=cut, ladder=self.ladder)
        values_of = fidelity_values(Encoder(codebook, cut=cut))
        # Tables run over the int8 value plus 128; ``fidelity_values`` over its bits as uint8.
        rolled = [np.roll(values_of[bits], 128) for bits in self.ladder]
        self._table = torch.from_numpy(np.concatenate(rolled))

    def _steps(self, name: str, matrix: Tensor) -> Tensor:
        array: NDArray[np.float32] = matrix.detach().numpy()
        slices, rows, columns = array.shape
        if name in self._outputs_last:
            return torch.from_numpy(grid_steps(array.reshape(slices * rows, columns)))
        flat = array.reshape(slices * rows, columns).T
        return torch.from_numpy(grid_steps(flat)).reshape(slices, rows, 1)

    @torch.no_grad()
    def encode(self) -> None:
        """Put the weights as they are on their grids."""
        for name, matrix in self._matrices.items():
            grid = self.grids[name]
            scaled = matrix / grid.step
            scaled.round_()
            grid.beyond = (scaled.abs() > _GRID_MAX).flatten().nonzero()[:, 0]
            scaled.clamp_(-_GRID_MAX, _GRID_MAX).add_(_GRID_MAX + 1)
            grid.codes.copy_(scaled)

    def weights(self, name: str, levels: Tensor, dtype: torch.dtype) -> Tensor:
        """The first slices of a matrix as the code gives them back.

        Args:
            name: the matrix.
            levels: int64 ``[width]``: place in the ladder of each slice's fidelity.
            dtype: of the result.

        Returns:
            ``[width, rows, columns]``; its gradient goes to the matrix.
        """
        found: Tensor = _Coded.apply(
            self._matrices[name], self.grids[name], self._table, levels, dtype
        )
        return found


class _Coded(torch.autograd.Function):
    """Look the codes up; let gradients through as if nothing had happened."""

    @staticmethod
    def forward(
        ctx: Any,
        matrix: Tensor,
        grid: Grid,
        table: Tensor,
        levels: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        width = len(levels)
        ctx.shape, ctx.width = matrix.shape, width
        codes = grid.codes[:width]
        first = int(levels[0])
        if bool((levels == first).all()):
            table = table[first * 256 : first * 256 + 256]
        else:
            codes = codes + (levels * 256).to(torch.int32).reshape(-1, 1, 1)
        found = torch.index_select(table, 0, codes.flatten()).reshape(codes.shape)
        found.mul_(grid.step[:width] if grid.step.dim() > 1 else grid.step)
        used = grid.beyond[grid.beyond < codes.numel()]
        if len(used):
            found.view(-1)[used] = matrix.detach().reshape(-1)[used]
        return found.to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.width == ctx.shape[0]:
            return gradient.float(), None, None, None, None
        whole = torch.zeros(ctx.shape)
        whole[: ctx.width] = gradient
        return whole, None, None, None, None
