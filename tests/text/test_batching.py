"""Grouping of a batch by length."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from sti.text.batching import GROUP_TOKENS, MOST_TOKENS, group_by_length, units_by_length

lengths = st.lists(st.integers(2, 64), min_size=1, max_size=40)


@given(lengths)
def test_every_sentence_is_in_exactly_one_group_that_fits_it(given_lengths: list[int]) -> None:
    groups = group_by_length(given_lengths)
    assert sorted(i for group in groups for i in group.members) == list(range(len(given_lengths)))
    for group in groups:
        assert group.tokens == max(given_lengths[i] for i in group.members)
        assert len(group.members) * group.tokens <= max(MOST_TOKENS, group.tokens)


@given(st.integers(2, 512), st.integers(1, 3))
def test_equal_lengths_are_never_padded(length: int, count: int) -> None:
    groups = group_by_length([length] * count)
    assert {group.tokens for group in groups} == {length}
    assert len(groups) == 1 or length > 256


@given(st.lists(st.integers(2, 40), min_size=1, max_size=7))
def test_cost_is_the_least_of_all_ways_to_cut(given_lengths: list[int]) -> None:
    distinct = sorted(set(given_lengths))

    def cost(cuts: tuple[int, ...]) -> int:
        edges = [0, *cuts, len(distinct)]
        total = 0
        for start, end in pairwise(edges):
            members = [n for n in given_lengths if distinct[start] <= n <= distinct[end - 1]]
            total += GROUP_TOKENS + len(members) * distinct[end - 1]
        return total

    inner = range(1, len(distinct))
    least = min(cost(cuts) for size in range(len(distinct)) for cuts in combinations(inner, size))
    groups = group_by_length(given_lengths)
    assert sum(GROUP_TOKENS + len(g.members) * g.tokens for g in groups) == least


def test_a_long_batch_is_cut_so_that_activations_stay_small() -> None:
    for length, count in [(64, 4), (256, 25), (512, 100)]:
        groups = group_by_length([length] * 100)
        assert len(groups) == count
        assert [i for group in groups for i in group.members] == list(range(100))


def padded(given_lengths: list[int]) -> list[int]:
    """What each sentence is padded to."""
    found = [0] * len(given_lengths)
    for group in group_by_length(given_lengths):
        for member in group.members:
            found[member] = group.tokens
    return found


many = st.one_of(
    lengths, st.lists(st.sampled_from((3, 7, 30, 31, 32, 200, 256)), min_size=1, max_size=120)
)


@given(many, st.integers(1, 70))
def test_in_units_every_sentence_is_padded_as_in_the_batch(
    given_lengths: list[int], most: int
) -> None:
    units = units_by_length(given_lengths, most)
    assert sorted(i for unit in units for i in unit) == list(range(len(given_lengths)))
    assert 1 <= len(units) <= most
    whole = padded(given_lengths)
    for unit in units:
        assert list(unit) == sorted(unit)
        assert padded([given_lengths[i] for i in unit]) == [whole[i] for i in unit]


def test_units_are_of_about_the_same_size() -> None:
    assert [len(unit) for unit in units_by_length([64] * 128, 32)] == [4] * 32
    assert {len(unit) for unit in units_by_length([64] * 100, 32)} == {3, 4}
    mixed = units_by_length([10] * 32 + [100] * 64, 8)
    tokens = [10 * sum(i < 32 for i in unit) + 100 * sum(i >= 32 for i in unit) for unit in mixed]
    assert max(tokens) < 1.5 * sum(tokens) / 8


@given(st.lists(st.integers(18, 20), min_size=90, max_size=250))
def test_a_group_that_is_cut_has_sentences_of_one_length(given_lengths: list[int]) -> None:
    for group in group_by_length(given_lengths):
        assert group.tokens == max(given_lengths[i] for i in group.members)
