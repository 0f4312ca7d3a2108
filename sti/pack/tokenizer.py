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

MOST_VOCABULARY_BYTES = 1 << 24
"""The largest in use have a third of it."""

VOCABULARY_INDEX = {name: f"tokenizer.{name}" for name in VocabularyIndex._fields}
"""Arrays of the vocabulary's index, and the tensors that hold them."""


def pack_tokenizer(reader: PackReader) -> Tokenizer:
    """The tokenizer of a pack, which may be closed afterwards. Takes less than a millisecond.

    Raises:
        PackFormatError: vocabulary or index are missing, or do not fit one another or the manifest.
    """
    manifest, stored = reader.manifest, reader.resident(VOCABULARY)
    if stored.nbytes > MOST_VOCABULARY_BYTES:
        raise PackFormatError(
            f"{reader.path}: a vocabulary of {stored.nbytes} bytes is longer than that of any "
            f"pack, {MOST_VOCABULARY_BYTES}; rebuild the pack"
        )
    vocabulary = Vocabulary(stored.tobytes(), stored_index(reader))
    spec = TokenizerSpec.from_json(manifest.tokenizer)
    for what, found, most in (
        ("words of the vocabulary", len(vocabulary), manifest.embeddings.rows),
        ("tokens of the tokenizer", spec.max_tokens, manifest.dimensions.max_tokens),
    ):
        if found > most:
            raise PackFormatError(
                f"{reader.path}: {found} {what} are more than the {most} that the pack has; "
                "rebuild the pack"
            )
    return Tokenizer(spec, vocabulary)


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
