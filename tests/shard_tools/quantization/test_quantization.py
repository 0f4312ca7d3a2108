"""Grids and codebooks: how float weights become int8 values, and int8 values nested intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import Encoder, best_codes, fidelity_values
from shard_tools.quantization.grids import (
    NARROW_GRID_SIGMAS,
    QuantizedMatrix,
    far_channels,
    outlier_cut,
    quantize_matrix,
)
from sti.arrays import Float32Array
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import NumpyDecoder
from sti.errors import CheckpointError, InputError, PackFormatError
from tests.support.codes import ladders, wild_codebook
from tests.support.groups import rooms_for, stored_group


def bell(*shape: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(0.04)


def restored(grid: QuantizedMatrix) -> Float32Array:
    w = grid.q * grid.scale
    w[grid.side_index] += grid.side_weights
    return w


# Grids


@given(
    w=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.floats(-100, 100, width=32),
    ),
    grid_sigmas=st.sampled_from([1.0, 6.0, 7.0, 8.0, 20.0]),
)
def test_grid_and_side_weights_restore_any_matrix(w: Float32Array, grid_sigmas: float) -> None:
    grid = quantize_matrix(w, grid_sigmas=grid_sigmas)
    assert grid.q.dtype == np.int8
    assert grid.q.min() >= -127
    assert (grid.scale > 0).all()
    outside = np.zeros(w.shape, dtype=bool)
    outside[grid.side_index] = grid.side_weights != 0
    tolerance = np.where(outside, 1e-6 * np.abs(w), (0.5 + 1e-4) * grid.scale)
    assert (np.abs(restored(grid) - w) <= tolerance + 1e-30).all()
    assert (np.abs(w) >= 127.499 * grid.scale)[outside].all()


def test_step_follows_the_spread_of_each_channel() -> None:
    spreads = np.array([0.01, 0.1, 1.0], dtype=np.float32)
    w = bell(20_000, 3) / np.float32(0.04) * spreads
    grid = quantize_matrix(w, grid_sigmas=8.0)
    np.testing.assert_allclose(grid.scale, 8 * spreads / 127, rtol=0.02)


def test_few_large_weights_go_to_the_side_and_leave_the_grid_alone() -> None:
    w = bell(768, 64)
    plain = quantize_matrix(w)
    spiked = w.copy()
    spiked[5, :] = 40 * 0.04
    spiked[700, 3] = -2.0
    grid = quantize_matrix(spiked)
    np.testing.assert_allclose(grid.scale, plain.scale, rtol=0.01)
    assert grid.side_index.tolist() == [5, 700]
    assert grid.side_index.dtype == np.int64
    assert np.count_nonzero(grid.side_weights[1]) == 1
    np.testing.assert_allclose(restored(grid)[[5, 700]][:, 3], [1.6, -2.0], rtol=1e-6)
    assert (grid.q[5] == 127).all()


def test_a_weight_just_beyond_its_grid_widens_it_and_one_far_beyond_does_not() -> None:
    w = bell(10_000, 3)
    step = quantize_matrix(w).scale
    w[3, 0] = 180 * step[0]
    w[4, 1] = -200 * step[1]
    grid = quantize_matrix(w)
    assert grid.q[3, 0] == 127
    np.testing.assert_allclose(grid.scale / step, [180 / 127, 1, 1], rtol=0.01)
    assert grid.side_index.tolist() == [4]
    np.testing.assert_allclose(restored(grid)[4, 1], w[4, 1], rtol=1e-6)


def test_narrow_grids_end_at_the_largest_weight_of_each_channel() -> None:
    w = bell(768, 64)
    w[3, 0] = 9 * 0.04
    grid = quantize_matrix(w, grid_sigmas=NARROW_GRID_SIGMAS)
    np.testing.assert_allclose(grid.scale, np.abs(w).max(axis=0) / 127, rtol=0.1)
    assert grid.side_index.size == 0


def test_channels_with_weights_far_outside_are_counted() -> None:
    w = bell(768, 64)
    assert far_channels(w) == 0
    w[5, :3] = 8 * 0.04
    w[:, 7] = 0.0
    assert far_channels(w) == 3


def test_codes_of_narrow_grids_are_no_worse_than_those_of_wide_ones() -> None:
    w, found = bell(384, 192), []
    for sigmas in (7.0, NARROW_GRID_SIGMAS):
        grid, cut = quantize_matrix(w, grid_sigmas=sigmas), outlier_cut(grid_sigmas=sigmas)
        counts = histogram(grid.q)
        values = fidelity_values(Encoder(build_codebook(counts, cut=cut), cut=cut))
        coded = (values[bits][grid.q.view(np.uint8)] * grid.scale for bits in DEFAULT_LADDER)
        found.append([float(np.square(some - w).mean()) for some in coded])
        assert (np.abs(grid.q.astype(int)) > cut).mean() < 0.012
    wide, narrow = np.array(found)
    assert (narrow <= wide).all()
    assert narrow[-1] < 0.25 * wide[-1]


def test_matrix_inside_its_grid_has_no_side_weights() -> None:
    grid = quantize_matrix(np.clip(bell(100, 10), -0.1, 0.1))
    assert grid.side_index.shape == (0,)
    assert grid.side_weights.shape == (0, 10)


def test_channels_without_spread_are_kept() -> None:
    w = np.zeros((1000, 5), dtype=np.float32)
    w[7, 1] = 0.3  # one weight
    w[:, 2] = 0.5  # all alike
    w[:, 3] = 1e-42  # too small for a step
    w[:, 4] = -1e30  # squares beyond float32
    grid = quantize_matrix(w)
    assert grid.scale[0] == grid.scale[3] == np.float32(1e-30)  # next to nothing at any fidelity
    assert (grid.q[:, 0] == 0).all()
    np.testing.assert_allclose(restored(grid)[:, [1, 2, 4]], w[:, [1, 2, 4]], rtol=0.03)
    assert np.isfinite(restored(grid)).all()


def test_input_is_not_changed() -> None:
    w = bell(64, 8)
    w[0, 0] = 9.0
    before = w.copy()
    quantize_matrix(w)
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    w = bell(16, 16)
    w[3, 4] = bad
    with pytest.raises(CheckpointError, match=r"layer 3 up: .*NaN or infinite"):
        quantize_matrix(w, name="layer 3 up")


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4, 0), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match="expected a matrix"):
        quantize_matrix(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("sigmas", [0.0, -1.0, np.nan, np.inf])
def test_widths_must_be_positive(sigmas: float) -> None:
    with pytest.raises(InputError):
        quantize_matrix(bell(4, 4), grid_sigmas=sigmas)
    with pytest.raises(InputError):
        outlier_cut(grid_sigmas=sigmas)
    with pytest.raises(InputError):
        outlier_cut(outlier_sigmas=sigmas)


def test_outlier_cut_is_three_sigma_on_the_grid() -> None:
    assert outlier_cut(grid_sigmas=8.0) == 48
    assert outlier_cut(grid_sigmas=7.0) == 54
    assert outlier_cut(grid_sigmas=2.0) == 104  # beyond, low fidelities would suffer
    with pytest.raises(InputError, match="nothing to code"):
        outlier_cut(grid_sigmas=1000.0)


# Books


def counted(sigma: float, *, tails: float = 12.0) -> NDArray[np.int64]:
    """Counts of a bell of this spread on the grid."""
    values = np.random.default_rng(1).standard_t(tails, size=1 << 17) * sigma
    return histogram(np.clip(np.rint(values), -127, 127).astype(np.int8))


def errors(codebook: Codebook, counts: NDArray[np.int64], cut: int) -> dict[int, float]:
    """Mean square error of each fidelity over the values it codes."""
    values = np.arange(-cut, cut + 1)
    share = counts[values + 128] / counts[values + 128].sum()
    codes = best_codes(codebook)[values.astype(np.int8).view(np.uint8)]
    found = {}
    for bits in codebook.ladder:
        coded = codebook.values[bits].astype(np.int64)[codes >> (codebook.ladder[-1] - bits)]
        found[bits] = float((share * np.square(coded - values)).sum())
    return found


def least_error(counts: NDArray[np.int64], cut: int, bits: int) -> float:
    """The least a single fidelity can have, by Lloyd's iteration from equal shares."""
    values = np.arange(-cut, cut + 1)
    share = counts[values + 128] / counts[values + 128].sum()
    centres = np.interp((np.arange(1 << bits) + 0.5) / (1 << bits), np.cumsum(share), values)
    for _ in range(300):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        total = np.bincount(nearest, share, minlength=1 << bits)
        moment = np.bincount(nearest, share * values, minlength=1 << bits)
        centres = np.where(total > 0, moment / np.where(total > 0, total, 1), centres)
    nearest = np.abs(values[:, None] - centres).argmin(axis=1)
    return float((share * np.square(values - centres[nearest])).sum())


def test_histogram_counts_every_value_at_its_place() -> None:
    q = np.array([[-128, -127, 0], [0, 5, 127]], dtype=np.int8)
    found = histogram(q)
    assert {int(i) - 128: int(found[i]) for i in np.flatnonzero(found)} == {
        -128: 1,
        -127: 1,
        0: 2,
        5: 1,
        127: 1,
    }


@pytest.mark.parametrize("seed", range(8))
def test_cuts_of_a_tiny_alphabet_are_as_good_as_brute_force(seed: int) -> None:
    cut, ladder = 3, (2, 3)
    counts = np.zeros(256, dtype=np.int64)
    counts[128 - cut : 129 + cut] = np.random.default_rng(seed).integers(0, 1000, 2 * cut + 1)
    found = errors(build_codebook(counts, cut=cut, ladder=ladder), counts, cut)
    all_errors = [
        _interval_errors(edges, counts, cut)
        for edges in combinations_with_replacement(range(2 * cut + 2), 7)
    ]
    # The codebook weighs each fidelity by its least error against float, the grid's own included.
    least = [min(each[level] for each in all_errors) + 1 / 12 for level in range(2)]
    best = min(sum(e / w for e, w in zip(each, least, strict=True)) for each in all_errors)
    assert found[2] / least[0] + found[3] / least[1] <= best * 1.001


def _interval_errors(
    edges: Sequence[int], counts: NDArray[np.int64], cut: int
) -> tuple[float, float]:
    """Errors at 2 and 3 bits of eight intervals, and of those joined by twos."""
    values = np.arange(-cut, cut + 1)
    share = (counts[values + 128] + 1) / (counts[values + 128] + 1).sum()
    bounds = (0, *edges, len(values))
    found = []
    for step in (2, 1):
        total = 0.0
        for i, j in zip(bounds[:-step:step], bounds[step::step], strict=True):
            if i < j:
                mean = np.rint((share * values)[i:j].sum() / share[i:j].sum())
                total += float((share[i:j] * np.square(values[i:j] - mean)).sum())
        found.append(total)
    return found[0], found[1]


@pytest.mark.parametrize("sigma", [10.0, 14.0, 16.0, 18.0, 21.0, 25.0, 30.0])
@pytest.mark.parametrize("ladder", [DEFAULT_LADDER, (2, 4, 8), (2, 3, 4, 5, 6, 7, 8)])
def test_every_fidelity_is_close_to_the_best_of_its_own(
    sigma: float, ladder: tuple[int, ...]
) -> None:
    counts, cut = counted(sigma), min(127, round(3 * sigma))
    found = errors(build_codebook(counts, cut=cut, ladder=ladder), counts, cut)
    assert found[8] == 0.0
    for bits in ladder[:-1]:
        against_float = (found[bits] + 1 / 12) / (least_error(counts, cut, bits) + 1 / 12)
        assert against_float < (1.25 if bits <= 4 else 1.8), bits


@pytest.mark.parametrize("ladder", [DEFAULT_LADDER, (2, 8), (8,), (3, 5, 7, 8)])
def test_top_of_eight_bits_loses_nothing_whatever_the_cut(ladder: tuple[int, ...]) -> None:
    for cut in (1, 2, 54, 64, 65, 127):
        codebook = build_codebook(counted(18.0), cut=cut, ladder=ladder)
        assert errors(codebook, counted(18.0), cut)[8] == 0.0, cut


@pytest.mark.parametrize("counts", [np.zeros(256), np.eye(256)[128], np.eye(256)[10]])
def test_books_are_built_of_models_without_spread(counts: NDArray[np.float64]) -> None:
    codebook = build_codebook(counts.astype(np.int64), cut=54)
    codes = best_codes(codebook)
    assert codebook.values[8][codes[0]] == 0
    assert len({bits: len(values) for bits, values in codebook.values.items()}) == 5


# Size


def test_all_fidelities_together_take_less_than_the_promised_bits() -> None:
    w = np.random.default_rng(0).standard_t(15, size=(768, 3072)).astype(np.float32)
    grid = quantize_matrix(w)
    cut = outlier_cut()
    codebook = build_codebook(histogram(grid.q), cut=cut)
    shard = Encoder(codebook, cut=cut).encode(grid.q.reshape(-1)[: 768 * 512], [768 * 512])
    stored = sum(plane.nbytes for plane in shard.planes.values()) + shard.outliers.nbytes
    assert 0.004 < (np.abs(grid.q.astype(int)) > cut).mean() < 0.008
    assert 8 * stored / (768 * 512) < 8.25
    assert 32 * grid.scale.size / w.size < 0.05
    assert grid.side_index.size * 3072 * 32 / w.size < 0.3


# Encoding


@given(ladder=ladders, seed=st.integers(0, 99), cut=st.integers(1, 127))
def test_fidelity_values_are_what_decodes(ladder: tuple[int, ...], seed: int, cut: int) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    encoder = Encoder(codebook, cut=cut)
    alphabet = np.arange(256, dtype=np.uint8).view(np.int8)
    shard = encoder.encode(alphabet, [256])
    found = fidelity_values(encoder)
    assert tuple(found) == ladder
    for planes, bits in enumerate(ladder, 1):
        (out,) = rooms = rooms_for([256], 1, np.int8)
        assert NumpyDecoder(codebook).decode(*stored_group([shard], [planes]), rooms) is None
        assert found[bits].dtype == np.float32
        np.testing.assert_array_equal(found[bits], out.matrix[0])


@pytest.mark.parametrize("cut", [0, 128, -1])
def test_outliers_must_begin_inside_the_alphabet(cut: int) -> None:
    with pytest.raises(InputError):
        Encoder(wild_codebook((2,), seed=0), cut=cut)
    with pytest.raises(InputError):
        build_codebook(np.zeros(256, dtype=np.int64), cut=cut)


@pytest.mark.parametrize("sizes", [(), (64,), (60, 12), (72, 0), (80, -8)])
def test_operands_must_come_in_eights_and_add_up(sizes: tuple[int, ...]) -> None:
    encoder = Encoder(wild_codebook((2, 3), seed=0), cut=54)
    with pytest.raises(PackFormatError, match="cannot be coded"):
        encoder.encode(np.zeros(72, dtype=np.int8), sizes)
