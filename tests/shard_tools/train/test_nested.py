"""The nested code in the training loop is the pack's code, and gradients do not see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.quantization.grids import DEFAULT_GRID_SIGMAS, outlier_cut
from shard_tools.train.nested import NestedCode
from shard_tools.train.network import MATRICES, OUTPUTS_LAST, ElasticNetwork
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.stored_weights import float_operand
from tests.support.training import opened

SHAPE = Shape(hidden=64, heads=4, inner=128)
"""Heads of 16, so that the pack's scale of the queries is a power of two and rounds nothing."""
LADDER = (2, 3, 4, 6, 8)


def made(place: Path, *, shape: Shape = SHAPE, slices: int = 4) -> tuple[Path, Path]:
    """A checkpoint with weights beyond the grid in both kinds of blocks, and its pack."""
    write_checkpoint(place / "checkpoint", task="mean_classification", shape=shape, far=3)
    # On the grids of elastic checkpoints, whatever the weights are like.
    options = BuildOptions(slices=slices, ladder=LADDER, grid_sigmas=DEFAULT_GRID_SIGMAS)
    build(place / "checkpoint", place / "pack", options)
    return place / "checkpoint", place / "pack"


def as_stored(name: str, operand: NDArray[np.float32], slices: int) -> NDArray[np.float32]:
    """A pack's operand ``[parts, in, out]`` in the layout of the network."""
    turned = operand if name in OUTPUTS_LAST else operand.transpose(0, 2, 1)
    return turned.reshape(slices, -1, turned.shape[-1])


def coded(network: ElasticNetwork, name: str, *levels: int) -> torch.Tensor:
    assert network.code is not None
    return network.code.weights(name, torch.tensor(levels), torch.float32).detach()


@pytest.mark.parametrize("slices", [4, 2])
def test_training_sees_the_weights_that_the_pack_decodes_to(tmp_path: Path, slices: int) -> None:
    checkpoint, pack = made(tmp_path, slices=slices)
    counted = {"outliers": 0, "beyond": 0}
    with opened(checkpoint, slices=slices) as network, PackReader.open(pack) as reader:
        network.use_code(LADDER)
        assert network.code is not None
        for layer in range(SHAPE.layers):
            for name in MATRICES:
                kind = "ffn" if name in ("up", "down") else "attention"
                grid = network.code.grids[f"{layer}.{name}"]
                beyond = np.zeros(grid.codes.numel(), dtype=bool)
                beyond[grid.beyond.numpy()] = True
                beyond = beyond.reshape(grid.codes.shape)
                counted["beyond"] += int(beyond.sum())
                counted["outliers"] += int(((grid.codes - 128).abs() > outlier_cut()).sum())
                for level in range(len(LADDER)):
                    stored = float_operand(reader, layer, kind, name, level + 1)
                    expected = as_stored(name, stored, slices) * (4 if name == "q" else 1)
                    found = coded(network, f"{layer}.{name}", *[level] * slices).numpy()
                    assert (found[~beyond] == expected[~beyond]).all(), (layer, name, level)
                    np.testing.assert_allclose(found[beyond], expected[beyond], rtol=1e-6)
    assert counted["outliers"] > counted["beyond"] > 0


def test_queries_of_any_head_size_differ_from_the_packs_by_rounding_at_most(
    tmp_path: Path,
) -> None:
    checkpoint, pack = made(tmp_path, shape=Shape(hidden=32, heads=4))
    with opened(checkpoint) as network, PackReader.open(pack) as reader:
        network.use_code(LADDER)
        expected = as_stored("q", float_operand(reader, 0, "attention", "q", 2), 4)
        found = coded(network, "0.q", 1, 1, 1, 1).numpy() / np.sqrt(8)
    assert np.isclose(found, expected, rtol=1e-5).mean() > 0.999


def test_every_slice_has_the_fidelity_of_its_own_level(tmp_path: Path) -> None:
    with opened(write_checkpoint(tmp_path, shape=SHAPE)) as network:
        code = network.use_code(LADDER)
        for name in ("0.down", "1.k"):
            uniform = [coded(network, name, *[level] * 4) for level in range(len(LADDER))]
            mixed = coded(network, name, 3, 0, 4, 1)
            for number, level in enumerate((3, 0, 4, 1)):
                assert bool((mixed[number] == uniform[level][number]).all())
            assert bool(
                (coded(network, name, 2, 1) == torch.stack([uniform[2][0], uniform[1][1]])).all()
            )
            half = code.weights(name, torch.tensor([0, 0]), torch.bfloat16)
            assert bool((half == uniform[0][:2].bfloat16()).all())


def test_higher_fidelities_are_closer(tmp_path: Path) -> None:
    with opened(write_checkpoint(tmp_path, shape=SHAPE)) as network:
        network.use_code(LADDER)
        for name, matrix in network.matrices().items():
            errors = [
                float((coded(network, name, *[level] * 4) - matrix.detach()).square().mean())
                for level in range(len(LADDER))
            ]
            assert errors == sorted(errors, reverse=True)
            assert errors[0] > 10 * errors[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["0.o", "1.up"])
def test_gradients_go_straight_through_to_the_slices_in_use(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    with opened(write_checkpoint(tmp_path, shape=SHAPE)) as network:
        code, matrix = network.use_code(LADDER), network.matrices()[name]
        for width in (1, 3, 4):
            factors = torch.randn(width, *matrix.shape[1:]).to(dtype)
            found = (code.weights(name, torch.arange(width), dtype) * factors).sum()
            (gradient,) = torch.autograd.grad(found, [matrix])
            assert gradient.dtype == torch.float32
            assert bool((gradient[:width] == factors.float()).all())
            assert not gradient[width:].any()


def test_encoding_keeps_the_grids_and_refitting_moves_them(tmp_path: Path) -> None:
    with opened(write_checkpoint(tmp_path, shape=SHAPE)) as network:
        code, matrix = network.use_code(LADDER), network.matrices()["0.up"]
        before, step = coded(network, "0.up", 4, 4, 4, 4), code.grids["0.up"].step.clone()
        with torch.no_grad():
            matrix.mul_(1.5)
        assert bool((coded(network, "0.up", 4, 4, 4, 4) == before).all())
        code.encode()
        assert bool((code.grids["0.up"].step == step).all())
        assert bool(((coded(network, "0.up", 4, 4, 4, 4) - matrix).abs() <= 0.51 * step).all())
        code.refit()
        torch.testing.assert_close(code.grids["0.up"].step, 1.5 * step)


def test_a_weight_beyond_its_grid_stays_exact_at_every_fidelity() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(2, 32, 32, generator=generator))
    far = {(0, 3, 5): 100.0, (1, 31, 31): -70.0}
    with torch.no_grad():
        for place, value in far.items():
            matrix[place] = value
    for last in (frozenset[str](), frozenset({"m"})):
        code = NestedCode({"m": matrix}, outputs_last=last, ladder=(2, 8))
        code.refit()
        for levels in ([0, 0], [1, 0], [0]):
            found = code.weights("m", torch.tensor(levels), torch.float32).detach()
            for place, value in far.items():
                assert place[0] >= len(levels) or float(found[place]) == value
