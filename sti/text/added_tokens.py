"""Tokens that are found in a text as they are written, before anything else is done with it.

The reference is the ``tokenizers`` library: of tokens that begin at one place the longest is found,
and then told whether it may stand there, and how much white space around it it takes.

In: the tokens, with their ids. Out: the parts of a text between them and themselves. Knows nothing
of kinds of tokenizers. Tokens that are looked for in normalized text are for the caller to
normalize.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.longest_of import longest_of
from sti.text.normalizer import TABLES

MOST_ADDED_TOKENS = 1024
LONGEST_ADDED_TOKEN = 64
"""Characters. A place of a text may be compared with all those of an added token."""

Section = tuple[int, int, int | None]
"""``(start, stop, id)`` of an added token, or of what is between two, where the id is None."""


class AddedToken(NamedTuple):
    """How a token is looked for.

    Attributes:
        text: a word of the vocabulary.
        normalized: in the normalized text, for its own normalized form, rather than in the text.
        lstrip, rstrip: it takes all white space before it, or after it.
        single_word: only where no letter, mark or digit stands beside it.
    """

    text: str
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values, without those that are false."""
        return {name: value for name, value in self._asdict().items() if value}

    @classmethod
    def from_json(cls, fields: JsonFields) -> AddedToken:
        """What ``to_json`` wrote.

        Raises:
            The error of the fields: one is ill-typed or unknown, or there is no text.
        """
        fields.only(*cls._fields)
        if not fields.text("text"):
            raise fields.fail("text", "a string that is not empty")
        flags = {name: fields.flag(name) for name in cls._fields[1:] if fields.has(name)}
        return cls(fields.text("text"), **flags)

    @property
    def plain(self) -> bool:
        """Whether it is found wherever it is written, and takes nothing else."""
        return not any(self[1:])


class AddedTokens:
    """Tokens to be found in texts.

    Args:
        tokens: by what is looked for, with their ids; none of them empty.
        chunk_chars: how many characters are looked through at a time.
        cut: where a text may be cut in two from a place on; None where it must not be.

    Raises:
        PackFormatError: tokens begin alike in too many ways.

    Safe to share between threads.
    """

    def __init__(
        self,
        tokens: Mapping[str, tuple[AddedToken, int]],
        *,
        chunk_chars: int,
        cut: Callable[[str, int], int] | None,
    ) -> None:
        try:
            self._pattern = re.compile(longest_of(tokens))
        except ValueError as error:
            raise PackFormatError(f"tokenizer: special tokens: {error}") from error
        self._ids = {text: number for text, (_, number) in tokens.items()}
        self._flagged = {text: token for text, (token, _) in tokens.items() if any(token[2:])}
        self._takes_space = any(token.lstrip for token in self._flagged.values())
        self._longest = max(map(len, tokens), default=1)
        self._chunk_chars = chunk_chars
        self._cut = cut

    def sections(self, text: str) -> Iterable[Section]:
        """The text from its beginning to its end, cut at tokens and where chunks end."""
        if len(text) <= self._chunk_chars and self._pattern.search(text) is None:
            return ((0, len(text), None),) if text else ()
        return self._sections(text)

    def _sections(self, text: str) -> Iterator[Section]:
        start = search = stop = 0
        while search < len(text):
            if stop < len(text) and stop - max(start, search) < self._chunk_chars:
                stop = self._stop(text, max(start, search))
            # No further than the chunk goes: mostly what comes after it is not needed.
            found = self._pattern.search(text, search, stop + self._longest - 1)
            if found is None or found.start() >= stop:
                if start < stop:
                    yield start, stop, None
                start, search = stop, max(search, stop)
                continue
            search = found.end()
            place = self._place(text, found, start)
            if place is None:
                continue
            begin, end = place
            if start < begin:
                yield start, begin, None
            if begin < end:  # its white space may be taken already
                yield begin, end, self._ids[found.group()]
            start = end
        if start < len(text):
            yield start, len(text), None

    def _place(self, text: str, found: re.Match[str], start: int) -> tuple[int, int] | None:
        """What a token takes of a text, from ``start`` on; None where it may not stand."""
        begin, end = found.span()
        token = self._flagged.get(found.group())
        if token is None:
            return begin, end
        if token.single_word and not _stands_alone(text, begin, end):
            return None
        if token.lstrip:
            begin = max(_space_before(text, begin, start), start)
        return begin, _space_after(text, end) if token.rstrip else end

    def _stop(self, text: str, start: int) -> int:
        """Where a chunk ends that begins at ``start``."""
        stop = start + self._chunk_chars
        if self._cut is None or stop >= len(text):
            return len(text)
        stop = self._cut(text, stop)
        # White space before a chunk may be that of a token which the chunk begins with.
        while self._takes_space and stop < len(text) and ord(text[stop - 1]) in TABLES.space:
            stop = self._cut(text, stop + 1)
        return stop


def _stands_alone(text: str, begin: int, end: int) -> bool:
    """Whether no word goes on before or after a part of a text."""
    before = begin > 0 and ord(text[begin - 1]) in TABLES.word
    return not before and not (end < len(text) and ord(text[end]) in TABLES.word)


def _space_before(text: str, at: int, least: int) -> int:
    """Where white space begins that ends at a place; not looked for before ``least``."""
    while at > least and ord(text[at - 1]) in TABLES.space:
        at -= 1
    return at


def _space_after(text: str, at: int) -> int:
    """Where white space ends that begins at a place."""
    while at < len(text) and ord(text[at]) in TABLES.space:
        at += 1
    return at
