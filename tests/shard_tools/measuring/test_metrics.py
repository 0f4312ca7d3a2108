"""Accuracy, rank correlation, and the chance in a difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from shard_tools.measuring.metrics import RESAMPLES, Scorer, spearman

Values = NDArray[np.float64]


def correlation_of_ranks(first: Values, second: Values) -> float:
    """Spearman's rank correlation by its definition."""
    ranks = [
        [(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values]
        for values in (first, second)
    ]
    return float(np.corrcoef(*ranks)[0, 1])


def logits_of(answers: ArrayLike, classes: int = 3) -> NDArray[np.float32]:
    return np.take(np.eye(classes, dtype=np.float32), np.asarray(answers), axis=0)


def test_accuracy_is_the_share_of_right_answers() -> None:
    scorer = Scorer("accuracy", [0, 1, 2, 1], seed=0)
    assert scorer.score(logits_of([0, 1, 1, 1])).value == 0.75


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30).filter(
        lambda pairs: all(len(set(side)) > 1 for side in zip(*pairs, strict=True))
    )
)
def test_spearman_is_the_correlation_of_ranks_ties_at_their_mean(
    pairs: list[tuple[int, int]],
) -> None:
    first, second = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    assert spearman(first, second) == pytest.approx(correlation_of_ranks(first, second), abs=1e-12)


def test_a_constant_correlates_with_nothing() -> None:
    assert spearman(np.ones(4), np.arange(4.0)) == 0.0


def test_the_error_of_a_difference_is_that_of_the_paired_differences() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 400)
    first = np.where(rng.random(400) < 0.9, labels, (labels + 1) % 3)
    second = np.where(rng.random(400) < 0.2, rng.integers(0, 3, 400), first)
    scorer = Scorer("accuracy", labels.tolist(), seed=1)
    ahead, error = scorer.score(logits_of(first)).ahead(scorer.score(logits_of(second)))
    paired = (first == labels).astype(float) - (second == labels)
    assert ahead == pytest.approx(paired.mean())
    assert error == pytest.approx(paired.std() / 20.0, rel=0.1)
    alone = np.sqrt((first == labels).var() / 400 + (second == labels).var() / 400)
    assert error < 0.9 * alone


def test_equal_answers_differ_by_nothing_without_doubt() -> None:
    scorer = Scorer("accuracy", [0, 1, 2], seed=0)
    score = scorer.score(logits_of([0, 0, 2]))
    assert score.ahead(scorer.score(logits_of([0, 0, 2]))) == (0.0, 0.0)


def test_a_regression_is_scored_by_ranks_on_each_resample() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=80)
    near = (truth + 0.3 * rng.normal(size=80)).astype(np.float32)[:, None]
    scorer = Scorer("spearman", truth.tolist(), seed=5)
    score = scorer.score(near)
    assert score.value == pytest.approx(correlation_of_ranks(near[:, 0], truth))
    picks = np.random.default_rng(5).integers(0, 80, (RESAMPLES, 80), dtype=np.int32)
    for number in (0, 7):
        pick = picks[number]
        expected = correlation_of_ranks(near[pick, 0], truth[pick])
        assert score.resampled[number] == pytest.approx(expected)


def test_resamples_follow_the_seed() -> None:
    answers = logits_of([0, 1, 1, 2, 0])
    first, same, other = (
        Scorer("accuracy", [0, 1, 2, 1, 0], seed=seed).score(answers).resampled
        for seed in (4, 4, 5)
    )
    assert (first == same).all()
    assert (first != other).any()
