"""A precompiled map of characters as SentencePiece writes it: a trie, and replacements.

In: the units of a double array, and the replacements, UTF-8, each with a zero byte after it. Out: a
text with its characters replaced, and where they come from. It does what the reference library's
``Precompiled`` does: a grapheme cluster of less than six bytes goes whole where the map knows
its beginning, all else goes character by character. Knows nothing of files or tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.text.graphemes import short_clusters
from sti.text.normalizer import TABLE_LIMIT, CharTable

Place = tuple[int, int]
"""Characters ``[start, end)`` of the text that a character of a normalized text comes from."""

MOST_UNITS = 1 << 20
"""Of a trie; those in use have 60,000."""

MOST_REPLACEMENT_BYTES = 1 << 20
"""Of all replacements; those in use have 6,000."""

LONGEST_REPLACEMENT = 256
"""Bytes: so many times longer a text may become. The longest of Unicode's own have 33."""

_BLOCK = 256  # places that a link is followed by one byte from
_VALUE = 1 << 31
_HAS_VALUE, _WIDE = 1 << 8, 1 << 9
_LABEL = _VALUE | 0xFF


class CharsMap:
    """The map of a pack or a checkpoint.

    Args:
        trie: uint32 units of the double array, kept, not copied.
        replacements: uint8.

    Raises:
        PackFormatError: the trie has no root, a link or a value of it leads outside, a replacement
            is too long, or the replacements are not text.

    Safe to share between threads. Text must hold no lone surrogates.
    """

    def __init__(self, trie: NDArray[np.uint32], replacements: NDArray[np.uint8]) -> None:
        _check(trie, replacements)
        # Indexing a memoryview gives plain Python integers, faster than indexing an array.
        self._units = memoryview(trie)
        self._replacements = replacements.tobytes()
        self._table = CharTable(self._of_code, TABLE_LIMIT)

    def of(self, char: str) -> str:
        """What a character alone becomes."""
        return self._table[ord(char)]

    def replaced(self, text: str) -> str:
        """The text after the map."""
        clusters = short_clusters(text)
        if not clusters:
            return text.translate(self._table)
        return "".join(new for _, new in self._pieces(text, clusters))

    def aligned(self, text: str, places: Sequence[Place]) -> tuple[str, Sequence[Place]]:
        """As ``replaced``, for a text whose characters come from ``places``, with the new places.

        As in the reference library, characters that are dropped belong to the one before them; so
        those dropped at the very beginning belong to none, and shift all places after them.
        """
        clusters = short_clusters(text)
        if not clusters:
            table = self._table
            news = [table[ord(char)] for char in text]
            if set(map(len, news)) <= {1}:
                return "".join(news), places
        new_text: list[str] = []
        steps: list[int] = []  # of each new character: how many old ones it takes
        for count, new in self._pieces(text, clusters):
            more = len(new) - count
            new_text.append(new)
            steps += [1] * len(new)
            if more > 0:
                steps[-more:] = [0] * more
            elif more < 0 and steps:
                steps[-1] -= more
        found: list[Place] = []
        at = 0
        for step in steps:
            found.append(places[at if step else at - 1])
            at += step
        return "".join(new_text), found

    def _pieces(self, text: str, clusters: Sequence[Place]) -> Iterator[tuple[int, str]]:
        """All of the text: how many characters are replaced, and by what."""
        table = self._table
        at = 0
        for start, stop in (*clusters, (len(text), len(text))):
            new = self._found(text[start:stop].encode())
            if new is not None or start == stop:
                yield from ((1, table[ord(char)]) for char in text[at:start])
                at = stop
            if new is not None:
                yield stop - start, new

    def _of_code(self, code: int) -> str:
        char = chr(code)
        found = self._found(char.encode())
        return char if found is None else found

    def _found(self, text: bytes) -> str | None:
        """The replacement for the shortest key that the text begins with."""
        units = self._units
        at = _offset(units[0])
        for byte in text:
            at ^= byte
            unit = units[at]
            if not byte or unit & _LABEL != byte:
                return None
            at ^= _offset(unit)
            if unit & _HAS_VALUE:
                start = units[at] & ~_VALUE
                return self._replacements[start : self._replacements.index(0, start)].decode()
        return None


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & _WIDE) >> 6)


def _check(trie: NDArray[np.uint32], replacements: NDArray[np.uint8]) -> None:
    """Refuse what a look-up would leave, or replacements that are no text."""
    units, count = trie.size, replacements.size
    if not 0 < units <= MOST_UNITS or units % _BLOCK or not 0 < count <= MOST_REPLACEMENT_BYTES:
        raise PackFormatError(
            f"tokenizer: a character map of {units} units and {count} bytes: its units must be a "
            f"multiple of {_BLOCK} and at most {MOST_UNITS}, its bytes at most "
            f"{MOST_REPLACEMENT_BYTES}"
        )
    ends = np.flatnonzero(replacements == 0)
    if replacements[-1] or int(np.diff(ends, prepend=-1).max()) > LONGEST_REPLACEMENT + 1:
        raise PackFormatError(
            "tokenizer: a replacement of the character map has no end, or more than "
            f"{LONGEST_REPLACEMENT} bytes"
        )
    try:
        replacements.tobytes().decode()
    except UnicodeDecodeError as error:
        raise PackFormatError(f"tokenizer: replacements of the character map: {error}") from error
    if trie[0] >= _VALUE:
        raise PackFormatError("tokenizer: the character map begins with a value")
    links = np.flatnonzero(trie < _VALUE)
    from_links = trie[links]
    wide = (from_links & np.uint32(_WIDE)) >> np.uint32(6)
    to = links ^ ((from_links >> np.uint32(10)).astype(np.int64) << wide.astype(np.int64))
    valued = to[from_links & np.uint32(_HAS_VALUE) != 0]
    values = trie[trie >= _VALUE] & np.uint32(_VALUE - 1)
    inside = int((to | (_BLOCK - 1)).max(initial=0)) < units and (trie[valued] >= _VALUE).all()
    if not inside or int(values.max(initial=0)) >= count:
        raise PackFormatError("tokenizer: the character map leads outside of itself")
    if (replacements[values] & 0xC0 == 0x80).any():
        raise PackFormatError("tokenizer: the character map names a part of a character")
