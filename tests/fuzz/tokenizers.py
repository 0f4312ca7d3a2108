"""The tokenizer: any settings, any vocabulary, any text.

An input is a spec as JSON, a vocabulary and two texts, with zero bytes between them. Tables of a
kind are lists of numbers in the spec, under the name ``tables``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.checkpoint.tokenizer_json import READERS
from sti.errors import CheckpointError, PackFormatError
from sti.json_fields import JsonFields
from sti.text.encoding import Encoding
from sti.text.kinds import KINDS
from sti.text.template import roberta_template
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from sti.text.wordpiece import KIND as WORDPIECE
from tests.fuzz import sources
from tests.fuzz.target import Target, must
from tests.support.byte_bpe import trained_json
from tests.support.unigram import document, precompiled

_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b", "ab", "##ba")
_VOCABULARY = "\n".join((*_WORDS, "house", "\u00e9", "##\u00e9")).encode()
_SHORT = 2
"""Characters of the words that are kept of a vocabulary."""

_CUT = 7
"""Characters of a chunk: how a text is cut changes no answer."""


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def _check(tokenizer: Tokenizer, encoding: Encoding, texts: Sequence[str]) -> None:
    count = len(encoding.ids)
    must(count <= tokenizer.spec.max_tokens, "no more tokens than allowed")
    known = (encoding.ids >= 0) & (encoding.ids < tokenizer.vocab_size)
    must(bool(known.all()), "ids are words")
    must(encoding.offsets.shape == (count, 2), "offsets of each token")
    must(len(encoding.word_ids) == count == len(encoding.type_ids), "a word and type of each token")
    if tokenizer.spec.template is not None or tokenizer.spec.added_tokens:
        return  # types may not tell texts apart, and tokens that take white space may overlap
    for number, text in enumerate(texts):
        of_text = (encoding.type_ids == number) & (encoding.word_ids >= 0)
        starts, ends = encoding.offsets[of_text].T
        must(bool((starts <= ends).all()), "tokens end where they start or later")
        must(not starts.size or int(ends.max()) <= len(text), "tokens lie inside the text")
        if tokenizer.spec.kind != WORDPIECE:
            continue  # a space that is trimmed may lie after what follows it
        must(bool((np.diff(starts) >= 0).all()), "tokens follow one another")
        must(bool((np.diff(encoding.word_ids[of_text]) >= 0).all()), "words follow one another")


def _table(numbers: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    most = np.iinfo(dtype).max
    return np.array([number % (most + 1) for number in numbers], dtype)


def _read(data: bytes) -> None:
    parts = [*data.split(b"\0", 3), b"", b"", b""][:4]
    told = dict(JsonFields(sources.parsed(parts[0]), where="spec", error=PackFormatError).members())
    listed = JsonFields(told.pop("tables", {}), where="tables", error=PackFormatError)
    spec = TokenizerSpec.from_json(told)
    must(TokenizerSpec.from_json(spec.to_json()) == spec, "a spec reads back the same")
    tables = {
        name: _table(listed.integers(name), dtype)
        for name, dtype in KINDS[spec.kind].tables.items()
    }
    tokenizer = Tokenizer(spec, parts[1], tables)
    text, pair = _text(parts[2]), _text(parts[3])
    found = tokenizer.encode(text)
    _check(tokenizer, found, [text])
    if tokenizer.spec.around.pair:
        _check(tokenizer, tokenizer.encode(text, pair), [text, pair])
    tokenizer.encode_words([text, pair])
    cut = Tokenizer(spec, parts[1], tables, chunk_chars=_CUT).encode(text)
    must(bool(np.array_equal(cut.ids, found.ids)), "chunks change no ids")
    must(bool(np.array_equal(cut.offsets, found.offsets)), "chunks change no offsets")


def _sound() -> list[bytes]:
    spec = sources.manifest_json()["tokenizer"]
    accents = "\u4e00e\u0301\U0001f600 A\tB".encode() + b"\0a"
    texts = (b"a ba abba [SEP] house\0\xc3\xa9a, b", accents)
    cased = {**spec, "lowercase": False, "strip_accents": False, "clean_text": False}
    short = {**cased, "max_tokens": 5, "handle_chinese_chars": False, "continuing_prefix": ""}
    flags = {"normalized": True, "lstrip": True, "rstrip": True, "single_word": True}
    roberta = roberta_template(spec["cls_token"], spec["sep_token"]).to_json()
    left = {**spec, "added_tokens": [{"text": "ab", **flags}], "truncation_side": "left"}
    other = {**spec, "template": roberta, "added_words": 2, "lowercase_text": True}
    of_words = [(item, _VOCABULARY) for item in (spec, cased, short, left, other)]
    shared = {key: spec[key] for key in ("cls_token", "sep_token", "pad_token", "max_tokens")}
    return [
        sources.dumped(item) + b"\0" + vocabulary + b"\0" + text
        for item, vocabulary in (*of_words, *(_of_file(shared, raw) for raw in _files()))
        for text in texts
    ]


def _files() -> list[dict[str, Any]]:
    """Parsed files of kinds that have tables, none of them long."""
    raw = trained_json()
    merges = [merge for merge in raw["model"]["merges"] if len("".join(merge)) <= _SHORT]
    letters = {word for word in raw["model"]["vocab"] if len(word) == 1}
    kept = letters | {"".join(merge) for merge in merges}
    raw["model"]["merges"] = merges
    raw["model"]["vocab"] = {word: number for number, word in enumerate(sorted(kept))}
    few = document("first, split")
    few["normalizer"] = precompiled({"\u00bd": "1", "b": ""})
    return [raw, few, document("new")]


def _of_file(shared: Mapping[str, object], raw: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A spec with its tables, and the vocabulary."""
    fields = JsonFields(raw, where="tokenizer.json", error=CheckpointError)
    own = READERS[raw["model"]["type"]](fields)
    tables = {name: table.tolist() for name, table in own.tables.items()}
    words = [*own.words, "[CLS]", "[SEP]", "[PAD]"]
    spec = {"kind": own.kind, **own.settings.to_json(), **shared, "added_words": 3}
    return {**spec, "special_tokens": [], "tables": tables}, "\n".join(words).encode()


def targets() -> Sequence[Target]:
    """The target of this module."""
    words = ("[UNK]", "[SEP]", "##", "\0", "\n", "\u0301", "\u4e00", "\ud800", "\u200d", "\u0130")
    names = sources.names_in(sources.manifest_json()["tokenizer"])
    return (Target("tokenizer", _read, _sound, "bytes", (*words, *names), most_bytes=16384),)
