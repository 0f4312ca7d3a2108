"""Unigram, as SentencePiece trains it and ``tokenizer.json`` has it: text to pieces with scores.

The reference is the Hugging Face ``tokenizers`` library with Unigram behind Metaspace: ids, offsets
and word ids equal its own. Text becomes words in ``sti.text.unigram_words``, the search for the
best pieces by ``sti.text.best_path``. Knows nothing of added tokens, templates or limits.

In: ``UnigramSettings`` and tables (from a pack), a vocabulary, and the text between added tokens.
Out: ids, and where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.text.best_path import BestPath
from sti.text.charsmap import CharsMap, Place
from sti.text.sorted_vocabulary import SortedVocabulary
from sti.text.text_model import Span
from sti.text.unigram_settings import UnigramSettings
from sti.text.unigram_words import CHUNK_CHARS, UnigramWords

KIND = "unigram"
__all__ = ["KIND", "TABLES", "Unigram", "UnigramSettings"]

TABLES: Mapping[str, np.dtype[Any]] = {
    "scores": np.dtype(np.uint32),
    "charsmap_trie": np.dtype(np.uint32),
    "charsmap_replacements": np.dtype(np.uint8),
}
"""Besides the vocabulary and its index. ``scores``: of each piece, float32, or float64 where those
do not hold them all (the bits, so twice as many items); the last two are empty where no step is a
map of characters.
"""

MOST_SCORE = 1e9
"""Of either sign, so that sums over a text stay finite."""


WORDS_REMEMBERED = 16384
"""Words whose pieces are remembered; then all are forgotten."""

LONGEST_REMEMBERED = 64
"""Characters of a word; longer ones are mostly sentences without spaces, and do not come again."""

_BYTES = 256


class Unigram:
    """Pieces of text for one vocabulary.

    Args:
        settings: were checked by ``from_json``.
        vocabulary: a piece's id is its line.
        tables: as ``TABLES``; kept, not copied.
        chunk_chars: characters of a text that are normalized at a time.
        words_remembered: words whose pieces are kept, so that they need no second search.

    The last two bound memory and change no answer.

    Raises:
        PackFormatError: tables or settings do not fit the vocabulary or one another.

    Safe to share between threads. Lone surrogates count as U+FFFD.
    """

    def __init__(
        self,
        settings: UnigramSettings,
        vocabulary: SortedVocabulary,
        tables: Mapping[str, NDArray[Any]],
        *,
        chunk_chars: int = CHUNK_CHARS,
        words_remembered: int = WORDS_REMEMBERED,
    ) -> None:
        self.settings = settings
        self._words_remembered = words_remembered
        self._vocabulary = vocabulary
        for name, dtype in TABLES.items():
            if tables[name].dtype != dtype or tables[name].ndim != 1:
                raise PackFormatError(f"tokenizer: {name} must be a list of {dtype.name}")
        scores = _checked_scores(tables["scores"], len(vocabulary))
        if settings.unknown >= len(vocabulary):
            raise PackFormatError(
                f"tokenizer: unknown is id {settings.unknown} of {len(vocabulary)} pieces"
            )
        self._path = BestPath(
            vocabulary.blob,
            vocabulary.starts,
            vocabulary.order,
            scores,
            unknown=settings.unknown,
        )
        self._words = UnigramWords(settings, _charsmap(settings, tables), chunk_chars=chunk_chars)
        self._bytes = [
            vocabulary.find(f"<0x{byte:02X}>") for byte in range(_BYTES * settings.byte_fallback)
        ]
        self._remembered: dict[str, _Pieces] = {"": ([], [])}

    @property
    def unknown(self) -> int | None:
        """The id of what no word of the vocabulary is of; None where there is no such thing."""
        return self.settings.unknown

    def ids(self, text: str, limit: int | None, *, first: int) -> list[int]:
        """Ids of a text.

        Stops soon after more than ``limit`` are found.

        Args:
            first: how many of its characters come from the very first one of the whole text.
        """
        found: list[int] = []
        remembered = self._remembered
        for start, stop in self._words.chunks(text):
            for word in self._words.words(text[start:stop], first=0 if start else first):
                known = remembered.get(word)
                if known is None:
                    known = self._pieces(word, None if limit is None else limit - len(found))
                found += known[0]
            if limit is not None and len(found) > limit:
                break
        return found

    def spans(self, text: str, count: int, *, first: int, begin: int = -1) -> list[Span]:
        """``(start, end, word)`` of the first ``count`` ids of a text.

        Args:
            first: how many of its characters come from the very first one of the whole text.
            begin: of no use here.
        """
        del begin
        found: list[Span] = []
        index = 0
        for start, stop in self._words.chunks(text):
            if len(found) >= count:
                break
            for word, places in self._words.aligned(text[start:stop], first=0 if start else first):
                begin = end = 0
                for next_end in self._pieces(word, count - len(found))[1]:
                    if next_end != end:
                        begin, end = end, next_end
                    found.append((start + places[begin][0], start + places[end - 1][1], index))
                index += 1
        return found[:count]

    def added_span(self, text: str, *, first: bool) -> tuple[int, int]:
        """All of an added token."""
        del first
        return 0, len(text)

    def cut(self, text: str, at: int) -> int:
        """The length of a text: long ones are cut in here, where the steps allow it."""
        del at
        return len(text)

    def normalized(self, text: str) -> tuple[str, Sequence[int]]:
        """What the steps make of a text, and the source of each of its characters."""
        text, places = self._words.normalized(text)
        return text, [start for start, _ in places]

    def after_normalizer(self) -> Unigram:
        """The same without steps; tables and words that are remembered are shared."""
        found = copy(self)
        found._words = self._words.after_normalizer()
        return found

    def _pieces(self, word: str, enough: int | None) -> _Pieces:
        """Ids of a word, and where each ends; of a long one soon no more than ``enough``."""
        found = self._path.cut(word, enough if len(word) > LONGEST_REMEMBERED else None)
        pieces = [line for line, _ in found], [end for _, end in found]
        if self.settings.unknown in pieces[0]:
            pieces = self._known(word, found)
        if len(word) <= LONGEST_REMEMBERED:
            if len(self._remembered) >= self._words_remembered:
                self._remembered = {"": ([], [])}
            self._remembered[word] = pieces
        return pieces

    def _known(self, word: str, found: Sequence[Place]) -> _Pieces:
        """Pieces of a word, those that are unknown put together where they are neighbours."""
        unknown = self.settings.unknown
        ids: list[int] = []
        ends: list[int] = []
        start = 0
        for index, (line, end) in enumerate(found):
            if line != unknown:
                ids.append(line)
                ends.append(end)
            elif index + 1 < len(found) and found[index + 1][0] == unknown:
                continue
            else:
                more = self._ids_of_unknown(word[start:end])
                ids += more
                ends += [end] * len(more)
            start = end
        return ids, ends

    def _ids_of_unknown(self, text: str) -> list[int]:
        """What no piece is of may be one as a whole, or its bytes are, or it stays unknown."""
        whole = self._vocabulary.find(text)
        if whole is not None:
            return [whole]
        by_byte = [self._bytes[byte] for byte in text.encode()] if self._bytes else [None]
        found = [line for line in by_byte if line is not None]
        return found if len(found) == len(by_byte) else [self.settings.unknown]


_Pieces = tuple[list[int], list[int]]
"""Ids, and where each ends in its word. Neighbours that end alike are of the same characters."""


def _charsmap(settings: UnigramSettings, tables: Mapping[str, NDArray[Any]]) -> CharsMap | None:
    """The map of characters, where a step is one."""
    trie, replacements = tables["charsmap_trie"], tables["charsmap_replacements"]
    if any(found.kind == "charsmap" for found in settings.steps):
        return CharsMap(trie, replacements)
    if trie.size or replacements.size:
        raise PackFormatError("tokenizer: a character map is there, but no step is one")
    return None


def _checked_scores(
    scores: NDArray[np.uint32], pieces: int
) -> NDArray[np.float32] | NDArray[np.float64]:
    """The scores, after a look at them."""
    if scores.size not in (pieces, 2 * pieces):
        raise PackFormatError(f"tokenizer: {scores.size} scores do not fit {pieces} pieces")
    floats: NDArray[Any] = scores.view(np.float32 if scores.size == pieces else np.float64)
    if not (floats.min() >= -MOST_SCORE and floats.max() <= MOST_SCORE):
        raise PackFormatError(f"tokenizer: a score is not finite, or beyond {MOST_SCORE:g}")
    # Tensors of packs begin at multiples of 4 bytes: Python reads no float64 from between two.
    return floats if floats.flags.aligned else floats.copy()
