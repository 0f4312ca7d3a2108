"""Texts for ``sti run``: from the command line, a file, or standard input.

In: raw arguments or files. Out: texts, or pairs of texts, none of them empty, one after another: a
file is read no further than that. What cannot be used raises ``InputError`` that names the text by
its number or the line of its file.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from sti.errors import InputError
from sti.storage.plain_files import check_name
from sti.text.encoding import Text

_LONGEST_LINE = 1 << 26
"""Bytes of a line: more is no text, and would be held in memory as a whole."""


class Texts:
    """The texts to run, one after another. An iterator; ``close`` closes their file.

    Args:
        given: texts of the command line.
        source: file with a text (or a pair) a line, ``-`` for standard input; None: ``given``,
            or standard input where it is empty and standard input is not a terminal.
        pair: texts come in pairs.

    Raises:
        InputError: none, both, an odd number of halves, an empty text, or an unreadable file; of a
            file's lines only the first is looked at here, each other one when it is asked for.
    """

    def __init__(self, given: Sequence[str], *, source: str | None, pair: bool) -> None:
        if source is not None and given:
            raise InputError("give texts or --input, not both")
        if source is None and not given:
            if sys.stdin is None or sys.stdin.isatty():
                raise InputError("no text given; add one, or name a file with --input")
            source = "-"
        self.from_file = source is not None
        """Whether there may be many, and each is read when it is asked for."""
        self.waiting = False
        """Whether one was asked for that is not there yet."""
        self._read_bytes = self._size_bytes = 0
        self._texts: Generator[Text, None, None]
        if source is None:
            self._texts = (text for text in _from_arguments(given, pair))
        else:
            self._texts = self._lines(source, pair)
        self._first: Text | None = next(self._texts)

    def __iter__(self) -> Iterator[Text]:
        return self

    def __next__(self) -> Text:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self.waiting = True
        try:
            return next(self._texts)
        finally:
            self.waiting = False

    @property
    def share(self) -> float | None:
        """How much of the file was read, from 0 to 1; None where its size is not known."""
        return self._read_bytes / self._size_bytes if self._size_bytes else None

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._texts.close()

    def _lines(self, source: str, pair: bool) -> Generator[Text, None, None]:
        name = "standard input" if source == "-" else source
        number = 0
        try:
            with _opened(source) as file:
                self._size_bytes = _size(file)
                for number, raw in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                    self._read_bytes += len(raw)
                    where = f"{name}, line {number}"
                    if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
                        raise InputError(f"{where}: longer than {_LONGEST_LINE} bytes; cut it up")
                    yield _line(raw.removesuffix(b"\n"), where, pair)
        except OSError as error:
            raise InputError(f"{name}: cannot be read: {error.strerror}") from error
        if not number:
            raise InputError(f"{name}: no text in it")


def _opened(source: str) -> AbstractContextManager[BinaryIO]:
    if source == "-":
        return nullcontext(sys.stdin.buffer)
    check_name(source)
    return open(source, "rb")


def _size(file: BinaryIO) -> int:
    """Bytes of a file; 0 for what has no size, such as a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # not one of the system's
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


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
