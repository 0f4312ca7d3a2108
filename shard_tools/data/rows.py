"""Labelled texts: training, calibration and evaluation data as users have them.

In: a file with one example a line, TAB separated with a header line, or JSON Lines, either of them
gzipped or not. Columns: ``sentence`` (or ``text``), or ``sentence1`` and ``sentence2`` for pairs;
``label``, or ``score`` for a regression. Out: ``Row`` objects, checked one by one; what cannot be
used raises an error that names the file and the line. Knows nothing of tokens or models.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sti.errors import InputError
from sti.storage.json_input import JsonLimits, parse_json
from sti.storage.plain_files import read_plain
from sti.text.encoding import Text

Task = Literal["classification", "pair", "regression"]

MOST_BYTES = 1 << 30
"""Of a file, unpacked: all of it is held in memory."""
MOST_LINES = 1 << 22
"""Of a file: each becomes a ``Row``, of some 300 bytes beside its text."""
_MOST_SMALL, _MOST_RATIO = 1 << 24, 100
"""Bytes that any gzipped file may hold, and how many more for each that it has: texts, some 5."""
_PIECE = 1 << 20
_MOST_COLUMNS = 1024
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
        raw = read_plain(path, MOST_BYTES)
        if path.name.endswith(".gz"):
            raw = _unpacked(raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    if raw.count(b"\n") > MOST_LINES:
        raise InputError(f"{path}: has more than the {MOST_LINES} lines that are read")
    lines = _lines(path, raw)
    return _json_lines(path, lines) if name.endswith(".jsonl") else _table(path, lines)


def _lines(path: Path, raw: bytes) -> Iterator[str]:
    """The lines without their ends, one after the other: all of them together would take far more
    memory than the file.
    """
    for number, line in enumerate(io.BytesIO(raw), 1):
        if len(line) > _LIMITS.most_bytes:
            raise InputError(f"{path}: line {number}: has more than {_LIMITS.most_bytes} bytes")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: line {number}: is not UTF-8 text: {error.reason}") from error
        yield text.removesuffix("\n").removesuffix("\r")


def _unpacked(raw: bytes) -> bytes:
    """What a gzipped file holds, if it is not far more than it has.

    Raises:
        OSError, EOFError, zlib.error: it is, or the file is damaged.
    """
    most = min(MOST_BYTES, _MOST_SMALL + _MOST_RATIO * len(raw))
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        pieces: list[bytes] = []
        while piece := stream.read(_PIECE):  # what is asked for is taken, whatever comes
            pieces.append(piece)
            most -= len(piece)
            if most < 0:
                raise OSError(errno.EFBIG, "it holds far more than texts do that take as little")
    return b"".join(pieces)


def _table(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    first = next(lines, "")
    if first.count("\t") >= _MOST_COLUMNS:
        raise InputError(f"{path}: line 1: has more than {_MOST_COLUMNS} columns")
    header = first.split("\t")
    for line, text in enumerate(lines, 2):
        count = text.count("\t") + 1
        if count != len(header):
            raise InputError(
                f"{path}: line {line}: has {count} TAB-separated fields, the header {len(header)}"
            )
        yield line, dict(zip(header, text.split("\t"), strict=True))


def _json_lines(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
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
    label = label or ""
    if labelled and not label.strip():
        raise InputError(f"{where}: the label is empty")
    if task == "regression" and not _is_number(label):
        raise InputError(f"{where}: {label!r} is no finite number")
    return Row(text, label, line)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
