"""Sizes that plans are made for."""

from __future__ import annotations

import pytest

from sti.model.workload import TOKEN_BUCKETS, Workload, bucket


def test_buckets_are_multiples_of_eight_that_rise() -> None:
    assert list(TOKEN_BUCKETS) == sorted(set(TOKEN_BUCKETS))
    assert all(size % 8 == 0 for size in TOKEN_BUCKETS)


@pytest.mark.parametrize("tokens", range(1, TOKEN_BUCKETS[-1] + 1))
def test_lengths_are_rounded_up_by_little(tokens: int) -> None:
    size = bucket(1, tokens, most=512).tokens
    assert tokens <= size <= max(tokens + 7, 1.125 * tokens)


def test_no_workload_is_longer_than_the_model_takes() -> None:
    assert bucket(3, 100, most=101) == Workload(4, 101)
    assert bucket(1, 700, most=600) == Workload(1, 600)
