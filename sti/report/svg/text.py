"""Text of drawings: how wide it is, about, and lines that fit a width. Pure.

In: text and a font size in pixels. Out: widths in pixels, lines, text that XML may hold. Which font
a reader has is not known: the widths are those of the widest of the common ones, so that nothing is
cut off with any.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from sti.text.control_characters import is_one_line

SIZE = 12.0
"""Of text, in pixels, where nothing else is said."""
LINE = 1.3
"""From one line to the next, in font sizes."""

_GROUPS = (
    (0.34, " ',.:;|/\\ijlI"),
    (0.42, "!()[]-`frt"),
    (0.64, '"$*?^_{}0123456789abcdeghknopqsuvxyz'),
    (0.70, "ABEFJKLPRSTVXYZ"),
    (0.84, "#&+<=>~CDGHNOQUw"),
    (1.00, "%@MWm"),
)
_WIDTHS = {character: width for width, group in _GROUPS for character in group}
_OTHER, _WIDE, _BOLD = 0.84, 1.3, 1.12


def text_width(text: str, size: float = SIZE, *, bold: bool = False) -> float:
    """Pixels that a line of text takes at most, about."""
    return sum(map(_em, text)) * size * (_BOLD if bold else 1.0)


def _em(character: str) -> float:
    if character in _WIDTHS:
        return _WIDTHS[character]
    if unicodedata.combining(character):
        return 0.0
    return _WIDE if unicodedata.east_asian_width(character) in "WF" else _OTHER


def wrapped(text: str, room: float, size: float = SIZE, *, bold: bool = False) -> list[str]:
    """Lines no wider than ``room`` pixels, broken between words, or within one that is too wide.

    At least one line, and a character in each, however small the room; runs of white space become
    one space.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        for part in _parts(word, room, size, bold):
            longer = f"{line} {part}" if line else part
            if line and text_width(longer, size, bold=bold) > room:
                lines.append(line)
                longer = part
            line = longer
    return [*lines, line]


def _parts(word: str, room: float, size: float, bold: bool) -> Iterator[str]:
    """A word whole, or cut where it is too wide."""
    part = ""
    for character in word:
        if part and text_width(part + character, size, bold=bold) > room:
            yield part
            part = ""
        part += character
    yield part


def escaped(text: str) -> str:
    """Text for the content of an element or for an attribute; what XML cannot hold is replaced."""
    legal = "".join(character if _legal(character) else "\ufffd" for character in text)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        legal = legal.replace(character, entity)
    return legal


def _legal(character: str) -> bool:
    code = ord(character)
    return character in "\t\n\r" or (
        is_one_line(character)
        and 0x20 <= code <= 0x10FFFF
        and not 0xD800 <= code <= 0xDFFF
        and code not in (0xFFFE, 0xFFFF)
    )
