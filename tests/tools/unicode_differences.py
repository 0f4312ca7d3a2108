"""List the code points that Python's Unicode and the tokenizer's tables treat differently.

The tables follow the reference library, whose parts carry several Unicode versions of their own.
The list is kept for one version of ``unicodedata`` in ``tests/golden/unicode_differences.txt``:
it says what a tokenizer that trusted Python would get wrong. Code points that Python's version
does not know (category Cn) are left out.

    python -m tests.tools.unicode_differences            # print the list for this Python
    python -m tests.tools.unicode_differences --write    # and make it the golden file
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sti.text.normalizer import TABLES, decompose

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unicode_differences.txt"

_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _control(char: str) -> bool:
    if char in "\t\n\r":
        return False
    return char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs")


def _space(char: str) -> bool:
    return char in "\t\n\x0b\x0c\r\x85" or unicodedata.category(char) in ("Zs", "Zl", "Zp")


def _punctuation(char: str) -> bool:
    return char in _ASCII_PUNCTUATION or unicodedata.category(char).startswith("P")


def _alone(char: str) -> bool:
    """Marks are looked for after decomposition, so those that have one do not count."""
    return unicodedata.normalize("NFD", char) == char


# What is compared: Python's answer and the tables' answer for one character.
_PROPERTIES: dict[str, tuple[Callable[[str], object], Callable[[str], object]]] = {
    "control": (_control, lambda char: ord(char) in TABLES.control),
    "space": (_space, lambda char: ord(char) in TABLES.space),
    "punctuation": (_punctuation, lambda char: ord(char) in TABLES.punctuation),
    "mark": (
        lambda char: unicodedata.category(char) == "Mn" and _alone(char),
        lambda char: ord(char) in TABLES.mark,
    ),
    "class": (unicodedata.combining, lambda char: TABLES.combining.get(ord(char), 0)),
    "lower": (str.lower, lambda char: TABLES.lower.get(ord(char), char)),
    "decomposition": (
        lambda char: unicodedata.normalize("NFD", char),
        decompose,
    ),
}


def _runs(codes: Sequence[int]) -> Iterator[str]:
    """``U+0041`` or ``U+0041-005A`` for every run of neighbours."""
    start = 0
    for at, code in enumerate(codes):
        if at + 1 == len(codes) or codes[at + 1] != code + 1:
            first = codes[start]
            yield f"U+{first:04X}" + (f"-{code:04X}" if code > first else "")
            start = at + 1


def differences() -> str:
    """The list, one line per run, headed by the Unicode version it was made with."""
    known = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) != "Cn"]
    lines = [f"unicodedata {unicodedata.unidata_version}"]
    for name, (python, tables) in _PROPERTIES.items():
        codes = [ord(char) for char in known if python(char) != tables(char)]
        lines.append(f"{name}: {len(codes)} code points")
        lines += [f"    {run}" for run in _runs(codes)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {GOLDEN.name} too")
    options = parser.parse_args(arguments)
    found = differences()
    if options.write:
        GOLDEN.write_text(found, encoding="utf-8")
    sys.stdout.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
