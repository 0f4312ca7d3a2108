"""How a batch of sentences is cut into groups that attend together. Pure.

In: token counts. Out: groups of sentences, each padded to its longest. Sentences of equal length
share a group without padding, so each gets the same bits as it would alone; groups of nearly equal
length are merged where padding costs less than another pass. All groups go through a block while
its weights are in the working buffer, so a batch reads and decodes every weight once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

GROUP_TOKENS = 24
"""Cost of one more group, in tokens of padding: the fixed cost of running each graph."""

MOST_TOKENS = 2048
"""Most tokens in a group: activations stay small, and matrix products are still long enough."""

MOST_PAIRS = 262144
"""Most pairs of tokens in a group that attend to each other: their scores are floats."""


class SentenceGroup(NamedTuple):
    """Sentences that are padded to ``tokens`` tokens; ``members`` are ascending batch indices."""

    members: tuple[int, ...]
    tokens: int


def group_by_length(lengths: Sequence[int]) -> tuple[SentenceGroup, ...]:
    """Cut a batch into groups with the least padding plus group overhead.

    Exact: dynamic programming over the distinct lengths, shortest first. Deterministic.

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
            cost = best[start][0] + GROUP_TOKENS + count * ordered[end - 1]
            choice = min(choice, (cost, start))
        best.append(choice)
    groups: list[SentenceGroup] = []
    end = len(ordered)
    while end:
        start = best[end][1]
        members = sorted(i for length in ordered[start:end] for i in by_length[length])
        tokens = ordered[end - 1]
        step = max(1, min(MOST_TOKENS // tokens, MOST_PAIRS // tokens**2))
        cuts = [tuple(members[at : at + step]) for at in range(0, len(members), step)]
        # Not all cuts have one of the longest.
        padded = [SentenceGroup(cut, max(lengths[member] for member in cut)) for cut in cuts]
        groups.extend(reversed(padded))
        end = start
    return tuple(reversed(groups))
