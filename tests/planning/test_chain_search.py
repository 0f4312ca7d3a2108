"""The search for a chain, held equal to trying everything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st

from sti.planning.chain_search import Chain, Cut, StageCosts, busiest, quickest

LAYERS = 4
SECONDS = st.sampled_from([0.0, 1.0, 2.0, 3.5, 8.0, math.inf])


@st.composite
def devices(draw: st.DrawFn) -> StageCosts:
    """Costs of every stretch of layers; some that the device cannot have."""
    own = [[draw(SECONDS) for _ in range(LAYERS + 1)] for _ in range(LAYERS)]
    more = [[draw(SECONDS) for _ in range(LAYERS + 1)] for _ in range(LAYERS)]
    at_once = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(own, more, strict=True)]
    return StageCosts(own, at_once, draw(st.sampled_from([0.0, 0.5])), draw(SECONDS))


def all_cuts(count: int) -> Iterator[tuple[Cut, ...]]:
    """Every chain: which devices in which order, cut everywhere."""

    def cut(order: tuple[int, ...], first: int) -> Iterator[tuple[Cut, ...]]:
        if len(order) == 1:
            yield (Cut(order[0], first, LAYERS),)
            return
        for end in range(first + 1, LAYERS):
            for rest in cut(order[1:], end):
                yield (Cut(order[0], first, end), *rest)

    for size in range(1, count + 1):
        for order in permutations(range(count), size):
            if order != (0,):  # which is no chain
                yield from cut(order, 0)


def latency_s(cuts: tuple[Cut, ...], found: list[StageCosts], links: list[float]) -> float:
    first = found[cuts[0].device]
    end_s = first.end_s(0, cuts[0].end, first.heard_s)
    for before, cut in pairwise(cuts):
        arrival_s = end_s + links[before.device] + links[cut.device]
        end_s = found[cut.device].end_s(cut.first, cut.end, arrival_s)
    return end_s + found[cuts[-1].device].answer_s


def slowest_s(cuts: tuple[Cut, ...], found: list[StageCosts], links: list[float]) -> float:
    busy = [found[cut.device].at_once_s[cut.first][cut.end] for cut in cuts]
    sent = [links[before.device] + links[cut.device] for before, cut in pairwise(cuts)]
    return max(busy + sent)


@given(st.lists(devices(), min_size=1, max_size=3), st.lists(SECONDS, min_size=3, max_size=3))
def test_the_search_finds_what_trying_everything_finds(
    found: list[StageCosts], links: list[float]
) -> None:
    for search, price in ((quickest, latency_s), (busiest, slowest_s)):
        chain = search(LAYERS, found, lambda a, b: links[a] + links[b])
        priced = [price(cuts, found, links) for cuts in all_cuts(len(found))]
        least = min(priced, default=math.inf)
        if math.isinf(least):
            assert chain is None
        else:
            assert isinstance(chain, Chain)
            assert chain.seconds == least == price(chain.cuts, found, links)


def test_of_equals_the_one_with_fewer_devices_is_taken() -> None:
    free = StageCosts([[0.0] * 3] * 2, [[0.0] * 3] * 2)
    chain = quickest(2, [free, free], lambda a, b: 0.0)
    assert chain is not None and chain.cuts == (Cut(1, 0, 2),)
