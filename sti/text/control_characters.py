"""Control characters: which there are, and text with them written out.

In: text from anywhere. Out: the same without what would move a terminal's cursor, break its lines,
or turn what is read. Knows nothing of terminals or files. Pure.
"""

from __future__ import annotations

import re

_MOVING = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""All but TAB and the line end; those that turn or break lines of text as well."""
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
    return _USUAL.get(found[0]) or f"\\u{ord(found[0]):04x}"
