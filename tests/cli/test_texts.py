"""Texts for `sti run`: arguments, files and standard input, and what is refused."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from sti.cli.texts import Texts
from sti.errors import InputError
from sti.text.encoding import Text


def read(given: Sequence[str], *, source: str | None, pair: bool) -> list[Text]:
    with closing(Texts(given, source=source, pair=pair)) as texts:
        return list(texts)


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes, *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def write(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "texts.txt"
    path.write_bytes(data)
    return str(path)


def test_texts_of_the_command_line_are_taken_as_they_are() -> None:
    assert read(["a b", " c "], source=None, pair=False) == ["a b", " c "]


def test_pairs_of_the_command_line_are_taken_two_by_two() -> None:
    found = read(["a", "b", "c", "d"], source=None, pair=True)
    assert found == [("a", "b"), ("c", "d")]


def test_a_file_has_a_text_a_line(tmp_path: Path) -> None:
    data = "\ufeffone\r\nzwei ü\nthree\x0bstill\u2028three\n".encode()
    found = read([], source=write(tmp_path, data), pair=False)
    assert found == ["one", "zwei ü", "three\x0bstill\u2028three"]


def test_a_file_of_pairs_has_a_tab_a_line(tmp_path: Path) -> None:
    found = read([], source=write(tmp_path, b"a\tb\nc d\te"), pair=True)
    assert found == [("a", "b"), ("c d", "e")]


@pytest.mark.parametrize("source", [None, "-"])
def test_standard_input_is_read_like_a_file(
    monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"one\ntwo\n"))
    assert read([], source=source, pair=False) == ["one", "two"]


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"", terminal=True))
    with pytest.raises(InputError, match="no text given"):
        read([], source=None, pair=False)


@pytest.mark.parametrize(
    ("given", "pair", "message"),
    [
        (["a", ""], False, "text 2 is empty"),
        ([" \t"], False, "text 1 is empty"),
        (["a", "b", "c"], True, "two by two; found 3"),
        (["a\udcff"], False, "text 1 is not valid UTF-8"),
    ],
)
def test_bad_texts_are_named_by_their_number(given: list[str], pair: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(given, source=None, pair=pair)


@pytest.mark.parametrize(
    ("data", "pair", "message"),
    [
        (b"", False, "no text in it"),
        (b"a\n\nb\n", False, "line 2: the text is empty"),
        (b"a\nb \xff\n", False, r"line 2: not valid UTF-8 \(byte 3\)"),
        (b"a\tb\nc\n", True, "line 2: a pair is two texts with one TAB between; found 1"),
        (b"a\tb\tc\n", True, "line 1: a pair is two texts with one TAB between; found 3"),
        (b"a\tb\n\tc\n", True, "line 2: text 1 of the pair is empty"),
    ],
)
def test_bad_lines_are_named_by_file_and_number(
    tmp_path: Path, data: bytes, pair: bool, message: str
) -> None:
    source = write(tmp_path, data)
    with pytest.raises(InputError, match=message) as caught:
        read([], source=source, pair=pair)
    assert source in str(caught.value)


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    with path.open("wb") as file:
        file.truncate(1 << 27)
    with pytest.raises(InputError, match="line 1: longer than 67108864 bytes"):
        read([], source=str(path), pair=False)


@pytest.mark.parametrize("name", [".", "missing.txt", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read([], source=str(tmp_path / name), pair=False)


def test_texts_and_a_file_exclude_each_other() -> None:
    with pytest.raises(InputError, match="not both"):
        read(["a"], source="file", pair=False)


def test_a_file_is_read_no_further_than_its_texts_are_taken(tmp_path: Path) -> None:
    source = write(tmp_path, b"one\ntwo\n\n" + b"x\n" * 9)
    with closing(Texts([], source=source, pair=False)) as texts:
        assert texts.from_file and not texts.waiting
        assert [next(texts), next(texts)] == ["one", "two"]
        assert texts.share == pytest.approx(8 / 27)
        with pytest.raises(InputError, match="line 3: the text is empty"):
            next(texts)


@pytest.mark.parametrize("given", [["one"], []])
def test_where_no_size_is_known_there_is_no_share(
    monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"one\n"))
    with closing(Texts(given, source=None, pair=False)) as texts:
        assert texts.from_file is not bool(given)
        assert list(texts) == ["one"]
        assert texts.share is None
