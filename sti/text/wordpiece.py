"""WordPiece: text to token ids, type ids, offsets and word ids.

The reference is the Hugging Face ``tokenizers`` library with BertNormalizer, BertPreTokenizer and
WordPiece: ids, offsets, word ids and truncation equal its own. Knows nothing of models or tensors;
splitting text into words is done by ``sti.text.normalizer``.

In: a ``TokenizerSpec`` (from a pack's manifest), a vocabulary blob, and text. Out: ``Encoding``.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.encoding import Alignment, Encoding
from sti.text.longest_of import longest_of
from sti.text.normalizer import TextNormalizer
from sti.text.vocabulary import Vocabulary, encoded

KIND = "wordpiece"
_SPECIALS_SINGLE = 2  # CLS A SEP
_SPECIALS_PAIR = 3  # CLS A SEP B SEP

MOST_WORD_CHARS = 128
"""Of ``max_word_chars``: pieces of a word are looked for again from wherever one ends."""

MOST_SPECIAL_TOKENS = 1024
LONGEST_SPECIAL_TOKEN = 64
"""Characters. A place of a text may be compared with all those of a special token."""

CHUNK_CHARS = 8192
"""A long text is tokenized in chunks of about this many characters."""

WORDS_REMEMBERED = 16384
"""Words whose ids are remembered; then all are forgotten."""

# A long text may be cut before any of these: each of them always ends the word before it.
_CUT_ASCII = r"\t\n\r !-/:-@\[-`{-~"
_CUT_IDEOGRAPHS = "\u4e00-\u9fff"


class TokenizerSpec(NamedTuple):
    """Everything about a tokenizer except its vocabulary; stored in a pack's manifest as JSON.

    Attributes:
        kind: always ``"wordpiece"``.
        lowercase: convert the text to lower case, character by character.
        strip_accents: decompose canonically and drop nonspacing marks.
        clean_text: drop control characters, and turn all white space into plain spaces.
        handle_chinese_chars: make every ideograph a word.
        unk_token, cls_token, sep_token, pad_token: words of the vocabulary.
        continuing_prefix: what marks a piece that continues a word, e.g. ``"##"``.
        max_word_chars: longer words become ``unk_token`` whole.
        max_tokens: sequence limit, special tokens included.
        special_tokens: words of the vocabulary recognised verbatim in the text, before all else.
    """

    kind: str
    lowercase: bool
    strip_accents: bool
    clean_text: bool
    handle_chinese_chars: bool
    unk_token: str
    cls_token: str
    sep_token: str
    pad_token: str
    continuing_prefix: str
    max_word_chars: int
    max_tokens: int
    special_tokens: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        return {**self._asdict(), "special_tokens": list(self.special_tokens)}

    @classmethod
    def from_json(cls, obj: object) -> TokenizerSpec:
        """The spec that ``to_json`` wrote.

        Raises:
            PackFormatError: a field is missing, ill-typed or unknown, the kind is unknown, or
                numbers or special tokens cannot be.
        """
        fields = JsonFields(obj, where="tokenizer", error=PackFormatError)
        unknown = sorted(set(fields.keys()) - set(cls._fields))
        if unknown:
            raise PackFormatError(
                f"tokenizer: setting {unknown[0]!r:.80} is unknown to this version of sti: update "
                "sti, or build the pack again"
            )
        if fields.text("kind") != KIND:
            raise PackFormatError(
                f"tokenizer: kind {fields.text('kind')!r:.80} is unknown; this version of sti "
                f"knows {KIND!r}: update sti, or build the pack again"
            )
        special_tokens = fields.texts("special_tokens")
        if "" in special_tokens:
            raise fields.fail("special_tokens", "a list of strings that are not empty")
        found = cls(
            kind=KIND,
            lowercase=fields.flag("lowercase"),
            strip_accents=fields.flag("strip_accents"),
            clean_text=fields.flag("clean_text"),
            handle_chinese_chars=fields.flag("handle_chinese_chars"),
            unk_token=fields.text("unk_token"),
            cls_token=fields.text("cls_token"),
            sep_token=fields.text("sep_token"),
            pad_token=fields.text("pad_token"),
            continuing_prefix=fields.text("continuing_prefix"),
            max_word_chars=fields.integer("max_word_chars", least=1),
            max_tokens=fields.integer("max_tokens", least=_SPECIALS_PAIR),
            special_tokens=special_tokens,
        )
        found._check(fields)
        return found

    def _check(self, fields: JsonFields) -> None:
        """Refuse settings that would make looking words up slow or ambiguous."""
        named = (self.unk_token, self.cls_token, self.sep_token, self.pad_token)
        if len(set(named)) != len(named):
            raise PackFormatError("tokenizer: two of unk, cls, sep and pad are the same token")
        if self.max_word_chars > MOST_WORD_CHARS:
            raise fields.fail("max_word_chars", f"at most {MOST_WORD_CHARS}")
        special = self.special_tokens
        longest = max(map(len, (*special, *named, self.continuing_prefix)))
        if len(special) > MOST_SPECIAL_TOKENS or longest > LONGEST_SPECIAL_TOKEN:
            raise PackFormatError(
                f"tokenizer: more than {MOST_SPECIAL_TOKENS} special tokens, or one of more than "
                f"{LONGEST_SPECIAL_TOKEN} characters"
            )
        if len(set(special)) != len(special):
            raise PackFormatError("tokenizer: a special token is listed twice")


class Tokenizer:
    """A WordPiece tokenizer for one vocabulary.

    Args:
        spec: options and special tokens.
        vocab: UTF-8 words joined by newlines; a word's id is its line, counted from 0.
        chunk_chars: characters of a text that are normalized at a time.
        words_remembered: words whose ids are kept, so that they need no second look-up.

    The last two bound memory and change no answer.

    Raises:
        PackFormatError: the vocabulary is not UTF-8, contains a word twice, or lacks a word that
            the spec names; or special tokens begin alike in too many ways.

    Safe to share between threads. Text may contain anything; lone surrogates count as control
    characters.
    """

    def __init__(
        self,
        spec: TokenizerSpec,
        vocab: bytes | Vocabulary,
        *,
        chunk_chars: int = CHUNK_CHARS,
        words_remembered: int = WORDS_REMEMBERED,
    ) -> None:
        self.spec = spec
        self._chunk_chars = chunk_chars
        self._words_remembered = words_remembered
        self._vocabulary = Vocabulary(vocab) if isinstance(vocab, bytes) else vocab
        named = (spec.unk_token, spec.cls_token, spec.sep_token, spec.pad_token)
        self._unk, self._cls, self._sep, self.pad_id = map(self._id, named)
        self._special_ids = {word: self._id(word) for word in spec.special_tokens}
        self._prefix = encoded(spec.continuing_prefix)
        self._normalizer = TextNormalizer(
            clean_text=spec.clean_text,
            handle_chinese_chars=spec.handle_chinese_chars,
            strip_accents=spec.strip_accents,
            lowercase=spec.lowercase,
        )
        try:
            self._special = re.compile(longest_of(spec.special_tokens))
        except ValueError as error:
            raise PackFormatError(f"tokenizer: special tokens: {error}") from error
        self._special_chars = max(map(len, spec.special_tokens), default=1)
        self._remembered: dict[str, tuple[int, ...]] = {"": ()}

    @property
    def vocab_size(self) -> int:
        """Words in the vocabulary."""
        return len(self._vocabulary)

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """Tokens of a text, or of a pair of texts, cut to ``max_tokens``.

        A single text loses its tail; of a pair the longer text is cut first.
        """
        if pair is None:
            room = self.spec.max_tokens - _SPECIALS_SINGLE
            ids = self._text_ids(text, room)
            return self._join([ids[:room]], len(ids) > room, lambda n: [self._spans(text, n[0])])
        room = self.spec.max_tokens - _SPECIALS_PAIR
        first, second = self._text_ids(text, room), self._text_ids(pair, room)
        if room % 2 and len(first) > room and len(second) > room:
            # The odd token goes to the longer text, so both must be counted to the end.
            first, second = self._text_ids(text, None), self._text_ids(pair, None)
        keep_first, keep_second = _longest_first(len(first), len(second), room)
        return self._join(
            [first[:keep_first], second[:keep_second]],
            len(first) + len(second) > room,
            lambda n: [self._spans(text, n[0]), self._spans(pair, n[1])],
        )

    def encode_text(self, text: str | tuple[str, str]) -> Encoding:
        """As ``encode``, for a text or a pair of texts."""
        return self.encode(text) if isinstance(text, str) else self.encode(*text)

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """Tokens of a text that is already split into words, cut to ``max_tokens``.

        A word may become several tokens, or none (white space, control characters); ``word_ids``
        are indices into ``words``, and offsets count from the beginning of the word.
        """
        room = self.spec.max_tokens - _SPECIALS_SINGLE
        ids: list[int] = []
        for word in words:
            ids += self._text_ids(word, room)
            if len(ids) > room:
                break

        def spans(counts: list[int]) -> list[list[tuple[int, int, int]]]:
            found = (
                (start, end, index)
                for index, word in enumerate(words)
                for start, end, _ in self._spans(word, counts[0])
            )
            return [list(itertools.islice(found, counts[0]))]

        return self._join([ids[:room]], len(ids) > room, spans)

    def _join(
        self,
        parts: list[list[int]],
        truncated: bool,
        spans: Callable[[list[int]], list[list[tuple[int, int, int]]]],
    ) -> Encoding:
        """``CLS A SEP`` or ``CLS A SEP B SEP``; ``spans`` returns the spans of the tokens kept."""
        ids = [self._cls]
        for part in parts:
            ids += part
            ids.append(self._sep)
        type_ids = np.zeros(len(ids), np.int64)
        counts = [len(part) for part in parts]
        type_ids[counts[0] + 2 :] = 1
        special = (0, 0, -1)

        def align() -> list[tuple[int, int, int]]:
            table = [special]
            for part in spans(counts):
                table += part
                table.append(special)
            return table

        return Encoding(np.array(ids, np.int64), type_ids, truncated, Alignment(align))

    def _text_ids(self, text: str, limit: int | None) -> list[int]:
        """Ids of a text without special tokens around it.

        Stops soon after more than ``limit`` are found: the rest would be cut off anyway.
        """
        ids: list[int] = []
        remembered = self._remembered
        for start, stop, special in self._sections(text):
            if special is not None:
                ids.append(special)
            else:
                for word in self._normalizer.split(text[start:stop]):
                    known = remembered.get(word)
                    ids += self._word_ids(word) if known is None else known
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _spans(self, text: str, count: int) -> list[tuple[int, int, int]]:
        """``(start, end, word)`` of the first ``count`` tokens of a text."""
        spans: list[tuple[int, int, int]] = []
        index = 0
        for start, stop, special in self._sections(text):
            if len(spans) >= count:
                break
            if special is not None:
                spans.append((start, stop, index))
                index += 1
                continue
            words, source = self._normalizer.align(text[start:stop])
            at = 0
            for word in words:
                begin = at
                for end in self._ends(word):
                    last = source[at + end - 1] + 1
                    spans.append((start + source[begin], start + last, index))
                    begin = at + end
                index += bool(word)
                at += len(word) + 1
        return spans[:count]

    def _sections(self, text: str) -> Iterator[tuple[int, int, int | None]]:
        """Independent parts of a text: ``(start, stop, id if it is a special token)``."""
        start = stop = 0
        while start < len(text):
            if stop < len(text) and stop - start < self._chunk_chars:
                stop = self._stop(text, start)
            # No further than the chunk goes: mostly what comes after it is not needed.
            found = self._special.search(text, start, stop + self._special_chars - 1)
            if found is None or found.start() >= stop:
                yield start, stop, None
                start = stop
                continue
            if start < found.start():
                yield start, found.start(), None
            start = found.end()
            yield found.start(), start, self._special_ids[found.group()]

    def _stop(self, text: str, start: int) -> int:
        """Where a chunk ends that begins at ``start``: where a word ends."""
        size = self._chunk_chars
        if len(text) - start <= size:
            return len(text)
        cut = _cut_pattern(self.spec.handle_chinese_chars).search(text, start + size)
        return len(text) if cut is None else cut.start()

    def _id(self, word: str) -> int:
        """Id of a word that the spec names."""
        found = self._vocabulary.find(word)
        if found is None:
            raise PackFormatError(f"tokenizer: {word!r} is not in the vocabulary")
        return found

    def _word_ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word that was not remembered."""
        ids = tuple(piece for piece, _ in self._pieces(word))
        if len(word) <= self.spec.max_word_chars:
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
        if size > self.spec.max_word_chars:
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


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens to keep of each text of a pair, by the rule of the reference library."""
    if first + second <= room:
        return first, second
    shorter, longer = min(first, second), max(first, second)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)
