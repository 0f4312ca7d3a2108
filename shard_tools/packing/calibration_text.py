"""The texts that a build measures importance with, and whether they are of the model's kind.

In: a file of the user's, or the set that comes with the builder; a tokenizer. Out: texts, their
tokens, and what to tell where the model hardly knows them: it then is of another language or domain
than they are, and what is measured on them says little about the texts it will be given. Knows
nothing of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.architectures.base import TokenBatch
from sti.errors import InputError
from sti.report.wording import counted
from sti.storage.plain_files import read_plain
from sti.text.encoding import Encoding
from sti.text.tokenizer import Tokenizer

FILE = "calibration.txt"
BUILT_IN = "the built-in texts"
MOST_TOKENS = 640
"""Calibration stops here: more tokens make the build slower and the ranking hardly better."""

_MOST_BYTES = 1 << 26
"""Of a file of texts, of which some thousand tokens are used."""
_MOST_UNKNOWN = 0.05
"""Share of unknown tokens: English texts have less than .005 of them in an English model."""
_MOST_PIECES = 2.2
"""Tokens a word, on average: 1.1 to 1.4 of English texts, 1.8 where a model is multilingual."""
_LONGEST_WORDS = 14
"""Characters, on average: longer "words" are sentences of a script without spaces."""
_FEW_TOKENS = 160


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Which texts were used, and how well the tokenizer knows them."""

    name: str
    """The file, or ``BUILT_IN``."""
    texts: int
    """As many of the first as were used."""
    tokens: int
    unknown: float
    """Share of the tokens that stand for words that are not in the vocabulary."""
    pieces: float | None
    """Tokens a word, special tokens apart; None where white space does not part words."""

    @property
    def own(self) -> bool:
        """Whether they are the user's."""
        return self.name != BUILT_IN

    def notice(self) -> str:
        """What to tell of them; empty where all is well."""
        if self.unknown > _MOST_UNKNOWN:
            what = f"{self.unknown:.0%} of their tokens are unknown to the model's tokenizer"
        elif self.pieces is not None and self.pieces > _MOST_PIECES:
            what = f"the model's tokenizer cuts each of their words into {self.pieces:.1f} pieces"
        elif self.own and self.tokens < _FEW_TOKENS:
            what = f"they have {self.tokens} tokens, and {MOST_TOKENS} are used"
            return f"calibration on {self.name}: {what}; give more of them"
        else:
            return ""
        remedy = (
            "are they in the language that it was trained for?"
            if self.own
            else "give texts like those that the model will be used on, one a line, with "
            "--calibration FILE"
        )
        return (
            f"calibration on {self.name}: {what}, so importance is measured on what the model "
            f"hardly knows; {remedy}"
        )

    def members(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "texts_from": self.name,
            "texts": self.texts,
            "tokens": self.tokens,
            "unknown_share": round(self.unknown, 4),
            "tokens_per_word": None if self.pieces is None else round(self.pieces, 3),
        }

    def words(self) -> str:
        """For people."""
        pieces = "" if self.pieces is None else f", {self.pieces:.1f} tokens a word"
        return (
            f"{self.name}: {counted(self.texts, 'text')}, {counted(self.tokens, 'token')}{pieces}, "
            f"{self.unknown:.1%} unknown"
        )


def calibration_texts(path: Path | None) -> list[str]:
    """One text a line, of ``path`` or of the set that comes with the builder.

    Raises:
        InputError: the file cannot be read, a line of it is not UTF-8, or it holds no text.
    """
    if path is None:
        raw = resources.files("shard_tools.packing").joinpath(FILE).read_bytes()
    else:
        try:
            raw = read_plain(path, _MOST_BYTES)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = text_lines(raw, str(path or BUILT_IN))
    texts = [text for _, text in lines]
    if not texts:
        raise InputError(f"{path}: holds no text; give one calibration text a line")
    return texts


def text_lines(raw: bytes, where: str) -> list[tuple[int, str]]:
    """The lines with text, stripped, and their numbers from 1.

    Raises:
        InputError: a line is not UTF-8; names it.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}: line {line} is not UTF-8 text: {error.reason}") from error
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in stripped if line]


def calibration_encodings(
    texts: Sequence[str], tokenizer: Tokenizer, *, most_tokens: int = MOST_TOKENS
) -> list[Encoding]:
    """As many of the first texts as ``most_tokens`` allows, at least one."""
    found: list[Encoding] = []
    tokens = 0
    for text in texts:
        encoding = tokenizer.encode(text)
        tokens += len(encoding.ids)
        if found and tokens > most_tokens:
            break
        found.append(encoding)
    return found


def calibration_batch(encodings: Sequence[Encoding]) -> TokenBatch:
    """Texts end to end."""
    lengths = tuple(len(encoding.ids) for encoding in encodings)
    return TokenBatch(
        np.concatenate([encoding.ids for encoding in encodings]),
        np.concatenate([encoding.type_ids for encoding in encodings]),
        np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
        lengths,
    )


def known_share(
    name: str, texts: Sequence[str], encodings: Sequence[Encoding], unknown_id: int | None
) -> CalibrationText:
    """How well a tokenizer knows texts.

    Args:
        name: the file, or ``BUILT_IN``.
        texts: those of ``encodings``, and perhaps more.
        unknown_id: of the token for what is not in the vocabulary; None where there is none.
    """
    lengths = [len(encoding.ids) for encoding in encodings]
    tokens = max(sum(lengths) - _specials(encodings), 1)
    unknown = sum(int((encoding.ids == unknown_id).sum()) for encoding in encodings)
    words = [word for text in texts[: len(encodings)] for word in text.split()]
    parted = words and sum(map(len, words)) <= _LONGEST_WORDS * len(words)
    pieces = tokens / len(words) if parted else None
    return CalibrationText(name, len(encodings), sum(lengths), unknown / tokens, pieces)


def _specials(encodings: Sequence[Encoding]) -> int:
    """Tokens that come from no word of a text."""
    return sum(int((encoding.offsets[:, 1] == 0).sum()) for encoding in encodings)
