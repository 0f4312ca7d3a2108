"""Texts to token ids, type ids, offsets and word ids: what all kinds of tokenizers share.

The reference is the Hugging Face ``tokenizers`` library: ids, offsets, word ids and truncation
equal its own. What happens between added tokens is the business of a ``TextModel``.

In: a ``TokenizerSpec`` (from a pack's manifest), a vocabulary, tables of its kind, and text. Out:
``Encoding``. Knows nothing of models or tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from sti.errors import InputError, PackFormatError
from sti.text.added_tokens import AddedToken, AddedTokens
from sti.text.encoding import Encoding
from sti.text.kinds import KINDS, AnyVocabulary
from sti.text.layout import SpansOf, layout_of, longest_first
from sti.text.text_model import Span, TextModel
from sti.text.tokenizer_spec import SIDES, TokenizerSpec

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
        PackFormatError: the vocabulary is not UTF-8, contains a word twice, holds none but added
            ones, or lacks a word that the spec names; special tokens begin alike in too many ways,
            or are nothing or the same when normalized.

    Safe to share between threads. Text may contain anything; lone surrogates count as control
    characters.
    """

    def __init__(
        self,
        spec: TokenizerSpec,
        vocab: bytes | AnyVocabulary,
        tables: Mapping[str, NDArray[Any]] | None = None,
        *,
        chunk_chars: int = CHUNK_CHARS,
    ) -> None:
        self.spec = spec
        kind = KINDS[spec.kind]
        whole = kind.indexing.vocabulary(vocab, None) if isinstance(vocab, bytes) else vocab
        self._vocabulary = whole
        if spec.added_words >= len(self._vocabulary):
            raise PackFormatError(
                f"tokenizer: {spec.added_words} words are added to a vocabulary of "
                f"{len(self._vocabulary)}, those included"
            )
        own = self._vocabulary.of_first(len(self._vocabulary) - spec.added_words)
        self._model = kind.model(spec.settings, own, tables or {})
        self.pad_id = self._id(spec.pad_token)
        for word in (spec.cls_token, spec.sep_token):
            self._id(word)  # which a template need not have
        self._single = layout_of(spec.around.single, self._id)
        self._pair = layout_of(spec.around.pair, self._id)
        self._left = spec.truncation_side != SIDES[0]
        added = [*map(AddedToken, spec.special_tokens), *spec.added_tokens]
        with_ids = {token.text: (token, self._id(token.text)) for token in added}
        verbatim = {text: found for text, found in with_ids.items() if not found[0].normalized}
        self._after: TextModel | None = None
        if len(verbatim) == len(with_ids):
            self._added = AddedTokens(verbatim, chunk_chars=chunk_chars, cut=self._model.cut)
            return
        # A token in normalized text may lie where a text could be cut otherwise.
        self._added = AddedTokens(verbatim, chunk_chars=chunk_chars, cut=None)
        self._after = self._model.after_normalizer()
        normalized: dict[str, tuple[AddedToken, int]] = {}
        for text, found in with_ids.items():
            if found[0].normalized:
                key = self._model.normalized(text)[0]
                if not key:
                    raise PackFormatError(f"tokenizer: {text!r} is nothing when normalized")
                if key in normalized:
                    other = normalized[key][0].text
                    raise PackFormatError(
                        f"tokenizer: {other!r} and {text!r} are the same when normalized"
                    )
                normalized[key] = found
        self._normalized = AddedTokens(normalized, chunk_chars=chunk_chars, cut=self._after.cut)

    @property
    def vocab_size(self) -> int:
        """Words in the vocabulary."""
        return len(self._vocabulary)

    @property
    def unknown(self) -> int | None:
        """The id of what no word of the vocabulary is of; None where there is no such thing."""
        return self._model.unknown

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """Tokens of a text, or of a pair of texts, cut to ``max_tokens``.

        A single text loses its end, or its beginning where that is the side to cut at; of a pair
        the longer text is cut first.

        Raises:
            InputError: a pair, where the tokenizer has no way to put two texts together.
        """
        if pair is None:
            room = self.spec.max_tokens - self._single.specials
            ids = self._text_ids(text, self._most(room))
            return self._single.filled(
                [ids], [min(len(ids), room)], self._spans_of([text]), left=self._left
            )
        if not self._pair.parts:
            raise InputError(
                "a pair of texts: the tokenizer of this model has no way to put two together; give "
                "it single texts"
            )
        room = self.spec.max_tokens - self._pair.specials
        most = self._most(room)
        first, second = self._text_ids(text, most), self._text_ids(pair, most)
        if most is not None and room % 2 and len(first) > room and len(second) > room:
            # The odd token goes to the longer text, so both must be counted to the end.
            first, second = self._text_ids(text, None), self._text_ids(pair, None)
        kept = longest_first(len(first), len(second), room)
        return self._pair.filled(
            [first, second], kept, self._spans_of([text, pair]), left=self._left
        )

    def encode_text(self, text: str | tuple[str, str]) -> Encoding:
        """As ``encode``, for a text or a pair of texts."""
        return self.encode(text) if isinstance(text, str) else self.encode(*text)

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """Tokens of a text that is already split into words, cut to ``max_tokens``.

        A word may become several tokens, or none (white space, control characters); ``word_ids``
        are indices into ``words``, and offsets count from the beginning of the word.
        """
        room = self.spec.max_tokens - self._single.specials
        most = self._most(room)
        ids: list[int] = []
        for word in words:
            ids += self._text_ids(word, most)
            if most is not None and len(ids) > most:
                break

        def spans(begins: Sequence[int], counts: Sequence[int]) -> list[list[Span]]:
            found: list[Span] = []
            for index, word in enumerate(words):
                left = counts[0] - len(found)
                if left <= 0:
                    break
                of_word = self._spans(word, left, begins[0] - len(found))
                found += ((start, end, index) for start, end, _ in of_word)
            return [found]

        return self._single.filled([ids], [min(len(ids), room)], spans, left=self._left)

    def _most(self, room: int) -> int | None:
        """Tokens of a text that are counted: those after them are cut off anyway."""
        return None if self._left else room

    def _spans_of(self, texts: Sequence[str]) -> SpansOf:
        return lambda begins, counts: [
            self._spans(text, count, begin)
            for text, begin, count in zip(texts, begins, counts, strict=True)
        ]

    def _text_ids(self, text: str, limit: int | None) -> list[int]:
        """Ids of a text without what the template puts around it.

        Stops soon after more than ``limit`` are found: the rest would be cut off anyway.
        """
        if self.spec.lowercase_text:
            text = text.lower()
        ids: list[int] = []
        for start, stop, special in self._added.sections(text):
            if special is not None:
                ids.append(special)
            else:
                left = None if limit is None else limit - len(ids)
                part = text[start:stop]
                if self._after is None:
                    ids += self._model.ids(part, left, first=start == 0)
                else:
                    ids += self._normalized_ids(self._after, part, left, first=start == 0)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _normalized_ids(
        self, model: TextModel, text: str, limit: int | None, *, first: bool
    ) -> list[int]:
        """Ids of a text that added tokens are in when it is normalized."""
        text, source = self._model.normalized(text)
        ids: list[int] = []
        for start, stop, special in self._normalized.sections(text):
            if special is not None:
                ids.append(special)
            else:
                left = None if limit is None else limit - len(ids)
                begins = _begins(source[start:stop]) if first else 0
                ids += model.ids(text[start:stop], left, first=begins)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _spans(self, text: str, count: int, begin: int) -> list[Span]:
        """``(start, end, word)`` of the first ``count`` tokens of a text, of which those before
        token ``begin`` are cut off.
        """
        if not self.spec.lowercase_text:
            return self._own_spans(text, count, begin)
        source = [at for at, char in enumerate(text) for _ in char.lower()]
        return _moved(self._own_spans(text.lower(), count, begin), source)

    def _own_spans(self, text: str, count: int, begin: int) -> list[Span]:
        """``_spans`` of a text as the added tokens are looked for in it."""
        spans: list[Span] = []
        index = 0
        for at, stop, special in self._added.sections(text):
            left = count - len(spans)
            if left <= 0:
                break
            if special is not None:
                whole = at == 0 or len(spans) == begin
                found = [(*self._model.added_span(text[at:stop], first=whole), 0)]
            elif self._after is None:
                found = self._model.spans(
                    text[at:stop], left, first=at == 0, begin=begin - len(spans)
                )
            else:
                found = self._normalized_spans(
                    self._after, text[at:stop], left, begin - len(spans), first=at == 0
                )
            if at or index:
                found = [(at + start, at + end, index + word) for start, end, word in found]
            spans += found
            index = found[-1][2] + 1 if found else index
        return spans[:count] if len(spans) > count else spans

    def _normalized_spans(
        self, model: TextModel, text: str, count: int, begin: int, *, first: bool
    ) -> list[Span]:
        """Spans of a text that added tokens are in when it is normalized."""
        text, source = self._model.normalized(text)
        spans: list[Span] = []
        index = 0
        for at, stop, special in self._normalized.sections(text):
            left = count - len(spans)
            if left <= 0:
                break
            begins = _begins(source[at:stop]) if first else 0
            if special is None:
                found = model.spans(text[at:stop], left, first=begins, begin=begin - len(spans))
            else:
                whole = begins > 0 or len(spans) == begin
                found = [(*model.added_span(text[at:stop], first=whole), 0)]
            if at or index:
                found = [(at + start, at + end, index + word) for start, end, word in found]
            spans += found
            index = found[-1][2] + 1 if found else index
        return _moved(spans[:count], source)

    def _id(self, word: str) -> int:
        """Id of a word that the spec names."""
        found = self._vocabulary.find(word)
        if found is None:
            raise PackFormatError(f"tokenizer: {word!r} is not in the vocabulary")
        return found


def _begins(source: Sequence[int]) -> int:
    """How many of the first characters come from the beginning of the text."""
    return sum(1 for _ in itertools.takewhile(lambda place: not place, source))


def _moved(spans: Sequence[Span], source: Sequence[int]) -> list[Span]:
    """Spans in the text that ``source`` gives the places in."""
    places = [*source, source[-1] + 1] if source else [0]
    return [
        (places[start], places[end - 1] + 1 if end > start else places[start], word)
        for start, end, word in spans
    ]
