"""Links between devices, and what hidden states take to cross them. Pure.

In: measured delays and rates, tokens, how numbers travel. Out: bytes and seconds. Knows nothing of
networks. Hidden states travel as float32, to the bit; as float16; or as int8 with a scale for each
token (QuantPipe's least form: a token's scale is its largest number over 127, which is how blocks
quantize their inputs anyway).
"""

from __future__ import annotations

from typing import NamedTuple

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
LINK_TYPES = (FLOAT32, FLOAT16, INT8)
"""How hidden states may travel."""
_BYTES = {FLOAT32: (4, 0), FLOAT16: (2, 0), INT8: (1, 4)}
"""Of a number, and of a token besides."""
_COSINES = {FLOAT32: 1.0, FLOAT16: 0.9992, INT8: 0.9983}
"""Mean cosine between exact embeddings and those with one link that rounds: all-MiniLM-L6-v2 on the
development set of STS-B, whose Spearman correlation moves by less than .0004 either way, also with
five links (``benchmarks.devices``, row ``links``). Most of it is not the rounding itself, but that
blocks behind it quantize other numbers."""
_HEAD = 512
"""Bytes of a message besides its arrays: its head, frames, encryption."""
_WORD_BYTES = 16
"""Of a token's id and type."""


class Link(NamedTuple):
    """From one device to another: a message of ``n`` bytes takes ``delay_s + n / bytes_per_s``."""

    delay_s: float
    bytes_per_s: float

    def send_s(self, size: int) -> float:
        """Seconds from when a message of so many bytes is sent to when it is there."""
        return self.delay_s + (_HEAD + size) / self.bytes_per_s


def hidden_bytes(tokens: int, hidden: int, link_type: str) -> int:
    """Bytes of the hidden states of so many tokens."""
    number, token = _BYTES[link_type]
    return tokens * (hidden * number + token)


def cosine_of(links: int, link_type: str) -> float:
    """About the mean cosine to expect between exact answers and those over so many links."""
    found: float = _COSINES[link_type] ** links
    return found


def text_bytes(tokens: int) -> int:
    """Bytes of the ids and types of so many tokens."""
    return tokens * _WORD_BYTES
