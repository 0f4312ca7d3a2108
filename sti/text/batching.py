"""How a batch of sentences is cut into groups that attend together, and into units. Pure.

In: token counts. Out: groups of sentences, each padded to its longest; units, each a batch of its
own in which every sentence is padded as it is in the whole one, so that it gets the same bits.
Sentences of equal length share a group without padding, so each gets the same bits as it would
alone; groups of nearly equal length are merged where padding costs less than another pass. All
groups go through a block while its weights are in the working buffer, so a batch reads and decodes
every weight once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

GROUP_TOKENS = 24
"""Cost of one more group, in tokens of padding: the fixed cost of running each graph."""

MOST_TOKENS = 2048
"""Most tokens in a group: activations stay small, and matrix products are still long enough."""

_MOST_OVER, _MORE = 1.3, 1.1
"""How much larger than asked for a unit of whole groups may be, and how much larger all are tried
where there were too many."""

MOST_PAIRS = 262144
"""Most pairs of tokens in a group that attend to each other: their scores are floats."""


class SentenceGroup(NamedTuple):
    """Sentences that are padded to ``tokens`` tokens; ``members`` are ascending batch indices."""

    members: tuple[int, ...]
    tokens: int


def group_by_length(lengths: Sequence[int]) -> tuple[SentenceGroup, ...]:
    """Cut a batch into groups with the least padding plus group overhead.

    Exact: dynamic programming over the distinct lengths, shortest first. Deterministic. What is
    more than a group has room for is cut, which takes sentences of equal length alone: else what
    one of them is padded to would hang on where the cut is.

    Args:
        lengths: tokens of each sentence, special tokens included.
    """
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    ordered = sorted(by_length)
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first i lengths, start of the last group
    for end in range(1, len(ordered) + 1):
        count, choice = 0, (1 << 62, 0)
        for start in range(end - 1, -1, -1):
            count += len(by_length[ordered[start]])
            if start < end - 1 and count > _most_sentences(ordered[end - 1]):
                break
            cost = best[start][0] + GROUP_TOKENS + count * ordered[end - 1]
            choice = min(choice, (cost, start))
        best.append(choice)
    groups: list[SentenceGroup] = []
    end = len(ordered)
    while end:
        start = best[end][1]
        members = sorted(i for length in ordered[start:end] for i in by_length[length])
        tokens = ordered[end - 1]
        step = _most_sentences(tokens)
        cuts = [tuple(members[at : at + step]) for at in range(0, len(members), step)]
        # Not all cuts have one of the longest.
        padded = [SentenceGroup(cut, max(lengths[member] for member in cut)) for cut in cuts]
        groups.extend(reversed(padded))
        end = start
    return tuple(reversed(groups))


def units_by_length(lengths: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Cut a batch into units of about as many tokens, to be run one after the other.

    A unit has whole groups, or a part of one that has a sentence of its longest: so it is cut into
    groups as the batch is, and each sentence is padded to the same length.

    Args:
        lengths: tokens of each sentence, special tokens included.
        most: units, at least 1; there may be fewer.

    Returns:
        Of each unit, the ascending batch indices of its sentences.
    """
    groups = group_by_length(lengths)
    target = sum(len(group.members) * group.tokens for group in groups) / most
    while len(units := _units(groups, lengths, target)) > most:
        target *= _MORE
    return units


def _units(
    groups: Sequence[SentenceGroup], lengths: Sequence[int], target: float
) -> list[tuple[int, ...]]:
    """Units of about ``target`` tokens."""
    units: list[tuple[int, ...]] = []
    waiting: list[int] = []  # of whole groups that do not fill a unit yet
    waiting_tokens = 0
    for group in groups:
        own = len(group.members) * group.tokens
        longest = [member for member in group.members if lengths[member] == group.tokens]
        pieces = min(len(longest), int(own / target))
        if waiting and (pieces > 1 or waiting_tokens + own > _MOST_OVER * target):
            units.append(tuple(sorted(waiting)))
            waiting, waiting_tokens = [], 0
        if pieces > 1:
            others = [member for member in group.members if lengths[member] < group.tokens]
            every = longest + others  # dealt out in turns, so that each unit has one of the longest
            units += [tuple(sorted(every[place::pieces])) for place in range(pieces)]
            continue
        waiting += group.members
        waiting_tokens += own
    return [*units, tuple(sorted(waiting))] if waiting else units


def _most_sentences(tokens: int) -> int:
    """Of so many tokens, in a group."""
    return max(1, min(MOST_TOKENS // tokens, MOST_PAIRS // tokens**2))
