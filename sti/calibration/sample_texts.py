"""Texts of a given length, made from a pack's own vocabulary, to measure with.

In: an open pack. Out: texts whose words differ, so that token embeddings are read as in real use.
The same arguments give the same texts. Knows nothing of clocks.
"""

from __future__ import annotations

import re

from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer

_SPECIALS = 2
_STRIDE = 7919


class SampleTexts:
    """Makes texts for one pack. Safe to share between threads."""

    def __init__(self, reader: PackReader) -> None:
        vocabulary = reader.resident(VOCABULARY).tobytes()
        self.tokenizer = pack_tokenizer(reader)
        words: list[bytes] = re.findall(rb"(?m)^[a-z]{2,9}$", vocabulary) or [b"a"]
        self._words = [word.decode() for word in words]

    def texts(self, batch: int, tokens: int) -> list[str]:
        """``batch`` texts of ``tokens`` tokens each, special tokens included.

        With a vocabulary that has no plain words, lengths may differ: count with the tokenizer.
        """
        count = max(1, tokens - _SPECIALS)
        return [
            " ".join(self._word(number * count + place) for place in range(count))
            for number in range(batch)
        ]

    def _word(self, place: int) -> str:
        return self._words[(place + 1) * _STRIDE % len(self._words)]
