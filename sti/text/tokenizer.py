"""Texts to token ids, type ids, offsets and word ids: what all kinds of tokenizers share.

The reference is the Hugging Face ``tokenizers`` library: ids, offsets, word ids and truncation
equal its own. What happens between added tokens is the business of a ``TextModel``.

In: a ``TokenizerSpec`` (from a pack's manifest), a vocabulary, tables of its kind, and text. Out:
``Encoding``. Knows nothing of models or tensors.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.text.encoding import Alignment, Encoding
from sti.text.kinds import KINDS
from sti.text.longest_of import longest_of
from sti.text.text_model import Span
from sti.text.tokenizer_spec import TokenizerSpec
from sti.text.vocabulary import Vocabulary

_SPECIALS_SINGLE = 2  # CLS A SEP
_SPECIALS_PAIR = 3  # CLS A SEP B SEP

CHUNK_CHARS = 8192
"""A long text is tokenized in chunks of about this many characters."""


class Tokenizer:
    """A tokenizer for one vocabulary.

    Args:
        spec: kind, options and special tokens.
        vocab: UTF-8 words joined by newlines; a word's id is its line, counted from 0.
        tables: what the kind needs besides, by the names that it lists.
        chunk_chars: characters of a text that are tokenized at a time; bounds memory and changes no
            answer.

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
        tables: Mapping[str, NDArray[Any]] | None = None,
        *,
        chunk_chars: int = CHUNK_CHARS,
    ) -> None:
        self.spec = spec
        self._chunk_chars = chunk_chars
        self._vocabulary = Vocabulary(vocab) if isinstance(vocab, bytes) else vocab
        self._model = KINDS[spec.kind].model(spec.settings, self._vocabulary, tables or {})
        named = (spec.cls_token, spec.sep_token, spec.pad_token)
        self._cls, self._sep, self.pad_id = map(self._id, named)
        self._special_ids = {word: self._id(word) for word in spec.special_tokens}
        try:
            self._special = re.compile(longest_of(spec.special_tokens))
        except ValueError as error:
            raise PackFormatError(f"tokenizer: special tokens: {error}") from error
        self._special_chars = max(map(len, spec.special_tokens), default=1)

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

        def spans(counts: list[int]) -> list[list[Span]]:
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
        spans: Callable[[list[int]], list[list[Span]]],
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

        def align() -> list[Span]:
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
        for start, stop, special in self._sections(text):
            if special is not None:
                ids.append(special)
            else:
                left = None if limit is None else limit - len(ids)
                ids += self._model.ids(text[start:stop], left, first=start == 0)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _spans(self, text: str, count: int) -> list[Span]:
        """``(start, end, word)`` of the first ``count`` tokens of a text."""
        spans: list[Span] = []
        index = 0
        for at, stop, special in self._sections(text):
            if len(spans) >= count:
                break
            if special is not None:
                spans.append((at, stop, index))
                index += 1
                continue
            found = self._model.spans(text[at:stop], count - len(spans), first=at == 0)
            spans += [(at + start, at + end, index + word) for start, end, word in found]
            index += found[-1][2] + 1 if found else 0
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
        return len(text) if len(text) - start <= size else self._model.cut(text, start + size)

    def _id(self, word: str) -> int:
        """Id of a word that the spec names."""
        found = self._vocabulary.find(word)
        if found is None:
            raise PackFormatError(f"tokenizer: {word!r} is not in the vocabulary")
        return found


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens to keep of each text of a pair, by the rule of the reference library."""
    if first + second <= room:
        return first, second
    shorter, longer = min(first, second), max(first, second)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)
