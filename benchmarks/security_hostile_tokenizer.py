"""Hostile packs whose tokenizer does harm: the vocabulary, its index, and its settings.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np

from benchmarks.security_harms import EITHER, REFUSED, Kind
from benchmarks.security_packs import PackParts, Tensor
from sti.pack.tokenizer import table_name
from sti.text.kinds import BY_HASH, KINDS, AnyIndex
from sti.text.vocabulary_index import (
    HASH_BASE,
    HASH_BITS,
    HASH_SCALE,
    VocabularyIndex,
    bucket_bits,
    make_index,
)

_MODULUS = 1 << HASH_BITS


def _set_vocabulary(parts: PackParts, blob: bytes, index: AnyIndex | None = None) -> None:
    index = index or make_index(blob)
    for name in BY_HASH.arrays:
        parts.residents.pop(table_name(name), None)
    parts.residents["tokenizer.vocab"] = Tensor("U8", (len(blob),), blob)
    for name, array in index._asdict().items():
        parts.residents[table_name(name)] = Tensor.of(array)


def _more_words(parts: PackParts, rng: Random) -> None:
    blob = parts.residents["tokenizer.vocab"].data
    rows = parts.manifest["words"]["rows"]
    more = [b"word-%d" % number for number in range(rng.choice((1, 5, rows)))]
    _set_vocabulary(parts, b"\n".join((blob, *more)))


def _fewer_rows(parts: PackParts, rng: Random) -> None:
    words = parts.manifest["words"]
    words["rows"] = rng.randrange(1, words["rows"])
    size = words["rows"] * words["row_bytes"]
    size += -size % 16384
    parts.words = parts.words[:size]


def _vocabulary_index(parts: PackParts, rng: Random) -> None:
    name = f"tokenizer.{rng.choice(VocabularyIndex._fields)}"

    def change(array: np.ndarray[Any, Any]) -> None:
        for _ in range(rng.choice((1, 3, len(array)))):
            array[rng.randrange(len(array))] = rng.choice((0, 1, len(array), 2**32 - 1))

    parts.change(name, change)


def _full_bucket(parts: PackParts, rng: Random) -> None:
    words = [b"[PAD]", b"[UNK]", b"[CLS]", b"[SEP]", b"[MASK]"]
    words += [b"%d" % number for number in range(20_000)]
    blob = b"\n".join(words)
    index = make_index(blob)
    at = rng.randrange(1, len(index.buckets) - 1)
    index.buckets[:at], index.buckets[at:] = 0, len(words)
    _set_vocabulary(parts, blob, index)
    row = parts.manifest["words"]
    row["rows"] = len(words)
    size = len(words) * row["row_bytes"]
    parts.words = bytes(size + -size % 16384)


def _long_word(parts: PackParts, rng: Random) -> None:
    blob = parts.residents["tokenizer.vocab"].data
    lines = blob.split(b"\n")
    lines[-1] = b"a" * rng.choice((2000, 100_000))
    _set_vocabulary(parts, b"\n".join(lines))


def _special_tokens(parts: PackParts, rng: Random) -> None:
    spec = parts.manifest["tokenizer"]
    named = ("unk_token", "cls_token", "sep_token", "pad_token")
    choice = rng.randrange(4)
    if choice == 0:
        one, other = rng.sample(named, 2)
        spec[one] = spec[other]
    elif choice == 1:
        spec[rng.choice(named)] = rng.choice(("", "[NONE]", "\x1b[31m", "x" * 100_000))
    elif choice == 2:
        spec["special_tokens"] = [f"[{number}]" for number in range(rng.choice((5, 50_000)))]
    else:
        spec["special_tokens"] = [*spec["special_tokens"], rng.choice(spec["special_tokens"])]


def _index_of(words: list[bytes]) -> VocabularyIndex:
    """The index by its definition, of words that ``make_index`` may refuse."""
    hashes = [
        sum(HASH_SCALE * pow(HASH_BASE, place, _MODULUS) * byte for place, byte in enumerate(word))
        % _MODULUS
        for word in words
    ]
    order = sorted(range(len(words)), key=hashes.__getitem__)
    bits = bucket_bits(len(words))
    found = [hashes[line] >> HASH_BITS - bits for line in order]
    buckets = np.searchsorted(found, np.arange((1 << bits) + 1))
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    return VocabularyIndex(*(x.astype(np.uint32) for x in (starts, np.array(order), buckets)))


def _not_utf8(parts: PackParts, rng: Random) -> None:
    """Half a character as a word, which the index finds inside of whole ones."""
    words = parts.residents["tokenizer.vocab"].data.split(b"\n")
    words[-1] = rng.choice((b"\xc3", b"\xe4\xb8", b"##\xc3", b"a\xc3", b"\xff", b"\xed\xa0\x80"))
    _set_vocabulary(parts, b"\n".join(words), _index_of(words))


def _half_characters(parts: PackParts, rng: Random) -> None:
    """A vocabulary of whole characters, and an index that parts them."""
    words = parts.residents["tokenizer.vocab"].data.split(b"\n")
    words[-2:] = rng.choice(("é-a", "a-中", "é-中")).encode().split(b"-")
    index = _index_of(words)
    index.starts[-2] -= 1
    _set_vocabulary(parts, b"\n".join(words), index)


def set_words(parts: PackParts, words: list[bytes], kind: str = "wordpiece") -> None:
    """Another vocabulary, with a row of the embedding table for each word.

    Args:
        kind: of tokenizer, by which words are found.
    """
    blob = b"\n".join(words)
    _set_vocabulary(parts, blob, KINDS[kind].indexing.make(blob))
    table = parts.manifest["words"]
    rows = parts.words[: min(len(words), table["rows"]) * table["row_bytes"]]
    rows += rows[: table["row_bytes"]] * (len(words) - table["rows"])
    table["rows"] = len(words)
    parts.words = rows + bytes(-len(rows) % 16384)


def _add_special_tokens(parts: PackParts, more: list[str]) -> None:
    words = parts.residents["tokenizer.vocab"].data.split(b"\n")
    there = set(words)  # packs that are given have some of them
    set_words(parts, [*words, *(word for word in map(str.encode, more) if word not in there)])
    parts.manifest["tokenizer"]["special_tokens"] += more


def _usual_letters(parts: PackParts, rng: Random) -> None:
    """Special tokens that begin as most words of a text do, and are none of them."""
    letters = [chr(ord("a") + number) for number in range(26)]
    more = {
        rng.choice("etaoins ") + "".join(rng.choices(letters, k=rng.choice((1, 3)))) + f"~{number}"
        for number in range(900)
    }
    _add_special_tokens(parts, sorted(more))


def _alike(parts: PackParts, rng: Random) -> None:
    """Special tokens of which each goes on as the one before it nearly did."""
    ends = "bcdefghijklmnop"[: rng.choice((1, 4, 15))]
    most = rng.choice((60, 63))
    _add_special_tokens(parts, ["a" * count + end for count in range(1, most) for end in ends])


def _long_special_tokens(parts: PackParts, rng: Random) -> None:
    _add_special_tokens(parts, ["a" * rng.choice((64, 127)) + "b"])


def _long_words(parts: PackParts, rng: Random) -> None:
    parts.manifest["tokenizer"]["max_word_chars"] = rng.choice((129, 1024, 10**6, 10**18))


def _longest_words(parts: PackParts, rng: Random) -> None:
    """As long as may be, of the shortest pieces, with a word that all of them may be."""
    parts.manifest["tokenizer"]["max_word_chars"] = 128
    words = parts.residents["tokenizer.vocab"].data.split(b"\n")
    words[-1] = rng.choice((b"##", b"")) + b"q" * 120
    _set_vocabulary(parts, b"\n".join(words))


def _unknown_setting(parts: PackParts, rng: Random) -> None:
    name = rng.choice(("strip", "lstrip", "\x1b[2J", "x" * 5000, "model"))
    parts.manifest["tokenizer"][name] = rng.choice((True, 1, "x", None))


def _added_tokens(parts: PackParts, rng: Random) -> None:
    """Added tokens that are none, too many, too long, listed twice, or not told apart."""
    spec = parts.manifest["tokenizer"]
    word = spec["special_tokens"][-1]
    spec["added_tokens"] = rng.choice(
        (
            [{"text": word}],
            [{"text": "the"}, {"text": "The", "normalized": True}],
            [{"text": "x" * 65}],
            [{"text": f"t{number}"} for number in range(2000)],
            [{"text": "the", "lstrip": 1}],
            [{"text": "the", "single": True}],
            [{"text": ""}],
            [{}],
            ["the"],
            {"the": True},
        )
    )


def _template(parts: PackParts, rng: Random) -> None:
    spec = parts.manifest["tokenizer"]
    cls = spec["cls_token"]
    spec["template"] = rng.choice(
        (
            {"single": [], "pair": []},
            {"single": [[cls, 0]], "pair": []},
            {"single": [["$A", 0], ["$A", 0]], "pair": []},
            {"single": [["$A", 0]], "pair": [["$A", 0]]},
            {"single": [["$A", rng.choice((2, -1, 2**63, True, 0.0, "0"))]], "pair": []},
            {"single": [["$A", 0], *[[cls, 0]] * 10**5], "pair": []},
            {"single": [["$A", 0], ["[NONE]", 0]], "pair": []},
            {"single": ["$A"]},
            {"single": [["$A", 0]], "pair": [], "more": []},
            [],
        )
    )


def _other_settings(parts: PackParts, rng: Random) -> None:
    spec = parts.manifest["tokenizer"]
    name, value = rng.choice(
        (
            ("truncation_side", "up"),
            ("truncation_side", 1),
            ("lowercase_text", "yes"),
            ("added_words", -1),
            ("added_words", 10**30),
            ("added_words", True),
            ("max_tokens", 2),
            ("kind", "none"),
        )
    )
    spec[name] = value


def _no_own_words(parts: PackParts, rng: Random) -> None:
    """All words are added ones, the unknown one too."""
    parts.manifest["tokenizer"]["added_words"] = rng.choice((10**9, 2**62))


TOKENIZER: Mapping[str, Kind] = {
    "more words than rows": Kind(REFUSED, _more_words),
    "fewer rows than words": Kind(REFUSED, _fewer_rows),
    "index of the vocabulary": Kind(EITHER, _vocabulary_index),
    "a bucket of all words": Kind(REFUSED, _full_bucket),
    "a word of many bytes": Kind(REFUSED, _long_word),
    "words not UTF-8": Kind(REFUSED, _not_utf8),
    "words of half a character": Kind(REFUSED, _half_characters),
    "special tokens of usual letters": Kind(EITHER, _usual_letters),
    "special tokens that begin alike": Kind(REFUSED, _alike),
    "special tokens of many letters": Kind(REFUSED, _long_special_tokens),
    "words of many characters": Kind(REFUSED, _long_words),
    "words of as many as may be": Kind(EITHER, _longest_words),
    "special tokens": Kind(REFUSED, _special_tokens),
    "tokenizer settings": Kind(REFUSED, _unknown_setting),
    "added tokens": Kind(REFUSED, _added_tokens),
    "templates of texts": Kind(REFUSED, _template),
    "settings of tokenizers of no kind": Kind(REFUSED, _other_settings),
    "no words but added ones": Kind(REFUSED, _no_own_words),
}
"""By name."""
