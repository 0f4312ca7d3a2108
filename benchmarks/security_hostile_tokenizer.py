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
from sti.text.vocabulary_index import VocabularyIndex, make_index


def _set_vocabulary(parts: PackParts, blob: bytes, index: VocabularyIndex | None = None) -> None:
    index = index or make_index(blob)
    parts.residents["tokenizer.vocab"] = Tensor("U8", (len(blob),), blob)
    for name, array in zip(index._fields, index, strict=True):
        parts.residents[f"tokenizer.{name}"] = Tensor.of(array)


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


def _unknown_setting(parts: PackParts, rng: Random) -> None:
    name = rng.choice(("strip", "lstrip", "\x1b[2J", "x" * 5000, "model"))
    parts.manifest["tokenizer"][name] = rng.choice((True, 1, "x", None))


TOKENIZER: Mapping[str, Kind] = {
    "more words than rows": Kind(REFUSED, _more_words),
    "fewer rows than words": Kind(REFUSED, _fewer_rows),
    "index of the vocabulary": Kind(EITHER, _vocabulary_index),
    "a bucket of all words": Kind(REFUSED, _full_bucket),
    "a word of many bytes": Kind(REFUSED, _long_word),
    "special tokens": Kind(REFUSED, _special_tokens),
    "tokenizer settings": Kind(REFUSED, _unknown_setting),
}
"""By name."""
