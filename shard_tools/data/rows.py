"""Labelled texts: training, calibration and evaluation data as users have them.

In: a file with one example a line, TAB separated with a header line, or JSON Lines, either of them
gzipped or not. Columns: ``sentence`` (or ``text``), or ``sentence1`` and ``sentence2`` for pairs;
``label``, or ``score`` for a regression. Out: ``Row`` objects, checked one by one; what cannot be
used raises an error that names the file and the line. Knows nothing of tokens or models.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sti.errors import InputError
from sti.storage.json_input import JsonLimits, parse_json
from sti.text.encoding import Text

Task = Literal["classification", "pair", "regression"]

_LIMITS = JsonLimits(1 << 24, 1 << 16, 32)
"""Of a line: an example may stand among whatever else its set says of it."""
_SINGLE = ("sentence", "text")
_PAIR = ("sentence1", "sentence2")
_LABELS = ("label", "score")


@dataclass(frozen=True, slots=True)
class Row:
    """One example. ``label`` is as it stands in the file; a regression's parses as a number."""

    text: Text
    label: str
    line: int
    """Its line in the file, from 1."""


def read_rows(path: Path, task: Task | None = None, *, labelled: bool = True) -> list[Row]:
    """Read and check a file.

    Args:
        path: ``.tsv`` or ``.jsonl``, possibly followed by ``.gz``.
        task: ``classification`` (one text), ``pair`` (two), ``regression`` (one or two, a number);
            None takes what the file has.
        labelled: whether rows need a label; without one it is empty.

    Raises:
        InputError: the file cannot be read, lacks a column, has no rows, or a row is empty or
            malformed; names the file and the line.
    """
    rows = [
        _row(record, f"{path}: line {line}", line, task, labelled)
        for line, record in _records(path)
    ]
    if not rows:
        raise InputError(f"{path}: has no rows")
    pairs = isinstance(rows[0].text, tuple)
    for row in rows:
        if isinstance(row.text, tuple) != pairs:
            raise InputError(f"{path}: line {row.line}: one text and two texts are mixed")
    return rows


def label_numbers(rows: Sequence[Row], labels: Sequence[str], path: Path) -> list[int]:
    """The number of each row's label among ``labels``.

    Raises:
        InputError: a label is unknown; names the file, the line and the labels there are.
    """
    known = {label: number for number, label in enumerate(labels)}
    for row in rows:
        if row.label not in known:
            some = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
            raise InputError(
                f"{path}: line {row.line}: label {row.label!r} is unknown; the model has {some}"
            )
    return [known[row.label] for row in rows]


def targets_of(rows: Sequence[Row], labels: Sequence[str], path: Path) -> list[float]:
    """What rows should be answered with: numbers of labels, or, without labels, values.

    Raises:
        InputError: as ``label_numbers``.
    """
    if not labels:
        return [float(row.label) for row in rows]
    return [float(number) for number in label_numbers(rows, labels, path)]


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line numbers and fields by column."""
    name = path.name.removesuffix(".gz")
    if not name.endswith((".tsv", ".jsonl")):
        raise InputError(f"{path}: data is read from .tsv or .jsonl files, gzipped (.gz) or not")
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text: {error.reason}") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    return _json_lines(path, lines) if name.endswith(".jsonl") else _table(path, lines)


def _table(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    header = lines[0].split("\t") if lines else []
    for line, text in enumerate(lines[1:], 2):
        fields = text.split("\t")
        if len(fields) != len(header):
            raise InputError(
                f"{path}: line {line}: has {len(fields)} TAB-separated fields, the header "
                f"{len(header)}"
            )
        yield line, dict(zip(header, fields, strict=True))


def _json_lines(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    for line, text in enumerate(lines, 1):
        try:
            record = parse_json(text, _LIMITS)
        except ValueError as error:
            raise InputError(f"{path}: line {line}: is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}: line {line}: is not a JSON object")
        yield (
            line,
            {
                key: value if isinstance(value, str) else json.dumps(value)
                for key, value in record.items()
                if not isinstance(value, list | dict | None)
            },
        )


def _row(
    record: Mapping[str, str], where: str, line: int, task: Task | None, labelled: bool
) -> Row:
    single = next((record[key] for key in _SINGLE if key in record), None)
    pair = tuple(record[key] for key in _PAIR if key in record)
    label = next((record[key] for key in _LABELS if key in record), None)
    text: Text
    if len(pair) == 2 and task != "classification":
        text = (pair[0], pair[1])
    elif single is not None and task != "pair":
        text = single
    else:
        wanted = {"pair": "sentence1 and sentence2", "classification": "sentence"}
        needed = wanted.get(task or "", "sentence, or sentence1 and sentence2")
        raise InputError(f"{where}: lacks {needed}; it has {', '.join(record) or 'nothing'}")
    if label is None and labelled:
        raise InputError(f"{where}: lacks label (or score); it has {', '.join(record)}")
    for part in (text,) if isinstance(text, str) else text:
        if not part.strip():
            raise InputError(f"{where}: a text is empty")
        _check_unicode(part, where)
    label = label or ""
    if labelled and not label.strip():
        raise InputError(f"{where}: the label is empty")
    _check_unicode(label, where)
    if task == "regression" and not _is_number(label):
        raise InputError(f"{where}: {label!r} is no finite number")
    return Row(text, label, line)


def _check_unicode(text: str, where: str) -> None:
    """Refuse halves of surrogate pairs, which JSON can name but no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: is not valid Unicode text: {error.reason}") from error


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
