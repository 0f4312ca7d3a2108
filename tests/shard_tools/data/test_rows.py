"""Labelled rows: what is read, and how files that cannot be used are told."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.data.rows import Row, Task, label_numbers, read_rows
from sti.errors import InputError

TABLE = "sentence\tlabel\na dog\tgood\nno cat\tbad\n"


def write(tmp_path: Path, content: str | bytes, name: str = "data.tsv") -> Path:
    path = tmp_path / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def refused(path: Path, task: Task | None = None) -> str:
    """The message without the file's name, with which it must begin."""
    with pytest.raises(InputError) as caught:
        read_rows(path, task)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_table_has_a_row_a_line_behind_its_header(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, TABLE))
    assert rows == [Row("a dog", "good", 2), Row("no cat", "bad", 3)]


def test_json_lines_have_a_row_a_line(tmp_path: Path) -> None:
    lines = '{"sentence": "a\\tdog", "label": "good", "more": [1]}\n{"text": "no", "label": 3}\n'
    rows = read_rows(write(tmp_path, lines, "data.jsonl"))
    assert rows == [Row("a\tdog", "good", 1), Row("no", "3", 2)]


@pytest.mark.parametrize("name", ["data.tsv", "data.tsv.gz"])
@pytest.mark.parametrize(
    "content",
    [TABLE, TABLE.rstrip("\n"), TABLE.replace("\n", "\r\n"), "\ufeff" + TABLE],
    ids=["plain", "no end of line at the end", "CRLF", "byte order mark"],
)
def test_line_ends_marks_and_compression_make_no_difference(
    tmp_path: Path, content: str, name: str
) -> None:
    rows = read_rows(write(tmp_path, content, name))
    assert [(row.text, row.label) for row in rows] == [("a dog", "good"), ("no cat", "bad")]


def test_columns_may_come_in_any_order_with_others_among_them(tmp_path: Path) -> None:
    path = write(tmp_path, "label\tid\ttext\ngood\t7\ta dog\n")
    assert read_rows(path) == [Row("a dog", "good", 2)]


def test_line_separators_inside_a_text_end_no_line(tmp_path: Path) -> None:
    path = write(tmp_path, "sentence\tlabel\na\x0bdog\u2028runs\x85\tgood\n")
    assert read_rows(path)[0].text == "a\x0bdog\u2028runs\x85"


def test_pairs_are_read_for_pairs_and_regressions_and_single_texts_for_classification(
    tmp_path: Path,
) -> None:
    content = "sentence\tsentence1\tsentence2\tscore\none\ttwo\tthree\t1.5\n"
    path = write(tmp_path, content)
    texts = {task: read_rows(path, task)[0].text for task in get_args(Task)}
    both = ("two", "three")
    assert texts == {"classification": "one", "pair": both, "regression": both}
    assert read_rows(path)[0].text == both


@pytest.mark.parametrize("name", ["data.csv", "data", "data.gz", "data.tsv.zip", "datatsv"])
def test_other_kinds_of_files_are_refused_by_their_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(TABLE)
    assert refused(path) == "data is read from .tsv or .jsonl files, gzipped (.gz) or not"


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.tsv") == "cannot be read: No such file or directory"
    (tmp_path / "dir.tsv").mkdir()
    assert refused(tmp_path / "dir.tsv") == "cannot be read: Is a directory"
    whole = gzip.compress(TABLE.encode())
    damaged = whole[:12] + bytes([whole[12] ^ 0xFF]) + whole[13:]
    for number, content in enumerate((whole[:-9], damaged, TABLE.encode(), whole + b"x")):
        path = tmp_path / f"{number}.tsv.gz"
        path.write_bytes(content)
        assert refused(path).startswith("cannot be read: ")
    path = write(tmp_path, b"sentence\tlabel\n\xff\xfe\tgood\n")
    assert refused(path) == "line 2: is not UTF-8 text: invalid start byte"


@pytest.mark.parametrize("content", ["", "\n", "sentence\tlabel\n", "sentence\tlabel"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    assert refused(write(tmp_path, content)) == "has no rows"
    assert refused(write(tmp_path, "", "data.jsonl")) == "has no rows"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a dog", "has 1 TAB-separated fields, the header 2"),
        ("", "has 1 TAB-separated fields, the header 2"),
        ("a\tdog\tgood", "has 3 TAB-separated fields, the header 2"),
        ("\tgood", "a text is empty"),
        (" \u3000 \tgood", "a text is empty"),
        ("a dog\t", "the label is empty"),
        ("a dog\t ", "the label is empty"),
    ],
)
def test_a_malformed_row_of_a_table_is_named_by_its_line(
    tmp_path: Path, row: str, message: str
) -> None:
    path = write(tmp_path, f"{TABLE}{row}\nthe end\tgood\n")
    assert refused(path) == f"line 4: {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("", "is not JSON: "),
        ("{", "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ('{"sentence": "a", "label": ' + "1" * 5000 + "}", "is not JSON: "),
        ('["a dog", "good"]', "is not a JSON object"),
        ("{}", "lacks sentence, or sentence1 and sentence2; it has nothing"),
        ('{"label": "good"}', "lacks sentence, or sentence1 and sentence2; it has label"),
        ('{"sentence": "a dog"}', "lacks label (or score); it has sentence"),
        ('{"sentence": "a dog", "label": null}', "lacks label (or score); it has sentence"),
        ('{"sentence": ["a"], "label": "x"}', "lacks sentence, or sentence1 and sentence2"),
        ('{"sentence": "a dog", "label": {"a": 1}}', "lacks label (or score); it has sentence"),
        ('{"sentence1": "a", "label": "x"}', "lacks sentence, or sentence1 and sentence2"),
        ('{"sentence": "", "label": "good"}', "a text is empty"),
        ('{"sentence": "a \\ud800 dog", "label": "good"}', "is not JSON: it is not valid Unicode"),
        ('{"sentence": "a dog", "label": "\\udfff"}', "is not JSON: it is not valid Unicode"),
        ('{"sentence1": "a", "sentence2": "b", "label": "x"}', "one text and two texts are mixed"),
    ],
)
def test_a_malformed_json_line_is_named_by_its_number(
    tmp_path: Path, row: str, message: str
) -> None:
    good = '{"sentence": "a dog", "label": "good"}\n'
    path = write(tmp_path, f"{good}{row}\n{good}", "data.jsonl")
    assert refused(path).startswith(f"line 2: {message}")


@pytest.mark.parametrize(
    ("task", "header", "message"),
    [
        ("classification", "sentence1\tsentence2\tlabel", "lacks sentence; it has sentence1, "),
        ("pair", "sentence\tid\tlabel", "lacks sentence1 and sentence2; it has sentence, "),
        ("pair", "sentence1\tid\tlabel", "lacks sentence1 and sentence2; it has sentence1, "),
        ("regression", "id\tx\tscore", "lacks sentence, or sentence1 and sentence2; it has id, "),
        ("classification", "sentence\tid\tclass", "lacks label (or score); it has sentence, "),
        ("classification", "Sentence\tid\tlabel", "lacks sentence; it has Sentence, "),
    ],
)
def test_columns_that_a_task_needs_are_missed(
    tmp_path: Path, task: Task, header: str, message: str
) -> None:
    path = write(tmp_path, f"{header}\na\tb\t1\n")
    assert refused(path, task).startswith(f"line 2: {message}")


@pytest.mark.parametrize("score", ["good", "nan", "inf", "-inf", "1e999", "1,5", "0x10"])
def test_a_regression_needs_finite_numbers(tmp_path: Path, score: str) -> None:
    path = write(tmp_path, f"sentence\tscore\na dog\t1.5\na cat\t{score}\n")
    assert refused(path, "regression") == f"line 3: {score!r} is no finite number"
    assert read_rows(path, "classification")[1].label == score


def test_labels_have_numbers_and_an_unknown_one_is_named_with_those_there_are(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, TABLE)
    rows = read_rows(path)
    assert label_numbers(rows, ("bad", "good"), path) == [1, 0]
    with pytest.raises(InputError) as caught:
        label_numbers(rows, ("good", "fair"), path)
    message = f"{path}: line 3: label 'bad' is unknown; the model has good, fair"
    assert str(caught.value) == message
    with pytest.raises(InputError, match=r"the model has 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.$"):
        label_numbers(rows, [str(number) for number in range(9)], path)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\ufeff"), min_size=1).filter(
    str.strip
)


@settings(max_examples=50)
@given(items=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5), pairs=st.booleans())
def test_what_was_written_is_read_either_way(
    items: Sequence[tuple[str, str, str]], pairs: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.getbasetemp()
    names = ("sentence1", "sentence2", "label") if pairs else ("sentence", "label")
    fields = [item if pairs else item[1:] for item in items]
    lines = ["\t".join(row) for row in (names, *fields)]
    table = write(place, "\n".join(lines) + "\n", "any.tsv")
    records = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in fields)
    found = [(row.text, row.label) for row in read_rows(table)]
    assert found == [((row[0], row[1]) if pairs else row[0], row[-1]) for row in fields]
    written = write(place, records, "any.jsonl.gz")
    assert [(row.text, row.label) for row in read_rows(written)] == found


@settings(max_examples=200)
@given(content=st.binary(max_size=60), start=st.sampled_from([b"", b"sentence\tlabel\n", b'{"']))
@pytest.mark.parametrize("name", ["bad.tsv", "bad.jsonl"])
def test_any_bytes_are_read_or_refused(
    content: bytes, start: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp(), start + content, name)
    rows, message = [], ""
    try:
        rows = read_rows(path)
    except InputError as error:
        message = str(error)
    assert bool(rows) != message.startswith(f"{path}: ")


def test_labels_may_be_left_out_where_they_are_not_needed(tmp_path: Path) -> None:
    path = write(tmp_path, "sentence\na dog\na cat\n")
    rows = [(row.text, row.label) for row in read_rows(path, labelled=False)]
    assert rows == [("a dog", ""), ("a cat", "")]
    with pytest.raises(InputError, match="line 2: lacks label"):
        read_rows(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"sentence\tlabel\n" + b"\n" * (1 << 21), "line 2: has 1 TAB-separated fields"),
        (b"sentence\n" + b"\n" * (1 << 21), "line 2: a text is empty"),
        (b"sentence\n" + b"\n" * (1 << 22), "has more than the 4194304 lines"),
        (b"\t" * (1 << 21), "line 1: has more than 1024 columns"),
        (b"a" * (1 << 25), "holds far more than texts"),
    ],
)
def test_a_file_that_unpacks_to_nothing_of_use_takes_little_memory(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = write(tmp_path, content, "data.tsv.gz")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words):
            read_rows(path, labelled=False)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(content) + (1 << 20)
    finally:
        tracemalloc.stop()
