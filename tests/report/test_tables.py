"""Tables as text."""

from __future__ import annotations

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from sti.report.tables import aligned, comma_separated, markdown, rows_report

CELLS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=9)
ROWS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=6)
)


def test_numbers_are_aligned_to_the_right_and_words_to_the_left() -> None:
    assert aligned(["name", "ms"], [["a", "1.5"], ["long", "10.0"]]) == (
        "name    ms\na      1.5\nlong  10.0\n"
    )


def test_a_markdown_table_marks_columns_of_numbers() -> None:
    assert markdown(["name", "ms"], [["a|b", "1.5"], ["c", "-"]]) == (
        "| name |  ms |\n| ---- | --: |\n| a\\|b | 1.5 |\n| c    |   - |\n"
    )


@given(ROWS)
def test_every_line_of_a_markdown_table_is_equally_wide(rows: list[list[str]]) -> None:
    assert len({len(line) for line in markdown(rows[0], rows[1:]).splitlines()}) == 1


@given(ROWS)
def test_comma_separated_values_are_read_back(rows: list[list[str]]) -> None:
    text = comma_separated(rows[0], rows[1:])
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read == rows


def test_a_table_without_rows_is_its_header() -> None:
    assert aligned(["a", "b"], []) == "a  b\n"


def test_mappings_in_rows_become_columns_of_csv() -> None:
    rows = [{"case": "a", "busy_ms": {"storage": 1.5, "decode": None}}]
    text = rows_report("csv", {}, rows, lambda: "")
    assert text == "case,busy_ms.storage,busy_ms.decode\na,1.5,\n"
    document = json.loads(rows_report("json", {}, rows, lambda: ""))
    assert document["rows"] == rows
