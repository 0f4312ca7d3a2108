"""Text to words, as BERT does it: clean, separate ideographs, strip accents, lowercase, split.

Knows no vocabulary and no ids. Every character class and mapping comes from
``sti.text.unicode_tables`` rather than ``unicodedata`` or ``str``, so results do not depend on the
Python version.

In: text and the four options of the tokenizer. Out: the words of the text and, for callers that
need offsets, the index of the source character of every character in them.

All steps but one look at a single character, so they are folded into one ``str.translate`` table
filled on demand. The exception is canonical reordering, which matters only where combining
characters survive accent stripping (Hangul tone marks, musical stems, marks newer than the
reference library's tables). Texts with such a character go through the steps one by one.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable

from sti.text import unicode_tables
from sti.text.unicode_runs import runs

# Marks characters that may be reordered. A lone surrogate, which no valid text contains; text that
# contains it anyway goes through the steps one by one.
_MARKER = "\udfff"
TABLE_LIMIT = 16384
"""Characters remembered per table; more are computed each time."""

_PLAIN = 0xC0  # no character below it decomposes, combines or is a mark
_HANGUL_FIRST, _HANGUL_COUNT = 0xAC00, 11172
_LEADING, _VOWEL, _TRAILING = 0x1100, 0x1161, 0x11A7
_VOWELS, _TRAILINGS = 21, 28


class _CodeSet:
    """A set of code points as sorted runs. Immutable."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, table: str) -> None:
        found = [(first, last) for first, last, _ in runs(table)]
        self._firsts = [first for first, _ in found]
        self._lasts = [last for _, last in found]

    def __contains__(self, code: int) -> bool:
        at = bisect.bisect_right(self._firsts, code) - 1
        return at >= 0 and code <= self._lasts[at]


def _mapping(table: str) -> dict[int, str]:
    """Code point -> characters, from a generated table."""
    code = 0
    mapping: dict[int, str] = {}
    for entry in table.split(","):
        gap, *chars = entry.split()
        code += int(gap, 36)
        mapping[code] = "".join(chr(int(char, 36)) for char in chars)
    return mapping


class _Tables:
    """The generated tables, each unpacked at first use."""

    @functools.cached_property
    def control(self) -> _CodeSet:
        return _CodeSet(unicode_tables.CONTROL)

    @functools.cached_property
    def space(self) -> _CodeSet:
        return _CodeSet(unicode_tables.SPACE)

    @functools.cached_property
    def punctuation(self) -> _CodeSet:
        return _CodeSet(unicode_tables.PUNCTUATION)

    @functools.cached_property
    def mark(self) -> _CodeSet:
        return _CodeSet(unicode_tables.MARK)

    @functools.cached_property
    def word(self) -> _CodeSet:
        """Characters that an added token which must be a single word may not stand beside."""
        return _CodeSet(unicode_tables.WORD)

    @functools.cached_property
    def ideograph(self) -> _CodeSet:
        return _CodeSet(unicode_tables.IDEOGRAPH)

    @functools.cached_property
    def combining(self) -> dict[int, int]:
        """Canonical combining class of the characters for which it is not 0."""
        found = runs(unicode_tables.CLASS)
        return {code: tag[0] for first, last, tag in found for code in range(first, last + 1)}

    @functools.cached_property
    def lower(self) -> dict[int, str]:
        """Lower case of the characters that have one."""
        lower: dict[int, str] = _mapping(unicode_tables.LOWER_MANY)
        first = 0
        for word in unicode_tables.LOWER.split():
            run, step, delta = word.split(":")
            gap, _, more = run.partition(".")
            first += int(gap, 36)
            last = first + (int(more, 36) if more else 0)
            shift = int(delta, 36)
            for code in range(first, last + 1, int(step)):
                lower[code] = chr(code + shift)
        return lower

    @functools.cached_property
    def decomposition(self) -> dict[int, str]:
        """Full canonical decomposition of the characters that have one, Hangul apart."""
        return _mapping(unicode_tables.DECOMPOSITION)


TABLES = _Tables()
"""What this tokenizer holds of each character; shared, and safe to share between threads."""


def decompose(char: str) -> str:
    """Full canonical decomposition of one character."""
    code = ord(char)
    if code < _PLAIN:
        return char
    syllable = code - _HANGUL_FIRST
    if 0 <= syllable < _HANGUL_COUNT:
        rest, trailing = divmod(syllable, _TRAILINGS)
        leading, vowel = divmod(rest, _VOWELS)
        end = chr(_TRAILING + trailing) if trailing else ""
        return chr(_LEADING + leading) + chr(_VOWEL + vowel) + end
    return TABLES.decomposition.get(code, char)


class CharTable(dict[int, str]):
    """A ``str.translate`` table that calls ``answer`` for each code point it does not have yet.

    Safe to share between threads: at worst two of them compute the same code point.
    """

    __slots__ = ("_answer", "_limit")

    def __init__(self, answer: Callable[[int], str], limit: int) -> None:
        super().__init__()
        self._answer = answer
        self._limit = limit

    def __missing__(self, code: int) -> str:
        text = self._answer(code)
        if len(self) < self._limit:
            self[code] = text
        return text


class TextNormalizer:
    """The normalizing and splitting steps for one choice of options.

    Args:
        clean_text: drop control characters (private use and U+FFFD included), and turn all white
            space into plain spaces.
        handle_chinese_chars: make every ideograph a word.
        strip_accents: decompose canonically and drop nonspacing marks.
        lowercase: lower case, character by character.
        part_words: put spaces around punctuation, and in place of other white space.
        table_limit: characters remembered in each of three tables.

    Safe to share between threads. Lone surrogates pass through as ordinary characters.
    """

    __slots__ = (
        "_clean_text",
        "_finished",
        "_lowercase",
        "_part_ideographs",
        "_part_words",
        "_prepared",
        "_strip_accents",
        "_table",
    )

    def __init__(
        self,
        *,
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: bool,
        lowercase: bool,
        part_words: bool = True,
        table_limit: int = TABLE_LIMIT,
    ) -> None:
        self._clean_text = clean_text
        self._part_ideographs = handle_chinese_chars
        self._strip_accents = strip_accents
        self._lowercase = lowercase
        self._part_words = part_words
        self._prepared = CharTable(self._prepare, table_limit)
        self._finished = CharTable(self._finish, table_limit)
        self._table = CharTable(self._all_steps, table_limit)

    def split(self, text: str) -> list[str]:
        """The words of ``text``; empty strings between them are to be skipped."""
        normalized = text.translate(self._table)
        if _MARKER in normalized:
            normalized = self.by_definition(text)[0]
        return normalized.split(" ")

    def align(self, text: str) -> tuple[list[str], list[int]]:
        """The words of ``split`` and where they come from.

        Returns:
            The same list as ``split``, and for every character of its entries joined by single
            spaces the index in ``text`` of its source character.
        """
        table = self._table
        pieces = [table[ord(char)] for char in text]
        normalized = "".join(pieces)
        if _MARKER in normalized:
            normalized, source = self.by_definition(text)
        else:
            source = [index for index, piece in enumerate(pieces) for _ in piece]
        return normalized.split(" "), source

    def _prepare(self, code: int) -> str:
        """A character after cleaning and separating ideographs."""
        if self._clean_text:
            if code in TABLES.control:
                return ""
            if code in TABLES.space:
                return " "
        if self._part_ideographs and code in TABLES.ideograph:
            return f" {chr(code)} "
        return chr(code)

    def _finish(self, code: int) -> str:
        """A character, decomposed where that is asked for, after the steps that are left."""
        if self._strip_accents and code >= _PLAIN and code in TABLES.mark:
            return ""
        text = TABLES.lower.get(code) if self._lowercase else None
        text = text or chr(code)
        return "".join(map(_part, text)) if self._part_words else text

    def _all_steps(self, code: int) -> str:
        """One character after all steps, or the marker where its neighbours matter."""
        text = self._prepare(code)
        if self._strip_accents and code >= _PLAIN:
            text = "".join(decompose(char) for char in text)
            if any(ord(c) in TABLES.combining and ord(c) not in TABLES.mark for c in text):
                return _MARKER
        return "".join(self._finish(ord(char)) for char in text)

    def by_definition(self, text: str) -> tuple[str, list[int]]:
        """Normalized text and sources, step by step and with canonical reordering.

        ``split`` and ``align`` give the same for every text, and resort to this for some.
        """
        prepared, finished = self._prepared, self._finished
        chars = [(c, at) for at, char in enumerate(text) for c in prepared[ord(char)]]
        if self._strip_accents:
            chars = _reorder(chars)
        pieces = [(finished[ord(char)], at) for char, at in chars]
        normalized = "".join(piece for piece, _ in pieces)
        return normalized, [at for piece, at in pieces for _ in piece]


def _part(char: str) -> str:
    """Spaces in place of a space and around punctuation."""
    if ord(char) in TABLES.space:
        return " "
    return f" {char} " if ord(char) in TABLES.punctuation else char


def _reorder(chars: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Canonical decomposition and order of ``(character, source)`` pairs.

    Like the reference library, takes the n-th character that begins a decomposition to come from
    the n-th source, whatever its place before reordering.
    """
    combining = TABLES.combining
    ordered: list[tuple[str, bool]] = []
    run: list[tuple[int, str, bool]] = []
    for char, _ in chars:
        for place, piece in enumerate(decompose(char)):
            rank = combining.get(ord(piece), 0)
            if rank:
                run.append((rank, piece, place == 0))
                continue
            ordered += [(mark, begins) for _, mark, begins in sorted(run, key=lambda m: m[0])]
            run.clear()
            ordered.append((piece, place == 0))
    ordered += [(mark, begins) for _, mark, begins in sorted(run, key=lambda m: m[0])]
    result: list[tuple[str, int]] = []
    at = -1
    for piece, begins in ordered:
        at += begins
        result.append((piece, chars[at][1]))
    return result
