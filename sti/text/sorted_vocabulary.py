"""Looking up words of a vocabulary by their order: for kinds that go through it by beginnings.

In: the vocabulary blob of a pack, and its lines in the order of their words. Out: line numbers.
Knows nothing of Unigram.
"""

from __future__ import annotations

from bisect import bisect_left
from copy import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.text.vocabulary import encoded
from sti.text.vocabulary_index import check_lines, line_starts, refuse_ill_formed


class SortedIndex(NamedTuple):
    """The index of n words. Both arrays are uint32."""

    starts: NDArray[np.uint32]
    """``[n + 1]``: where each line begins in the blob, and where one more would."""
    sorted: NDArray[np.uint32]
    """``[n]``: line numbers in the order of the bytes of their words."""


def make_sorted_index(blob: bytes) -> SortedIndex:
    """Index a blob of words: UTF-8, joined by newlines.

    Raises:
        PackFormatError: the blob is not UTF-8, contains a word twice, or is 4 GB long.
    """
    starts = line_starts(blob)
    refuse_ill_formed(blob)
    words = blob.split(b"\n")
    order = sorted(range(len(words)), key=words.__getitem__)
    for line, after in pairwise(order):
        if words[line] == words[after]:
            raise PackFormatError(f"tokenizer: the vocabulary holds {words[line].decode()!r} twice")
    return SortedIndex(starts, np.array(order, np.uint32))


class SortedVocabulary:
    """Distinct words and their line numbers.

    Args:
        blob: UTF-8 words joined by newlines; kept, not copied.
        index: what ``make_sorted_index`` made of it; None to make it now. It is kept, not copied.

    Raises:
        PackFormatError: the index cannot be of this blob; the blob is not UTF-8; or, where the
            index is made now, it contains a word twice.

    An index that is given is checked only so far that look-ups stay inside it: where its order is
    another, words are not found. Safe to share between threads.
    """

    def __init__(self, blob: bytes | memoryview, index: SortedIndex | None = None) -> None:
        if index is None:
            index = make_sorted_index(bytes(blob))
        else:
            check_lines(*index, blob)
        self.blob = blob
        self.starts, self.order = index

    def __len__(self) -> int:
        return len(self.order)

    def of_first(self, count: int) -> SortedVocabulary:
        """The same without its words from line ``count`` on; the blob is shared."""
        found = copy(self)
        if count < len(self):
            found.order = self.order[self.order < count]
        return found

    def find(self, word: str) -> int | None:
        """The line of a word, counted from 0; None where it is not in the vocabulary."""
        data = encoded(word)
        place = bisect_left(memoryview(self.order), data, key=self._word)
        if place == len(self):
            return None
        line = int(self.order[place])
        return line if self._word(line) == data else None

    def _word(self, line: int) -> bytes:
        return bytes(self.blob[int(self.starts[line]) : int(self.starts[line + 1]) - 1])
