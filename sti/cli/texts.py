"""Texts for ``sti run``: from the command line, a file, or standard input.

In: raw arguments or files. Out: texts, or pairs of texts, none of them empty. What cannot be used
raises ``InputError`` that names the text by its number or the line of its file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sti.errors import InputError
from sti.text.encoding import Text


def read_texts(given: Sequence[str], *, source: str | None, pair: bool) -> list[Text]:
    """The texts to run.

    Args:
        given: texts of the command line.
        source: file with a text (or a pair) a line, ``-`` for standard input; None: ``given``,
            or standard input where it is empty and standard input is not a terminal.
        pair: texts come in pairs.

    Raises:
        InputError: none, both, an odd number of halves, an empty text, or an unreadable file.
    """
    if source is not None and given:
        raise InputError("give texts or --input, not both")
    if given:
        return _from_arguments(given, pair)
    if source is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("no text given; add one, or name a file with --input")
        source = "-"
    return _from_lines(source, pair)


def _from_arguments(given: Sequence[str], pair: bool) -> list[Text]:
    for index, text in enumerate(given, 1):
        if not text.strip():
            raise InputError(f"text {index} is empty")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"text {index} is not valid UTF-8") from error
    if not pair:
        return list(given)
    if len(given) % 2:
        raise InputError(f"--pair needs texts two by two; found {len(given)}")
    return list(zip(given[::2], given[1::2], strict=True))


def _from_lines(source: str, pair: bool) -> list[Text]:
    name = "standard input" if source == "-" else source
    lines = _read(source, name).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise InputError(f"{name}: no text in it")
    return [_line(raw, f"{name}, line {number}", pair) for number, raw in enumerate(lines, 1)]


def _read(source: str, name: str) -> bytes:
    try:
        if source == "-":
            return sys.stdin.buffer.read()
        with open(source, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def _line(raw: bytes, where: str, pair: bool) -> Text:
    try:
        line = raw.decode("utf-8").removeprefix("\ufeff").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not valid UTF-8 (byte {error.start + 1})") from error
    if not line.strip():
        raise InputError(f"{where}: the text is empty")
    if not pair:
        return line
    halves = line.split("\t")
    if len(halves) != 2:
        raise InputError(f"{where}: a pair is two texts with one TAB between; found {len(halves)}")
    for number, half in enumerate(halves, 1):
        if not half.strip():
            raise InputError(f"{where}: text {number} of the pair is empty")
    return halves[0], halves[1]
