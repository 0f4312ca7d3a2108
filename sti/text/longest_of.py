"""A regular expression that finds words of a list, the longest where several begin.

In: words. Out: the pattern. Words that begin alike share the part of the pattern for what is alike,
and how they go on is chosen by halves: so the time for a place of a text is bounded, however many
words there are. Knows nothing of tokens. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

MOST_CHOICES = 24
"""On the way through a word; a thousand numbered names take 15."""

_FEW = 3
"""So many first characters are tried one after the other as quickly as by halves."""


def longest_of(words: Iterable[str]) -> str:
    """The pattern, which matches nothing where there are no words.

    Args:
        words: distinct, none empty.

    Raises:
        ValueError: too many words begin as others do, again and again.
    """
    return _pattern(sorted(words), MOST_CHOICES) or r"(?!)"


def _pattern(words: Sequence[str], choices: int) -> str:
    """Of sorted words, of which the first may be empty."""
    if choices < 0:
        raise ValueError(f"more than {MOST_CHOICES} choices to find a word")
    if not words:
        return ""
    shared = _shared(words[0], words[-1])
    if shared:
        rests = [word[len(shared) :] for word in words]
        return re.escape(shared) + _pattern(rests, choices)
    if not words[0]:
        rest = _pattern(words[1:], choices - 1)
        return f"(?:{rest})?" if rest else ""
    firsts = sorted({word[0] for word in words})
    half = len(firsts) // 2
    parts = (
        [word for word in words if word < firsts[half]],
        [word for word in words if word >= firsts[half]],
    )
    one, other = (_pattern(part, choices - 1) for part in parts)
    if len(firsts) > _FEW:
        one = f"(?=[{re.escape(firsts[0])}-{re.escape(firsts[half - 1])}]){one}"
    return f"(?:{one}|{other})"


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(mark for mark, _ in pairs)
