"""The statistics of ranking: curves, stability, gains, judges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.measuring.judge import ANSWER, CONFIDENCE, LOSS, Judge, confidence, fit_temperature
from shard_tools.packing.repack import ranked_groups
from shard_tools.ranking.gains import (
    agreement,
    by_block,
    gains_of,
    rest_agreement,
    scaled_to_blocks,
    stored_gains,
    with_rest,
)
from shard_tools.ranking.predictor import MOST_KNOTS, draw_mixed, fit_curve, pool_falling, residual
from shard_tools.ranking.stability import stability
from shard_tools.ranking.submodels import Measured, with_curve, worthwhile
from sti.arrays import Float32Array
from sti.device.lanes import PIPELINED
from sti.errors import RunError
from sti.model.fidelity import groups_of, loss_of, uniform_counts
from sti.model.manifest import Manifest, Submodel
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.check import check_plan
from sti.planning.plan import Plan, PlanStep, Target
from tests.support.packs import tiny_pack

MANY = st.lists(st.floats(-1, 1), min_size=1, max_size=12)


def manifest(seed: int = 0) -> Manifest:
    """A small manifest with made-up gains and their orders."""
    with PackReader.open(tiny_pack("classification")) as reader:
        found = reader.manifest
    rng = np.random.default_rng(seed)
    gains = by_block(rng.exponential(size=stored_gains(found).shape), found)
    submodels = (*found.submodels, Submodel(2, 3, (0, 2), 0.1), Submodel(1, 1, (1,), 0.5))
    return found._replace(groups=ranked_groups(found.groups, gains), submodels=submodels)


@given(MANY)
def test_pooling_is_the_isotonic_regression(values: list[float]) -> None:
    y = np.array(values)
    found = pool_falling(y, np.ones(len(y)))
    expected = [
        min(max(y[a : b + 1].mean() for b in range(i, len(y))) for a in range(i + 1))
        for i in range(len(y))
    ]
    assert np.allclose(found, expected)


def test_weights_count_as_repeated_values() -> None:
    found = pool_falling(np.array([0.5, 0.8]), np.array([3.0, 1.0]))
    assert np.allclose(found, (3 * 0.5 + 0.8) / 4)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=200))
def test_a_fitted_curve_is_what_the_manifest_takes(points: list[tuple[float, float]]) -> None:
    curve = fit_curve(*zip(*points, strict=True), falling=True)
    places, values = np.array(curve.places), np.array(curve.values)
    assert 1 <= len(places) == len(values) <= MOST_KNOTS
    assert (np.diff(places) > 0).all() and (np.diff(values) <= 0).all()
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    assert lowest - 1e-6 <= values[-1] and values[0] <= highest + 1e-6


def test_a_curve_finds_the_truth_behind_noise() -> None:
    rng = np.random.default_rng(0)
    places = np.concatenate([[0.0], rng.random(400)])
    truth = 0.95 - 0.5 * places**2
    curve = fit_curve(places.tolist(), (truth + rng.normal(0, 0.02, 401)).tolist(), falling=True)
    fresh = rng.random(200) * 0.95
    left = residual(curve, fresh.tolist(), (0.95 - 0.5 * fresh**2).tolist())
    assert curve.places[0] == 0.0
    assert left.mean_absolute < 0.008 and left.deviation < 0.012
    assert left.mean_absolute <= left.deviation <= left.largest


def test_drawn_plans_fit_the_pack() -> None:
    pack, rng = manifest(), np.random.default_rng(3)
    drawn = [draw_mixed(pack, rng) for _ in range(60)]
    for mixed in drawn:
        groups = groups_of(pack, mixed.submodel)
        items = tuple(
            PlanStep(group.layer, group.kind, group.number, counts, 0)
            for group, counts in zip(groups, mixed.counts, strict=True)
        )
        sizes = (mixed.submodel.depth, mixed.submodel.width, PIPELINED, 1)
        check_plan(Plan("x", Workload(1, 8), Target(), *sizes, items, None), pack, "x", where="x")
    assert {mixed.submodel.depth for mixed in drawn} == {1, 2, 3}
    losses = [loss_of(m.submodel, groups_of(pack, m.submodel), m.counts) for m in drawn]
    assert len(set(losses)) > 40


def test_a_clear_ranking_is_stable_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 8, 300)).astype(np.float32)
    found = stability(noise, seed=1)
    assert abs(found.halves) < 0.3 and found.beyond_noise < 0.35
    clear = noise + np.arange(48, dtype=np.float32).reshape(6, 8, 1) * 0.1
    found = stability(clear, seed=1)
    assert found.halves > 0.99 and found.bootstrap > 0.99 and found.beyond_noise > 0.99


def test_what_all_shards_share_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300).astype(np.float32) * 100
    ranks = np.arange(12, dtype=np.float32)[:, None]
    found = stability(ranks + hard + rng.normal(size=(12, 300)).astype(np.float32), seed=0)
    assert found.beyond_noise > 0.99 and found.halves > 0.99


def test_gains_are_what_each_plane_takes_off_the_loss() -> None:
    losses = np.array([[5.0, 1.0], [2.0, 3.0], [0.5, 1.0]])  # absent, 2 bits, 4 bits; 8 bits: 0
    assert gains_of(losses).tolist() == [[3.0, 0.0], [1.5, 2.0], [0.5, 1.0]]


def test_a_proxy_only_shares_out_what_was_measured() -> None:
    proxy = np.array([[9.0, 9.0], [4.0, 4.0], [3.0, 1.0], [1.0, 3.0]])
    losses = np.array([[8.0, 8.0], [4.0, 4.0], [2.0, 1.0]])
    gains = gains_of(with_rest(losses, proxy))
    assert gains[2:].tolist() == [[1.5, 0.25], [0.5, 0.75]]
    assert gains.sum(axis=0).tolist() == [8.0, 8.0]
    fewer = gains_of(with_rest(losses[:2], proxy))
    assert fewer[1:].tolist() == [[2.0, 2.0], [1.5, 0.5], [0.5, 1.5]]
    assert fewer.sum(axis=0).tolist() == [8.0, 8.0]
    everything = np.vstack([losses, [[1.0, 0.5]]])
    assert with_rest(everything, proxy).tolist() == everything.tolist()


def test_a_proxy_is_asked_whether_it_ranks_what_is_left() -> None:
    proxy = np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 2.0], [0.0, 1.0, 5.0]])
    assert rest_agreement(np.array([[9.0, 9.0, 9.0], [10.0, 30.0, 50.0]]), proxy) == 0.5
    assert rest_agreement(np.array([[9.0] * 3, [9.0] * 3, [1.0, 2.0, 3.0]]), proxy) == 1.0


def test_a_proxy_scaled_to_blocks_keeps_its_ranks() -> None:
    proxy = np.random.default_rng(0).random((3, 2, 4))
    losses = np.array([[4.0, 5.0], [2.0, 1.0], [0.5, 0.25]])
    found = scaled_to_blocks(proxy, losses)
    assert np.allclose(found.sum(axis=2), gains_of(losses))
    for block in range(2):
        assert agreement(found[:, block], proxy[:, block]) == pytest.approx([1.0] * 3)


def test_gains_go_into_a_manifest_and_come_out_of_it() -> None:
    pack = manifest()
    gains = np.random.default_rng(1).random((5, 6, 4))
    groups = ranked_groups(pack.groups, by_block(gains, pack))
    assert np.allclose(stored_gains(pack._replace(groups=groups)), gains, rtol=1e-3)


def cross_entropy(base: Float32Array, logits: Float32Array) -> float:
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (base, logits))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def test_a_judge_measures_the_divergence_from_the_base() -> None:
    rng = np.random.default_rng(0)
    base, other = (rng.normal(size=(50, 4)).astype(np.float32) for _ in range(2))
    judge = Judge(base, base.argmax(axis=1).tolist(), regression=False)
    found = judge.judge(other)
    assert found[LOSS].mean() == pytest.approx(cross_entropy(base, other), rel=1e-5)
    assert (judge.judge(base)[LOSS] == 0).all() and judge.value(judge.judge(base)[ANSWER]) == 1.0
    assert (found[ANSWER] == other.argmax(axis=1)).all()
    assert ((found[CONFIDENCE] > 0.25) & (found[CONFIDENCE] <= 1.0)).all()


def test_a_judge_of_values_measures_squared_errors() -> None:
    base = np.arange(20, dtype=np.float32)[:, None]
    judge = Judge(base, base[:, 0].tolist(), regression=True)
    found = judge.judge(base + 2.0)
    assert found[LOSS] == pytest.approx(4.0 / base.var())
    assert judge.metric == "spearman" and judge.value(found[ANSWER]) == pytest.approx(1.0)


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(RunError, match="finite"):
        Judge(np.full((3, 2), np.nan, dtype=np.float32), [0, 1, 0], regression=False)
    judge = Judge(np.zeros((3, 2), dtype=np.float32), [0, 1, 0], regression=False)
    with pytest.raises(RunError, match="finite"):
        judge.judge(np.full((3, 2), np.inf, dtype=np.float32))


def test_the_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in p], dtype=np.float64)
    found = fit_temperature((logits * 3).astype(np.float32), labels)
    assert found == pytest.approx(3.0, rel=0.06)
    assert confidence((logits * 3).astype(np.float32), 3.0) == pytest.approx(
        p.max(axis=1), rel=1e-4
    )


def measured(depth: int, width: int, *losses: float) -> Measured:
    """Losses at 2 and 8 bits."""
    found = np.zeros((2, 3, 4), dtype=np.float32)
    found[:, LOSS] = np.array(losses, dtype=np.float32)[:, None]
    return Measured(Submodel(depth, width, tuple(range(depth)), 0.0), found)


def test_submodels_that_another_beats_are_dropped() -> None:
    full, smallest = measured(6, 12, 0.1, 0.0), measured(1, 1, 5.0, 4.0)
    good, wide = measured(3, 6, 0.5, 0.2), measured(2, 12, 0.6, 0.3)
    mixed = measured(4, 6, 0.6, 0.1)  # better than 3 x 6 at 8 bits alone
    kept = worthwhile([full, mixed, good, wide, smallest], slices=12)
    assert kept == [full, mixed, good, smallest]


def test_the_smallest_submodel_stays_even_if_it_is_beaten() -> None:
    full, equal = measured(2, 2, 0.1, 0.0), measured(2, 1, 0.1, 0.0)
    assert worthwhile([full, equal], slices=2) == [full, equal]


def test_a_curve_goes_through_the_uniform_fidelities() -> None:
    pack = manifest()
    found = np.zeros((5, 3, 4), dtype=np.float32)
    found[:, LOSS] = np.array([[0.9], [0.3], [0.35], [0.12], [0.1]], dtype=np.float32)
    item = with_curve(Measured(pack.submodels[1], found), pack)
    groups = groups_of(pack, item)
    expected = [0.9, 0.35, 0.35, 0.12, 0.1]  # made monotone
    for bits, loss in zip(pack.ladder, expected, strict=True):
        counts = [uniform_counts(group, item.width, bits) for group in groups]
        assert loss_of(item, groups, counts) == pytest.approx(loss, rel=1e-5)
    assert item.loss == item.losses[0] and item.missing[0] == 0.0


def test_planes_without_gains_leave_no_curve() -> None:
    pack = manifest()
    nothing = by_block(np.zeros((5, 6, 4)), pack)
    pack = pack._replace(groups=ranked_groups(pack.groups, nothing))
    found = np.zeros((5, 3, 4), dtype=np.float32)
    found[:, LOSS] = 0.2
    item = with_curve(Measured(pack.submodels[1], found), pack)
    assert item.loss == pytest.approx(0.2)
    assert item.missing == item.losses == ()
