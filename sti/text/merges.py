"""Byte-pair merges: which two neighbouring pieces become one, and in what order.

A dict of 50,000 merges costs megabytes and milliseconds. Here they lie in four arrays, which a pack
brings along: for each left piece the right ones it merges with, sorted.

In: merges by rank. Out: the arrays; from those, the pieces of a word. Knows nothing of text, bytes
or vocabularies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError

_LONG = 128
"""Pieces of a word from which on a heap is faster than looking through all of them each time."""

PAIRS_REMEMBERED = 32768
"""Pairs whose rank is remembered; then all are forgotten."""

TABLES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(np.uint32)
    for name in ("merge_starts", "merge_rights", "merge_ranks", "merge_results")
}
"""For a vocabulary of n words and m merges:

- ``merge_starts`` ``[n + 1]``: where the merges of each left piece begin, and where the last end;
- ``merge_rights`` ``[m]``: ids of right pieces, rising for each left one;
- ``merge_ranks`` ``[m]``: place of the merge in the order of all;
- ``merge_results`` ``[m]``: by rank, the id of what a merge makes.
"""


def make_tables(
    merges: Sequence[tuple[int, int, int]], words: int
) -> dict[str, NDArray[np.uint32]]:
    """The arrays for merges ``(left, right, result)``, by rank, of which no pair occurs twice."""
    columns = np.array(merges, np.uint32).reshape(-1, 3)
    left, right, result = columns.T
    order = np.lexsort((right, left))
    starts = np.searchsorted(left[order], np.arange(words + 1))
    found = (starts, right[order], order, result)
    return {name: np.array(one, np.uint32) for name, one in zip(TABLES, found, strict=True)}


class Merges:
    """Merges over the ids of a vocabulary.

    Args:
        tables: the arrays of ``TABLES``; kept, not copied.
        words: words of the vocabulary.

    Raises:
        PackFormatError: an array has another size, or names a word or a merge beyond the last.

    Safe to share between threads.
    """

    def __init__(self, tables: Mapping[str, NDArray[Any]], words: int) -> None:
        starts, rights, ranks, results = (tables[name] for name in TABLES)
        _check(starts, rights, ranks, results, words)
        self._none = len(results)
        # Indexing a memoryview gives plain Python integers, faster than indexing an array.
        self._results = memoryview(results)
        self._ranks = _Ranks(memoryview(starts), memoryview(rights), memoryview(ranks), words)
        self._words = words

    def merged(self, ids: list[int], *, long: int = _LONG) -> tuple[list[int], list[int]]:
        """The pieces that are left when nothing more can be merged.

        Args:
            ids: ids of the pieces to begin with; becomes the caller's no longer.
            long: from how many pieces on another way is gone, to the same end.

        Returns:
            Their ids, and for each how many of the first pieces it and those before it are made of.
        """
        words, ranks_of, none, results = self._words, self._ranks, self._none, self._results
        ranks = [ranks_of[left * words + right] for left, right in pairwise(ids)]
        if len(ids) >= long:
            return self._merged_by_heap(ids, ranks)
        ends = list(range(1, len(ids) + 1))
        while ranks:
            rank = min(ranks)
            if rank == none:
                break
            at = ranks.index(rank)
            ids[at] = results[rank]
            del ids[at + 1], ends[at], ranks[at]
            if at:
                ranks[at - 1] = ranks_of[ids[at - 1] * words + ids[at]]
            if at < len(ranks):
                ranks[at] = ranks_of[ids[at] * words + ids[at + 1]]
        return ids, ends

    def _merged_by_heap(self, ids: list[int], ranks: list[int]) -> tuple[list[int], list[int]]:
        """As ``merged``, in ``n log n`` steps. ``ranks`` are those of the neighbours."""
        words, ranks_of, none, results = self._words, self._ranks, self._none, self._results
        size = len(ids)
        before, after = list(range(-1, size - 1)), list(range(1, size + 1))
        ranks.append(none)
        heap = [rank * size + at for at, rank in enumerate(ranks) if rank != none]
        heapify(heap)
        while heap:
            rank, at = divmod(heappop(heap), size)
            if ranks[at] != rank:
                continue  # one of the two has become part of another piece since
            ids[at] = results[rank]
            gone = after[at]
            ranks[gone] = none
            following = after[at] = after[gone]
            if following < size:
                before[following] = at
            for left, right in ((before[at], at), (at, following)):
                if left >= 0:
                    last = right == size
                    ranks[left] = none if last else ranks_of[ids[left] * words + ids[right]]
                    if ranks[left] != none:
                        heappush(heap, ranks[left] * size + left)
        found: list[int] = []
        ends: list[int] = []
        at = 0
        while at < size:
            found.append(ids[at])
            at = after[at]
            ends.append(at)
        return found, ends


class _Ranks(dict[int, int]):
    """Ranks of pairs, by ``left * words + right``; the number of merges where there is none.

    Safe to share between threads: at worst two of them look for the same pair.
    """

    __slots__ = ("_ranks", "_rights", "_starts", "_words")

    def __init__(
        self, starts: memoryview[int], rights: memoryview[int], ranks: memoryview[int], words: int
    ) -> None:
        super().__init__()
        self._starts, self._rights, self._ranks, self._words = starts, rights, ranks, words

    def __missing__(self, pair: int) -> int:
        left, right = divmod(pair, self._words)
        end = self._starts[left + 1]
        at = bisect_left(self._rights, right, self._starts[left], end)
        found = at < end and self._rights[at] == right
        rank = self._ranks[at] if found else len(self._ranks)
        if len(self) >= PAIRS_REMEMBERED:
            self.clear()
        self[pair] = rank
        return rank


def _check(
    starts: NDArray[Any],
    rights: NDArray[Any],
    ranks: NDArray[Any],
    results: NDArray[Any],
    words: int,
) -> None:
    """Refuse arrays that a look-up would leave, or could not find a merge in."""
    size = results.size
    if starts.size != words + 1 or rights.size != size or ranks.size != size:
        raise PackFormatError("tokenizer: the arrays of the merges do not have sizes that fit")
    if int(starts[0]) or int(starts[-1]) != size or not (starts[1:] >= starts[:-1]).all():
        raise PackFormatError("tokenizer: the places of the merges do not rise to their end")
    if not size:
        return
    if max(int(rights.max()), int(results.max())) >= words:
        raise PackFormatError("tokenizer: a merge names a word beyond the vocabulary")
    if int(ranks.max()) >= size:
        raise PackFormatError("tokenizer: a merge has a rank beyond the last")
    firsts = np.zeros(size + 1, np.bool_)
    firsts[starts] = True
    if not ((rights[1:] > rights[:-1]) | firsts[1:-1]).all():
        raise PackFormatError("tokenizer: the merges of a word are not sorted")
