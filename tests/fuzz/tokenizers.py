"""The tokenizer: any settings, any vocabulary, any text.

An input is a spec as JSON, a vocabulary and two texts, with zero bytes between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.encoding import Encoding
from sti.text.template import roberta_template
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from tests.fuzz import sources
from tests.fuzz.target import Target, must

_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b", "ab", "##ba")
_VOCABULARY = "\n".join((*_WORDS, "house", "\u00e9", "##\u00e9")).encode()
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
        must(bool((np.diff(starts) >= 0).all()), "tokens follow one another")
        must(bool((np.diff(encoding.word_ids[of_text]) >= 0).all()), "words follow one another")


def _read(data: bytes) -> None:
    parts = [*data.split(b"\0", 3), b"", b"", b""][:4]
    spec = TokenizerSpec.from_json(
        JsonFields(sources.parsed(parts[0]), where="spec", error=PackFormatError).members()
    )
    must(TokenizerSpec.from_json(spec.to_json()) == spec, "a spec reads back the same")
    tokenizer = Tokenizer(spec, parts[1])
    text, pair = _text(parts[2]), _text(parts[3])
    found = tokenizer.encode(text)
    _check(tokenizer, found, [text])
    if tokenizer.spec.around.pair:
        _check(tokenizer, tokenizer.encode(text, pair), [text, pair])
    tokenizer.encode_words([text, pair])
    cut = Tokenizer(spec, parts[1], chunk_chars=_CUT).encode(text)
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
    return [
        sources.dumped(item) + b"\0" + _VOCABULARY + b"\0" + text
        for item in (spec, cased, short, left, other)
        for text in texts
    ]


def targets() -> Sequence[Target]:
    """The target of this module."""
    words = ("[UNK]", "[SEP]", "##", "\0", "\n", "\u0301", "\u4e00", "\ud800", "\u200d", "\u0130")
    names = sources.names_in(sources.manifest_json()["tokenizer"])
    return (Target("tokenizer", _read, _sound, "bytes", (*words, *names), most_bytes=8192),)
