"""Text to words, as byte-level tokenizers part it, and the characters that stand for bytes.

The reference is the ByteLevel pre-tokenizer of the ``tokenizers`` library: contractions, letters,
digits and other characters, each with the space before them, and white space. Which characters are
what comes from ``sti.text.unicode_tables``, so that Python's Unicode version decides nothing.

In: text. Out: words, which joined are the text; the bytes of a word. Knows no vocabulary.
"""

from __future__ import annotations

import functools
import re

from sti.text import unicode_tables
from sti.text.unicode_runs import runs

_OWN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_REST = sorted(set(range(256)) - set(_OWN))

BYTE_CHARS = "".join(
    chr(byte) if byte in _OWN else chr(0x100 + _REST.index(byte)) for byte in range(256)
)
"""The character that stands for each byte in a vocabulary: printable, and none is white space."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def words(text: str) -> list[str]:
    """The words of a text."""
    return _pattern(text.isascii()).findall(text)


def word_bytes(word: str) -> bytes:
    """UTF-8; lone surrogates are taken for U+FFFD, as readers of bad text replace it."""
    try:
        return word.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", word).encode()


@functools.cache
def _pattern(plain: bool) -> re.Pattern[str]:
    """What a word is: for ASCII alone, or for all characters, compiled at first use."""
    if plain:
        letter, number, space = "a-zA-Z", "0-9", r"\t-\r "
    else:
        tables = (unicode_tables.LETTER, unicode_tables.NUMBER, unicode_tables.SPACE)
        letter, number, space = map(_ranges, tables)
    return re.compile(
        f"'(?:[stmd]|re|ve|ll)| ?[{letter}]+| ?[{number}]+| ?[^{space}{letter}{number}]+"
        f"|[{space}]+(?![^{space}])|[{space}]+"
    )


def _ranges(table: str) -> str:
    """What stands between the brackets of a regular expression for a set of code points."""
    return "".join(
        f"\\U{first:08x}" + (f"-\\U{last:08x}" if last > first else "")
        for first, last, _ in runs(table)
    )
