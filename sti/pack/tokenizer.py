"""Builds a pack's tokenizer: WordPiece, the only kind so far.

In: an open pack. Out: a ``Tokenizer`` over the index that the pack brings along. Knows nothing of
how tokens are used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.text.vocabulary import Vocabulary
from sti.text.vocabulary_index import VocabularyIndex
from sti.text.wordpiece import Tokenizer, TokenizerSpec

VOCABULARY_INDEX = {name: f"tokenizer.{name}" for name in VocabularyIndex._fields}
"""Arrays of the vocabulary's index, and the tensors that hold them."""


def pack_tokenizer(reader: PackReader) -> Tokenizer:
    """The tokenizer of a pack, which may be closed afterwards. Takes less than a millisecond.

    Raises:
        PackFormatError: vocabulary or index are missing, or do not fit one another or the manifest.
    """
    blob = reader.resident(VOCABULARY).tobytes()
    vocabulary = Vocabulary(blob, stored_index(reader))
    return Tokenizer(TokenizerSpec.from_json(reader.manifest.tokenizer), vocabulary)


def stored_index(reader: PackReader) -> VocabularyIndex:
    """The index of the vocabulary as the pack has it, unchecked but for the type.

    Raises:
        PackFormatError: a tensor of it is missing, or is no list of unsigned 32-bit numbers.
    """
    return VocabularyIndex(*(_counts(reader, name) for name in VOCABULARY_INDEX.values()))


def _counts(reader: PackReader, name: str) -> NDArray[np.uint32]:
    found = reader.resident(name)
    if found.dtype != np.uint32 or found.ndim != 1:
        raise PackFormatError(
            f"{reader.path}: tensor {name!r} must be a list of type U32; rebuild the pack"
        )
    return found
