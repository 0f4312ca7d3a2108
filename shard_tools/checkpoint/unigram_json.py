"""Unigram in a ``tokenizer.json``: its model, normalizer and pre-tokenizer.

In: the parsed file. Out: an ``OwnPart``, with the tables of ``sti.text.unigram``. What is not
supported is refused by name. Knows nothing of added tokens, templates, or other files.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.checkpoint.tokenizer_pipeline import OwnPart
from sti.errors import CheckpointError, PackFormatError
from sti.json_fields import JsonFields
from sti.text.charsmap import CharsMap
from sti.text.normalizer_steps import LONGEST_TEXT, REGEXES, SPACES, StepSettings
from sti.text.unigram import KIND, MOST_SCORE
from sti.text.unigram_settings import PREPENDS, UnigramSettings
from sti.text.vocabulary_index import LONGEST_WORD

SUPPORTED = (
    "supported with Unigram: the normalizers Precompiled, Replace, Strip, Lowercase and Sequence, "
    "the pre-tokenizer Metaspace, alone or after WhitespaceSplit"
)


def read_unigram(fields: JsonFields) -> OwnPart:
    """The Unigram model of a tokenizer file, and the steps before it.

    Args:
        fields: the whole file.

    Raises:
        CheckpointError: malformed, or not supported; names the file and the key.
    """
    model = fields.object("model").only("type", "unk_id", "vocab", "byte_fallback")
    pieces, scores = _vocabulary(model)
    steps: list[StepSettings] = []
    maps: list[bytes] = []
    if fields.has("normalizer"):
        _add_steps(fields.object("normalizer"), steps, maps)
    if len(maps) > 1:
        raise CheckpointError(f"{fields.where}: normalizer: more than one Precompiled; {SUPPORTED}")
    split_spaces, metaspace = _pre_tokenizer(fields)
    settings = UnigramSettings(
        unknown=model.integer("unk_id", most=len(pieces) - 1),
        byte_fallback=model.has("byte_fallback") and model.flag("byte_fallback"),
        steps=tuple(steps),
        split_spaces=split_spaces,
        mark=_mark(metaspace),
        prepend=_prepend(metaspace),
        split_marks=not metaspace.has("split") or metaspace.flag("split"),
    )
    trie, replacements = _charsmap(fields, maps[0] if maps else b"")
    tables: dict[str, NDArray[Any]] = {
        "scores": _score_bits(scores),
        "charsmap_trie": trie,
        "charsmap_replacements": replacements,
    }
    return OwnPart(KIND, settings, pieces, tables)


def _vocabulary(model: JsonFields) -> tuple[list[str], list[float]]:
    """Pieces and scores by id."""
    pieces: list[str] = []
    scores: list[float] = []
    for index, item in enumerate(model.items("vocab")):
        where = f"{model.where}: vocab[{index}]"
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise CheckpointError(f"{where}: must be a piece and its score, found {item!r:.80}")
        piece, score = item
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise CheckpointError(f"{where}: the score of {piece!r:.80} is no number")
        if not math.isfinite(score) or abs(score) > MOST_SCORE:
            raise CheckpointError(
                f"{where}: the score of {piece!r:.80} is {score!r:.40}: not finite, or beyond "
                f"{MOST_SCORE:g}"
            )
        if "\n" in piece or any("\ud800" <= char <= "\udfff" for char in piece):
            raise CheckpointError(f"{where}: {piece!r:.80} holds a newline or a lone surrogate")
        if len(piece.encode()) > LONGEST_WORD:
            raise CheckpointError(f"{where}: {piece!r:.80} has more than {LONGEST_WORD} bytes")
        pieces.append(piece)
        scores.append(float(score))
    if not pieces:
        raise CheckpointError(f"{model.where}: vocab: no pieces")
    if len(set(pieces)) < len(pieces):
        twice = Counter(pieces).most_common(1)[0][0]
        raise CheckpointError(f"{model.where}: vocab: {twice!r:.80} is there twice")
    return pieces, scores


def _score_bits(scores: Sequence[float]) -> NDArray[np.uint32]:
    """Scores as ``sti.text.unigram.TABLES`` has them."""
    exact = np.array(scores, np.float64)
    short = exact.astype(np.float32)
    return (short if (short == exact).all() else exact).view(np.uint32)


def _add_steps(normalizer: JsonFields, steps: list[StepSettings], maps: list[bytes]) -> None:
    """The steps of a normalizer, and the maps of characters among them."""
    kind = normalizer.text("type")
    if kind == "Sequence":
        for item in normalizer.only("type", "normalizers").objects("normalizers"):
            _add_steps(item, steps, maps)
    elif kind == "Precompiled":
        steps.append(StepSettings("charsmap"))
        maps.append(_decoded(normalizer.only("type", "precompiled_charsmap")))
    elif kind == "Lowercase":
        steps.append(StepSettings("lowercase"))
    elif kind == "Strip":
        normalizer.only("type", "strip_left", "strip_right")
        left, right = normalizer.flag("strip_left"), normalizer.flag("strip_right")
        steps.append(StepSettings("strip", left=left, right=right))
    elif kind == "Replace":
        steps.append(_replace(normalizer.only("type", "pattern", "content")))
    else:
        raise CheckpointError(f"{normalizer.where}: {kind!r:.40} is not supported; {SUPPORTED}")


def _replace(normalizer: JsonFields) -> StepSettings:
    pattern, content = normalizer.object("pattern"), normalizer.text("content")
    if pattern.has("Regex"):
        found = StepSettings("replace_regex", pattern.only("Regex").text("Regex"), content)
        if found.pattern not in REGEXES:
            raise CheckpointError(
                f"{normalizer.where}: the regular expression {found.pattern!r:.80} is not "
                f"supported; supported are {', '.join(map(repr, REGEXES))}"
            )
    else:
        found = StepSettings("replace", pattern.only("String").text("String"), content)
    if not found.pattern or max(len(found.pattern), len(content)) > LONGEST_TEXT:
        raise CheckpointError(
            f"{normalizer.where}: pattern or content has more than {LONGEST_TEXT} characters, or "
            "the pattern none"
        )
    return found


def _decoded(normalizer: JsonFields) -> bytes:
    """The bytes of a map of characters."""
    try:
        return base64.b64decode(normalizer.text("precompiled_charsmap"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointError(
            f"{normalizer.where}: precompiled_charsmap is not base64: {error}"
        ) from error


def _charsmap(fields: JsonFields, data: bytes) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Trie and replacements of a map of characters: the trie's size in bytes comes first."""
    if not data:
        return np.zeros(0, np.uint32), np.zeros(0, np.uint8)
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 + size or size % 4:
        raise CheckpointError(
            f"{fields.where}: normalizer: precompiled_charsmap: a trie of {size} bytes in "
            f"{len(data)}"
        )
    trie = np.frombuffer(data, "<u4", size // 4, 4).astype(np.uint32)
    replacements = np.frombuffer(data, np.uint8, len(data) - 4 - size, 4 + size)
    try:
        CharsMap(trie, replacements)
    except PackFormatError as error:
        raise CheckpointError(
            f"{fields.where}: normalizer: precompiled_charsmap: {error}"
        ) from error
    return trie, replacements


def _pre_tokenizer(fields: JsonFields) -> tuple[bool, JsonFields]:
    """Whether white space parts words, and the Metaspace."""
    if not fields.has("pre_tokenizer"):
        raise CheckpointError(f"{fields.where}: no pre_tokenizer; {SUPPORTED}")
    found = fields.object("pre_tokenizer")
    parts = [found]
    if found.text("type") == "Sequence":
        parts = found.only("type", "pretokenizers").objects("pretokenizers")
    kinds = [part.text("type") for part in parts]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise CheckpointError(
            f"{found.where}: {', '.join(kinds) or 'nothing'!r:.80} is not supported; {SUPPORTED}"
        )
    known = ("type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep")
    return len(parts) > 1, parts[-1].only(*known)


def _mark(metaspace: JsonFields) -> str:
    mark = metaspace.text("replacement")
    if len(mark) != 1 or mark in SPACES or "\ud800" <= mark <= "\udfff":
        raise metaspace.fail("replacement", "one character that is no white space")
    return mark


def _prepend(metaspace: JsonFields) -> str:
    """When a mark is put before a word; ``add_prefix_space`` is what older files have."""
    found = metaspace.text("prepend_scheme") if metaspace.has("prepend_scheme") else ""
    prefix = not metaspace.has("add_prefix_space") or metaspace.flag("add_prefix_space")
    if (found and found not in PREPENDS) or (not prefix and found not in ("", "never")):
        raise metaspace.fail(
            "prepend_scheme", f"one of {', '.join(PREPENDS)}, never without add_prefix_space"
        )
    return found or ("always" if prefix else "never")
