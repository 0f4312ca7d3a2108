"""Builds a pack's tokenizer: WordPiece, the only kind so far.

In: an open pack. Out: a ``Tokenizer``. Knows nothing of how tokens are used.
"""

from __future__ import annotations

from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.text.wordpiece import Tokenizer, TokenizerSpec


def pack_tokenizer(reader: PackReader) -> Tokenizer:
    """The tokenizer of a pack, which may be closed afterwards. Takes a few milliseconds.

    Raises:
        PackFormatError: the vocabulary is missing, or does not fit the manifest.
    """
    return Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer),
        reader.resident(VOCABULARY).tobytes(),
    )
