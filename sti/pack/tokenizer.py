"""The tokenizer that a pack brings with it.

In: an open pack. Out: a ``Tokenizer``. Knows nothing of what is done with tokens.
"""

from __future__ import annotations

from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.text.wordpiece import Tokenizer, TokenizerSpec


def pack_tokenizer(reader: PackReader) -> Tokenizer:
    """The tokenizer in a pack; needs the pack no longer. Takes some milliseconds.

    Raises:
        PackFormatError: the pack lacks a vocabulary, or one of the kind its manifest describes.
    """
    return Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer),
        reader.resident(VOCABULARY).tobytes(),
    )
