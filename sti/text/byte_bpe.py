"""Byte-level BPE: text to words, words to bytes, and bytes merged to the words of a vocabulary.

The reference is the ``tokenizers`` library with the ByteLevel pre-tokenizer and BPE: ids, offsets
and word ids equal its own. A vocabulary holds each byte as the character that stands for it.

In: settings, a vocabulary, and the arrays of its merges. Out: ids and spans of text between added
tokens. Knows nothing of added tokens, templates or limits of a sequence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.byte_words import BYTE_CHARS, word_bytes, words
from sti.text.merges import TABLES, Merges
from sti.text.normalizer_steps import SPACES
from sti.text.text_model import Span
from sti.text.vocabulary import Vocabulary

KIND = "byte_bpe"
__all__ = ["KIND", "TABLES", "ByteBpe", "ByteBpeSettings"]

WORDS_REMEMBERED = 16384
"""Words whose ids are remembered; then all are forgotten."""

LONGEST_REMEMBERED = 32
"""Characters of a word that is remembered: longer ones hardly come again."""

_TRIMMED = SPACES + BYTE_CHARS[ord(" ")]
"""What does not count to the span of an added token at its ends."""

# A text may be cut before a space between two words whatever comes first; before the marks of
# languages without spaces where no space is put in front of what follows.
_SPACE = r"(?<=\S) (?=\S)"
_MARK = (
    r"(?<=[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fef])[\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f]"
)


class ByteBpeSettings(NamedTuple):
    """What only this kind of tokenizer has; stored in a pack's manifest as JSON.

    Attributes:
        add_prefix_space: put a space before a text that does not begin with one.
        part_words: tell words apart before merging; otherwise a text is one word.
        whole_words: a word that is in the vocabulary is one token, whatever the merges say.
        trim_offsets: spaces at either end of a token do not count to its span.
        trim_prefix_space: but a single one at the beginning of the whole text does, as if it was
            put there.
    """

    add_prefix_space: bool
    part_words: bool
    whole_words: bool
    trim_offsets: bool
    trim_prefix_space: bool

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        return dict(self._asdict())

    @classmethod
    def from_json(cls, fields: JsonFields) -> ByteBpeSettings:
        """The settings that ``to_json`` wrote; raises the error of the fields."""
        return cls(*(fields.flag(name) for name in cls._fields))

    def named_words(self) -> tuple[str, ...]:
        """Words of the vocabulary that stand for something: none, as no byte is unknown."""
        return ()


class ByteBpe:
    """A byte-level BPE tokenizer for one vocabulary.

    Args:
        settings: its options.
        vocabulary: words, in the characters of ``BYTE_CHARS``; a word's line is its id.
        tables: the arrays of ``TABLES``.
        words_remembered: words whose ids are kept; changes no answer.

    Raises:
        PackFormatError: the tables cannot be of this vocabulary, or it lacks a byte.

    Safe to share between threads. Lone surrogates are taken for U+FFFD.
    """

    def __init__(
        self,
        settings: ByteBpeSettings,
        vocabulary: Vocabulary,
        tables: Mapping[str, NDArray[Any]],
        *,
        words_remembered: int = WORDS_REMEMBERED,
    ) -> None:
        self._settings = settings
        self._vocabulary = vocabulary
        self._merges = Merges(tables, len(vocabulary))
        self._byte_ids = [self._byte_id(byte) for byte in range(256)]
        self._words_remembered = words_remembered
        self._remembered: dict[str, tuple[int, ...]] = {}
        prefix = settings.add_prefix_space
        self._cut = re.compile(_SPACE if prefix else f"{_SPACE}|{_MARK}")

    @property
    def unknown(self) -> int | None:
        """The id of what no word of the vocabulary is of; None where there is no such thing."""
        return None  # all bytes are words

    def ids(self, text: str, limit: int | None, *, first: int) -> list[int]:
        """Ids of a text; may stop soon after more than ``limit`` are found.

        ``first``, which is not 0 at the beginning of the whole text, changes spans alone.
        """
        most = sys.maxsize if limit is None else limit
        remembered = self._remembered
        ids: list[int] = []
        for word in self._words(self._prefix(text) + text):
            known = remembered.get(word)
            ids += self._word_ids(word) if known is None else known
            if len(ids) > most:
                break
        return ids

    def spans(self, text: str, count: int, *, first: int, begin: int = -1) -> list[Span]:
        """``(start, end, word)`` of the first ``count`` tokens; words are counted from 0.

        Token ``begin`` is trimmed as one at the beginning of the whole text.
        """
        put = len(self._prefix(text))
        spans: list[Span] = []
        at = -put
        for index, word in enumerate(self._words(self._prefix(text) + text)):
            if len(spans) >= count:
                break
            for low, high, leading, trailing in self._pieces(word):
                # A space that was put there lies where the first character does.
                start, stop = max(at + low, 0), max(at + high, 1)
                if self._settings.trim_offsets:
                    whole = (first and start == 0) or len(spans) == begin
                    if leading == 1 and whole and self._settings.trim_prefix_space:
                        leading = 0
                    start = min(start + leading, stop)
                    if stop >= trailing:
                        stop = max(stop - trailing, start)
                spans.append((start, stop, index))
            at += len(word)
        return spans[:count]

    def added_span(self, text: str, *, first: bool) -> tuple[int, int]:
        """Which characters of an added token, with the white space it takes, its span has."""
        if not self._settings.trim_offsets:
            return 0, len(text)
        leading = len(text) - len(text.lstrip(_TRIMMED))
        if leading == 1 and first and self._settings.trim_prefix_space:
            leading = 0
        return leading, max(len(text.rstrip(_TRIMMED)), leading)

    def cut(self, text: str, at: int) -> int:
        """The first place from ``at`` on where a text may be cut in two; its length if none."""
        found = self._cut.search(text, at) if self._settings.part_words else None
        return len(text) if found is None else found.start()

    def normalized(self, text: str) -> tuple[str, Sequence[int]]:
        """The text as it is, and the source of each of its characters."""
        return text, range(len(text))

    def after_normalizer(self) -> ByteBpe:
        """The same, as it has no normalizer."""
        return self

    def _byte_id(self, byte: int) -> int:
        """Id of the word that is one byte."""
        found = self._vocabulary.find(BYTE_CHARS[byte])
        if found is None:
            raise PackFormatError(
                f"tokenizer: the byte 0x{byte:02x}, {BYTE_CHARS[byte]!r}, is not in the vocabulary"
            )
        return found

    def _prefix(self, text: str) -> str:
        """What is put before a text."""
        put = self._settings.add_prefix_space and text and not text.startswith(" ")
        return " " if put else ""

    def _words(self, text: str) -> Sequence[str]:
        if self._settings.part_words:
            return words(text)
        return [text] if text else []

    def _word_ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word that was not remembered."""
        ids = tuple(self._merged(word, word_bytes(word))[0])
        if len(word) <= LONGEST_REMEMBERED:
            if len(self._remembered) >= self._words_remembered:
                self._remembered = {}
            self._remembered[word] = ids
        return ids

    def _merged(self, word: str, data: bytes) -> tuple[Sequence[int], Sequence[int]]:
        """Ids of the tokens of a word, and where each ends in its bytes."""
        if self._settings.whole_words:
            found = self._vocabulary.find("".join(BYTE_CHARS[byte] for byte in data))
            if found is not None:
                return (found,), (len(data),)
        return self._merges.merged([self._byte_ids[byte] for byte in data])

    def _pieces(self, word: str) -> Iterator[tuple[int, int, int, int]]:
        """``(start, end, leading spaces, trailing spaces)`` of the tokens of a word."""
        data = word_bytes(word)
        known = self._remembered.get(word)
        ends = self._merged(word, data)[1] if known is None or len(known) > 1 else (len(data),)
        chars: Sequence[int] = range(len(data))
        if len(data) > len(word):
            chars = [at for at, char in enumerate(word) for _ in word_bytes(char)]
        begin = 0
        for end in ends:
            piece = data[begin:end]
            leading, trailing = (
                len(piece) - len(cut) for cut in (piece.lstrip(b" "), piece.rstrip(b" "))
            )
            yield chars[begin], chars[end - 1] + 1, leading, trailing
            begin = end
