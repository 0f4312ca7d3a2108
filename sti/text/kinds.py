"""Which kinds of tokenizers there are: the settings, model and tables of each.

In: the name of a kind, as packs have it. Out: how to make it. Whoever adds a kind lists it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sti.json_fields import JsonFields
from sti.text import byte_bpe, unigram, wordpiece
from sti.text.byte_bpe import ByteBpe, ByteBpeSettings
from sti.text.sorted_vocabulary import SortedIndex, SortedVocabulary, make_sorted_index
from sti.text.text_model import TextModel
from sti.text.unigram import Unigram, UnigramSettings
from sti.text.vocabulary import Vocabulary
from sti.text.vocabulary_index import VocabularyIndex, make_index
from sti.text.wordpiece import WordPiece, WordPieceSettings

AnyIndex = VocabularyIndex | SortedIndex
AnyVocabulary = Vocabulary | SortedVocabulary


class Indexing(NamedTuple):
    """How words of a vocabulary are found."""

    arrays: tuple[str, ...]
    """Of the index, all uint32 of one axis; a pack has each as the tensor ``tokenizer.NAME``."""
    make: Callable[[bytes], AnyIndex]
    of_arrays: Callable[..., AnyIndex]
    """The index of its arrays."""
    vocabulary: Callable[[bytes | memoryview, Any], AnyVocabulary]
    """Of a blob and its index, or None to make that; raises a ``PackFormatError``."""


BY_HASH = Indexing(VocabularyIndex._fields, make_index, VocabularyIndex, Vocabulary)
BY_ORDER = Indexing(SortedIndex._fields, make_sorted_index, SortedIndex, SortedVocabulary)


class Settings(Protocol):
    """What a pack's manifest says of a tokenizer of one kind. An immutable, hashable value."""

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values; their names are none of ``TokenizerSpec``'s."""
        ...

    def named_words(self) -> tuple[str, ...]:
        """Words of the vocabulary that stand for something, as for what is unknown."""
        ...


class ModelOf(Protocol):
    """The type of a kind's model."""

    def __call__(
        self, settings: Any, vocabulary: Any, tables: Mapping[str, NDArray[Any]]
    ) -> TextModel:
        """The model for one vocabulary and the tables of the kind.

        Raises:
            PackFormatError: they do not fit one another.
        """
        ...


class Kind(NamedTuple):
    """How tokenizers of a kind are made."""

    settings: Callable[[JsonFields], Settings]
    """What ``to_json`` wrote, checked; raises the error of the fields."""
    setting_names: tuple[str, ...]
    model: ModelOf
    tables: Mapping[str, np.dtype[Any]]
    """Types of the arrays of one axis that the model needs besides the vocabulary and its index;
    a pack has each as the resident tensor ``tokenizer.NAME``."""
    indexing: Indexing


KINDS: Mapping[str, Kind] = {
    wordpiece.KIND: Kind(
        WordPieceSettings.from_json, WordPieceSettings._fields, WordPiece, wordpiece.TABLES, BY_HASH
    ),
    unigram.KIND: Kind(
        UnigramSettings.from_json, UnigramSettings._fields, Unigram, unigram.TABLES, BY_ORDER
    ),
    byte_bpe.KIND: Kind(
        ByteBpeSettings.from_json, ByteBpeSettings._fields, ByteBpe, byte_bpe.TABLES, BY_HASH
    ),
}
"""By the names that packs have them by."""
