"""The best way to cut a text into pieces of a vocabulary with scores: Viterbi's, without a model.

In: the words of a vocabulary in order, their scores, and text. Out: the line numbers of the pieces
whose scores add up to the most, and where they end. As in the reference library, sums are of double
precision, taken from the beginning, and of equal ones the first that is found stays, which is the
one whose last piece is longest. Knows nothing of normalizing or special tokens.

Pieces that begin at a place are found by going along a trie. It is not stored: a node is a range of
the words in order, and is made when text first leads there.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from sti.text.vocabulary_index import LONGEST_WORD

NODES_REMEMBERED = 32768
"""Nodes and dead ends of the trie; then all are forgotten."""

BLOCK_CHARS = 1024
"""Characters after which it is asked how far the best path is settled."""

_UNKNOWN_PENALTY = 10.0
_NONE = -math.inf
_END = "\udfff"  # ends every text; no word contains it
_BEYOND = b"\xff"  # more than any byte of UTF-8


class _Node(dict["str", "_Node | None"]):
    """Words that begin alike; by the next character, those that still do, or None."""

    __slots__ = ("deeper", "high", "line", "low", "prefix", "score", "trie")

    trie: _Trie
    low: int
    high: int
    prefix: bytes
    line: int
    """Of the word that ends here, and ``score``, which is None where none does."""
    score: float | None
    deeper: bool
    """Whether any word goes on."""

    def __missing__(self, char: str) -> _Node | None:
        node = self.trie.node(self, char)
        self[char] = node
        return node


class _Trie:
    """The words of a vocabulary by their beginnings."""

    def __init__(
        self, blob: bytes | memoryview, starts: memoryview, order: memoryview, scores: memoryview
    ) -> None:
        self._blob, self._starts, self._order, self._scores = blob, starts, order, scores
        self.made = 0
        self.root = self._make(0, len(order), b"")

    def node(self, parent: _Node, char: str) -> _Node | None:
        """What follows a node for one more character; None where no word goes on so."""
        self.made += 1
        low, high = parent.low + (parent.score is not None), parent.high
        if char == _END:
            return None
        prefix = parent.prefix + char.encode()
        low = bisect_left(self._order, prefix, low, high, key=self._word)
        if low == high or not self._word(self._order[low]).startswith(prefix):
            return None
        if low + 1 < high:
            high = bisect_left(self._order, prefix + _BEYOND, low + 1, high, key=self._word)
        return self._make(low, high, prefix)

    def _make(self, low: int, high: int, prefix: bytes) -> _Node:
        node = _Node()
        node.trie, node.low, node.high, node.prefix = self, low, high, prefix
        node.line, node.score = self._order[low], None
        if prefix and self._word(node.line) == prefix:
            node.score = self._scores[node.line]
        node.deeper = low + (node.score is not None) < high
        return node

    def _word(self, line: int) -> bytes:
        return bytes(self._blob[self._starts[line] : self._starts[line + 1] - 1])


class BestPath:
    """Cuts text into pieces. Safe to share between threads.

    Args:
        blob: the words, UTF-8, joined by newlines; none has more than ``LONGEST_WORD`` bytes.
        starts: uint32 ``[words + 1]``: where each line begins, and where one more would.
        order: uint32 ``[words]``: the lines in the order of their words. Where it is another,
            words are not found.
        scores: float32 or float64 ``[words]``, finite.
        unknown: the line that stands for a character that is no word.

    All are kept, not copied.
    """

    def __init__(
        self,
        blob: bytes | memoryview,
        starts: NDArray[np.uint32],
        order: NDArray[np.uint32],
        scores: NDArray[np.float32] | NDArray[np.float64],
        *,
        unknown: int,
        nodes_remembered: int = NODES_REMEMBERED,
        block_chars: int = BLOCK_CHARS,
    ) -> None:
        self._words = (blob, memoryview(starts), memoryview(order), memoryview(scores))
        self._unknown = unknown
        self._unknown_score = float(scores.min()) - _UNKNOWN_PENALTY
        self._nodes_remembered = nodes_remembered
        self._block_chars = block_chars
        self._trie = _Trie(*self._words)

    def cut(self, text: str, enough: int | None = None) -> list[tuple[int, int]]:
        """The pieces of a text without lone surrogates: their lines, and where they end.

        Stops soon after more than ``enough`` that are not unknown are settled. Takes time in
        proportion to the text, and memory to what is not settled.
        """
        if self._trie.made > self._nodes_remembered:
            self._trie = _Trie(*self._words)
        ended = text + _END
        pieces: list[tuple[int, int]] = []
        count = 0
        base, begin = 0, 0  # all before base is settled; what is before begin has been looked at
        scores, origins, lines = [0.0], [0], [0]  # of the best path to each place from base on
        while base < len(text):
            end = min(len(text), begin + max(self._block_chars, begin - base))
            window = ended[base : end + LONGEST_WORD]
            more = min(len(window), len(text) - base) + 1 - len(scores)
            scores += [_NONE] * more
            origins += [0] * more
            lines += [0] * more
            self._extend(window, begin - base, end - base, scores, origins, lines)
            settled = end - base if end == len(text) else _settled(scores, origins, end - base)
            found: list[tuple[int, int]] = []
            at = settled
            while at:
                found.append((lines[at], base + at))
                at = origins[at]
            pieces += reversed(found)
            count += sum(line != self._unknown for line, _ in found)
            if enough is not None and count > enough:
                break
            base, begin = base + settled, end
            scores, lines = scores[settled:], lines[settled:]
            origins = [origin - settled for origin in origins[settled:]]
        return pieces

    def _extend(
        self,
        text: str,
        begin: int,
        end: int,
        scores: list[float],
        origins: list[int],
        lines: list[int],
    ) -> None:
        """Go on from each place of ``[begin, end)`` by every piece that begins there."""
        root, unknown, unknown_score = self._trie.root, self._unknown, self._unknown_score
        for origin in range(begin, end):
            score = scores[origin]
            node = root[text[origin]]
            at = origin + 1
            if node is None or node.score is None:
                total = score + unknown_score
                if total > scores[at]:
                    scores[at], origins[at], lines[at] = total, origin, unknown
            else:
                total = score + node.score
                if total > scores[at]:
                    scores[at], origins[at], lines[at] = total, origin, node.line
            while node is not None and node.deeper:
                node = node[text[at]]
                if node is None:
                    break
                at += 1
                piece_score = node.score
                if piece_score is not None:
                    total = score + piece_score
                    if total > scores[at]:
                        scores[at], origins[at], lines[at] = total, origin, node.line


def _settled(scores: list[float], origins: list[int], end: int) -> int:
    """The last place that the best path comes by, wherever it goes from ``end``.

    It goes by one of the places that have been reached from before ``end``, and to that by the
    best path there: where all of these meet is settled.
    """
    front = {at for at in range(end, len(scores)) if scores[at] > _NONE} | {end}
    while len(front) > 1:
        last = max(front)
        front.remove(last)
        front.add(origins[last])
    return front.pop()
