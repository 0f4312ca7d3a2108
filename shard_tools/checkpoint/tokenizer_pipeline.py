"""What each kind of tokenizer file is read into, and how their text and JSON are read.

In: a path, or parsed JSON. Out: text, checked JSON objects, and the ``Pipeline`` that
``tokenizer_json`` and ``vocab_txt`` fill in. Knows no particular file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from shard_tools.checkpoint.reader import DOCUMENT_LIMITS
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.storage.json_input import parse_json
from sti.storage.lfs_pointers import lfs_words
from sti.storage.plain_files import read_plain
from sti.text.added_tokens import AddedToken
from sti.text.kinds import Settings
from sti.text.template import Template
from sti.text.tokenizer_spec import SIDES


@dataclass(frozen=True, slots=True)
class Listed:
    """An added token as a file lists it."""

    token: AddedToken
    number: int | None
    """Its id; None for the next that is free, or that of the vocabulary."""
    where: str
    """Names the file and the entry."""
    optional: bool = False
    """Whether it is none where the vocabulary lacks it: no file names it."""


@dataclass(frozen=True, slots=True)
class OwnPart:
    """What only this kind of tokenizer has."""

    kind: str
    settings: Settings
    words: list[str]
    """Of the vocabulary by id, those of added tokens beyond it not included."""
    tables: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Contents of either kind of tokenizer file, except the sequence limit."""

    own: OwnPart
    template: Template
    added: tuple[Listed, ...]
    template_ids: Mapping[str, int] = field(default_factory=dict)
    """Which ids the file says that the template's tokens have: to be compared with the vocabulary,
    once all of it is known."""
    truncation_side: str = SIDES[0]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        CheckpointError: it cannot be read or is not UTF-8; names the file and the line.
    """
    try:
        raw = read_plain(path, DOCUMENT_LIMITS.most_bytes)
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CheckpointError(f"{path}: line {line} is not UTF-8: {error.reason}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if words := lfs_words(raw):
        raise CheckpointError(f"{path}: {words}")
    if text.startswith("\ufeff"):
        raise CheckpointError(
            f"{path}: begins with a byte order mark, which is no part of what it holds; save it as "
            "UTF-8 without one"
        )
    return text


def read_object(path: Path) -> JsonFields:
    """The object that a JSON file holds.

    Raises:
        CheckpointError: it cannot be read, or is not a JSON object.
    """
    try:
        value = parse_json(read_text(path), DOCUMENT_LIMITS)
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    return JsonFields(value, where=str(path), error=CheckpointError)


def read_optional(path: Path) -> JsonFields:
    """As ``read_object``, or an object without fields where the file does not exist."""
    if path.is_file():
        return read_object(path)
    return JsonFields({}, where=str(path), error=CheckpointError)


def flag(fields: JsonFields, key: str, *, default: bool) -> bool:
    """A boolean that may be absent or null."""
    return fields.flag(key) if fields.has(key) else default


def added_token(fields: JsonFields, *, normalized: bool = False) -> AddedToken:
    """An added token, as the reference library writes one.

    Args:
        normalized: what it is where the file does not say.

    Raises:
        CheckpointError: it is malformed, or has a member that is not known.
    """
    fields.only("__type", "id", "special", "content", *AddedToken._fields[1:])
    return AddedToken(
        fields.text("content"),
        normalized=flag(fields, "normalized", default=normalized),
        lstrip=flag(fields, "lstrip", default=False),
        rstrip=flag(fields, "rstrip", default=False),
        single_word=flag(fields, "single_word", default=False),
    )
