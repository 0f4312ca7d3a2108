"""Control characters: which there are, and text with them written out.

In: text from anywhere. Out: the same without what would move a terminal's cursor, break its lines,
turn what is read, or hide in it. Knows nothing of terminals or files. Pure.
"""

from __future__ import annotations

import re

_MOVING = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e"
    r"\u2060-\u206f\ufeff\U000e0000-\U000e007f"
)
"""All but TAB and the line end; those that turn or break lines of text as well, and those that
nobody sees, so that texts which differ look alike. Not the joiners U+200C and U+200D: Persian,
Hindi and emoji are written with them.
"""
_CONTROLS = re.compile(f"[{_MOVING}]")
_CONTROLS_AND_ENDS = re.compile(f"[\t\n{_MOVING}]")
_USUAL = {"\n": "\\n", "\t": "\\t"}


def printable(text: str) -> str:
    r"""The text with control characters written out, as ``\u001b``; TAB and line ends stay.

    In JSON they may stand in strings alone, where this means the same.
    """
    return _CONTROLS.sub(_written_out, text)


def one_line(text: str) -> str:
    """The text on one line: TAB and line ends are written out as well."""
    return _CONTROLS_AND_ENDS.sub(_written_out, text)


def is_one_line(text: str) -> bool:
    """Whether there is nothing to write out."""
    return _CONTROLS_AND_ENDS.search(text) is None


def _written_out(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    escapes = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return _USUAL.get(found[0]) or escapes
