"""WordPiece: words to the longest pieces that fit, as BERT does it.

The reference is the Hugging Face ``tokenizers`` library with BertNormalizer, BertPreTokenizer and
WordPiece. Splitting text into words is done by ``sti.text.normalizer``.

In: settings (from a pack's manifest) and a vocabulary. Out: a ``TextModel``. Knows nothing of added
tokens, templates or limits of a sequence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.normalizer import TextNormalizer
from sti.text.text_model import Span
from sti.text.vocabulary import Vocabulary, encoded

KIND = "wordpiece"

MOST_WORD_CHARS = 128
"""Of ``max_word_chars``: pieces of a word are looked for again from wherever one ends."""

LONGEST_PREFIX = 64
"""Characters of ``continuing_prefix``."""

WORDS_REMEMBERED = 16384
"""Words whose ids are remembered; then all are forgotten."""

TABLES: Mapping[str, np.dtype[Any]] = {}
"""Resident tensors that this kind needs besides the vocabulary and its index: none."""

# A text may be cut before any of these: each of them always ends the word before it.
_CUT_ASCII = r"\t\n\r !-/:-@\[-`{-~"
_CUT_IDEOGRAPHS = "\u4e00-\u9fff"


class WordPieceSettings(NamedTuple):
    """What a pack's manifest says of a WordPiece tokenizer.

    Attributes:
        lowercase: convert the text to lower case, character by character.
        strip_accents: decompose canonically and drop nonspacing marks.
        clean_text: drop control characters, and turn all white space into plain spaces.
        handle_chinese_chars: make every ideograph a word.
        unk_token: the word of the vocabulary that stands for words without pieces.
        continuing_prefix: what marks a piece that continues a word, e.g. ``"##"``.
        max_word_chars: longer words become ``unk_token`` whole.
    """

    lowercase: bool
    strip_accents: bool
    clean_text: bool
    handle_chinese_chars: bool
    unk_token: str
    continuing_prefix: str
    max_word_chars: int

    @classmethod
    def from_json(cls, fields: JsonFields) -> WordPieceSettings:
        """The settings among the fields of a manifest's tokenizer.

        Raises:
            The error of the fields: one is missing, ill-typed or beyond its bound.
        """
        if len(fields.text("continuing_prefix")) > LONGEST_PREFIX:
            raise fields.fail("continuing_prefix", f"at most {LONGEST_PREFIX} characters")
        return cls(
            lowercase=fields.flag("lowercase"),
            strip_accents=fields.flag("strip_accents"),
            clean_text=fields.flag("clean_text"),
            handle_chinese_chars=fields.flag("handle_chinese_chars"),
            unk_token=fields.text("unk_token"),
            continuing_prefix=fields.text("continuing_prefix"),
            max_word_chars=fields.integer("max_word_chars", least=1, most=MOST_WORD_CHARS),
        )

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        return self._asdict()

    def named_words(self) -> tuple[str, ...]:
        """Words of the vocabulary that stand for something."""
        return (self.unk_token,)


class WordPiece:
    """The WordPiece model for one vocabulary.

    Args:
        settings: options.
        vocabulary: the words.
        tables: none are needed.
        words_remembered: words whose ids are kept, so that they need no second look-up; bounds
            memory and changes no answer.

    Raises:
        PackFormatError: the vocabulary lacks ``unk_token``.

    Safe to share between threads. Lone surrogates count as control characters.
    """

    def __init__(
        self,
        settings: WordPieceSettings,
        vocabulary: Vocabulary,
        tables: Mapping[str, NDArray[Any]],
        *,
        words_remembered: int = WORDS_REMEMBERED,
    ) -> None:
        del tables
        self._settings = settings
        self._vocabulary = vocabulary
        self._words_remembered = words_remembered
        unk = vocabulary.find(settings.unk_token)
        if unk is None:
            raise PackFormatError(f"tokenizer: {settings.unk_token!r} is not in the vocabulary")
        self._unk = unk
        self._prefix = encoded(settings.continuing_prefix)
        self._normalizer = TextNormalizer(
            clean_text=settings.clean_text,
            handle_chinese_chars=settings.handle_chinese_chars,
            strip_accents=settings.strip_accents,
            lowercase=settings.lowercase,
        )
        self._remembered: dict[str, tuple[int, ...]] = {"": ()}

    @property
    def unknown(self) -> int | None:
        """The id of what no word of the vocabulary is of; None where there is no such thing."""
        return self._unk

    def ids(self, text: str, limit: int | None, *, first: int) -> list[int]:
        """Ids of all tokens of a text."""
        del limit, first
        ids: list[int] = []
        remembered = self._remembered
        for word in self._normalizer.split(text):
            known = remembered.get(word)
            ids += self._word_ids(word) if known is None else known
        return ids

    def spans(self, text: str, count: int, *, first: int, begin: int = -1) -> list[Span]:
        """``(start, end, word)`` of the first ``count`` tokens of a text."""
        del first, begin
        spans: list[Span] = []
        words, source = self._normalizer.align(text)
        at = index = 0
        for word in words:
            begin = at
            for end in self._ends(word):
                spans.append((source[begin], source[at + end - 1] + 1, index))
                begin = at + end
            index += bool(word)
            at += len(word) + 1
        return spans[:count] if len(spans) > count else spans

    def added_span(self, text: str, *, first: bool) -> tuple[int, int]:
        """All of an added token."""
        del first
        return 0, len(text)

    def cut(self, text: str, at: int) -> int:
        """The first place from ``at`` on where a word ends; the length of the text if none."""
        found = _cut_pattern(self._settings.handle_chinese_chars).search(text, at)
        return len(text) if found is None else found.start()

    def normalized(self, text: str) -> tuple[str, Sequence[int]]:
        """What the normalizer makes of a text, not yet split, and the sources of characters."""
        return self._unsplit.by_definition(text)

    def after_normalizer(self) -> WordPiece:
        """The same model for texts that are normalized already."""
        settings = self._settings._replace(
            lowercase=False, strip_accents=False, clean_text=False, handle_chinese_chars=False
        )
        remembered = self._words_remembered
        return WordPiece(settings, self._vocabulary, {}, words_remembered=remembered)

    @functools.cached_property
    def _unsplit(self) -> TextNormalizer:
        """The normalizer without the step that splits."""
        settings = self._settings
        return TextNormalizer(
            clean_text=settings.clean_text,
            handle_chinese_chars=settings.handle_chinese_chars,
            strip_accents=settings.strip_accents,
            lowercase=settings.lowercase,
            part_words=False,
        )

    def _word_ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word that was not remembered."""
        ids = tuple(piece for piece, _ in self._pieces(word))
        if len(word) <= self._settings.max_word_chars:
            if len(self._remembered) >= self._words_remembered:
                self._remembered = {"": ()}
            self._remembered[word] = ids
        return ids

    def _ends(self, word: str) -> Sequence[int]:
        """Where the pieces of a word end."""
        known = self._remembered.get(word)
        if known is not None and len(known) <= 1:  # one token, known or unknown
            return (len(word),) * len(known)
        return [end for _, end in self._pieces(word)]

    def _pieces(self, word: str) -> list[tuple[int, int]]:
        """``(id, end)`` of the pieces of a word: repeatedly the longest piece that fits."""
        size = len(word)
        unknown = [(self._unk, size)]
        if size > self._settings.max_word_chars:
            return unknown
        text = encoded(word)
        pieces: list[tuple[int, int]] = []
        end, prefix = 0, b""
        while end < len(text):
            found = self._vocabulary.longest(prefix + text[end:], at_least=len(prefix) + 1)
            if found is None:
                return unknown
            end += found[1] - len(prefix)
            pieces.append((found[0], end if len(text) == size else len(text[:end].decode())))
            prefix = self._prefix
        return pieces


@functools.cache
def _cut_pattern(ideographs: bool) -> re.Pattern[str]:
    """Characters that a long text may be cut before; compiled at first use."""
    return re.compile(f"[{_CUT_ASCII}{_CUT_IDEOGRAPHS if ideographs else ''}]")
