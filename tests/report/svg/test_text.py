"""Widths of text, lines, and what XML may hold."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from sti.report.svg.text import escaped, text_width, wrapped


@given(st.text(max_size=60), st.floats(1.0, 400.0))
def test_lines_fit_and_nothing_but_space_is_lost(text: str, room: float) -> None:
    lines = wrapped(text, room)
    assert lines
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(text_width(line) <= room or len(line) == 1 for line in lines if line.isascii())


def test_lines_break_between_words_and_within_long_ones() -> None:
    assert wrapped("one two three", text_width("one two")) == ["one two", "three"]
    assert wrapped("a bbbbbb", text_width("bbb")) == ["a", "bbb", "bbb"]
    assert wrapped("", 10.0) == [""]


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_is_legal_xml_and_read_back_the_same_but_for_what_xml_cannot_hold(
    text: str,
) -> None:
    read = ElementTree.fromstring(f'<a b="{escaped(text)}">{escaped(text)}</a>').text or ""
    assert len(read) <= len(text)
    assert all(character == "\ufffd" or character in text + "\n" for character in read)


def test_bold_text_and_large_text_are_wider() -> None:
    assert text_width("abc", bold=True) > text_width("abc")
    assert text_width("abc", 24.0) == 2 * text_width("abc", 12.0)
    assert text_width("数") > text_width("m")
    assert text_width("e\u0301") == text_width("e")
