"""Hostile packs whose tokenizer is of a kind with tables, which are not what they may be.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed: its tokenizer is
of another kind, sound but for the harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np

from benchmarks.security_harms import EITHER, REFUSED, Kind
from benchmarks.security_hostile_tokenizer import set_words
from benchmarks.security_packs import PackParts, Tensor
from shard_tools.checkpoint.tokenizer_json import READERS
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.pack.tokenizer import table_name
from sti.text.byte_words import BYTE_CHARS
from tests.support.unigram import document

_SHARED = ("cls_token", "sep_token", "pad_token", "max_tokens")
_MERGES = ("ab", "th", "the", "in", "ing")


def _byte_bpe() -> dict[str, Any]:
    words = [*BYTE_CHARS, *_MERGES]
    return {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": [[word[:-1], word[-1]] for word in ("ab", "th", "the", "in")] + [["in", "g"]],
        },
    }


def _become(parts: PackParts, raw: dict[str, Any]) -> None:
    """The pack with another tokenizer, which is sound."""
    fields = JsonFields(raw, where="tokenizer.json", error=CheckpointError)
    own = READERS[raw["model"]["type"]](fields)
    told = parts.manifest["tokenizer"]
    named = [told[key] for key in _SHARED[:3]]
    set_words(parts, [word.encode() for word in (*own.words, *named)], own.kind)
    parts.manifest["tokenizer"] = {
        "kind": own.kind,
        **own.settings.to_json(),
        **{key: told[key] for key in _SHARED},
        "special_tokens": [],
        "added_words": len(named),
    }
    for name, table in own.tables.items():
        parts.residents[table_name(name)] = Tensor.of(table)


def _change(parts: PackParts, name: str, at: int, value: int) -> None:
    def change(array: np.ndarray[Any, Any]) -> None:
        array[at] = value

    parts.change(table_name(name), change)


def _of_unigram(harm: Callable[[PackParts, Random], None]) -> Callable[[PackParts, Random], None]:
    def change(parts: PackParts, rng: Random) -> None:
        _become(parts, document("xlm-r"))
        harm(parts, rng)

    return change


def _of_byte_bpe(harm: Callable[[PackParts, Random], None]) -> Callable[[PackParts, Random], None]:
    def change(parts: PackParts, rng: Random) -> None:
        _become(parts, _byte_bpe())
        harm(parts, rng)

    return change


def _scores(parts: PackParts, rng: Random) -> None:
    """Bits of what is no finite number, or too large to be added up."""
    value = rng.choice((np.inf, -np.inf, np.nan, 3e38, -2e9))
    _change(parts, "scores", rng.randrange(20), int(np.float32(value).view(np.uint32)))


def _sorted(parts: PackParts, rng: Random) -> None:
    count = parts.residents[table_name("sorted")].shape[0]
    _change(parts, "sorted", rng.randrange(count), rng.choice((count, 2**31, 2**32 - 1)))


def _unsorted(parts: PackParts, rng: Random) -> None:
    """Lines in another order, or one of them often: words are not found."""

    def change(array: np.ndarray[Any, Any]) -> None:
        array[:] = rng.choices(range(len(array)), k=len(array))

    parts.change(table_name("sorted"), change)


def _charsmap(parts: PackParts, rng: Random) -> None:
    count = parts.residents[table_name("charsmap_trie")].shape[0]
    value = rng.choice((2**31 - 1, 2**32 - 1, 0x7FFFFC00, 2**31 | 2**20))
    for _ in range(rng.choice((1, 8))):
        _change(parts, "charsmap_trie", rng.randrange(count), value)


def _missing(parts: PackParts, rng: Random) -> None:
    names = ("scores", "sorted", "charsmap_trie", "charsmap_replacements")
    del parts.residents[table_name(rng.choice(names))]


def _settings(parts: PackParts, rng: Random) -> None:
    name, value = rng.choice(
        (
            ("unknown", 2**40),
            ("unknown", -1),
            ("mark", "xy"),
            ("prepend", "often"),
            ("steps", [{}]),
            ("steps", [{"kind": "strip"}]),
            ("lowercase", True),
        )
    )
    parts.manifest["tokenizer"][name] = value


def _growing_steps(parts: PackParts, rng: Random) -> None:
    """Steps that each make a text longer."""
    kind, pattern, most = rng.choice((("replace", "a", 64), ("replace_regex", "\\A\u2581", 9)))
    step = {"kind": kind, "pattern": pattern, "left": False, "right": False}
    parts.manifest["tokenizer"]["steps"] = [{**step, "content": pattern[-1] * most}] * 16


def _merges(parts: PackParts, rng: Random) -> None:
    """Words, ranks or places beyond the last."""
    name = rng.choice(("merge_rights", "merge_ranks", "merge_results", "merge_starts"))
    count = parts.residents[table_name(name)].shape[0]
    _change(parts, name, rng.randrange(count), rng.choice((10**6, 2**31, 2**32 - 1)))


def _endless_merges(parts: PackParts, rng: Random) -> None:
    """Merges that make what they are made of, or all the same."""

    def change(array: np.ndarray[Any, Any]) -> None:
        array[:] = [rng.choice((0, 97, array[0])) for _ in array]

    parts.change(table_name("merge_results"), change)


def _no_byte(parts: PackParts, rng: Random) -> None:
    words = parts.residents["tokenizer.vocab"].data.split(b"\n")
    words[rng.randrange(256)] = b"no byte"
    set_words(parts, words)


TABLES: Mapping[str, Kind] = {
    "scores that are not finite": Kind(REFUSED, _of_unigram(_scores)),
    "pieces beyond the vocabulary": Kind(REFUSED, _of_unigram(_sorted)),
    "pieces out of order": Kind(EITHER, _of_unigram(_unsorted)),
    "links of a character map": Kind(EITHER, _of_unigram(_charsmap)),
    "missing tables": Kind(REFUSED, _of_unigram(_missing)),
    "settings of a unigram model": Kind(REFUSED, _of_unigram(_settings)),
    "steps that make texts longer": Kind(REFUSED, _of_unigram(_growing_steps)),
    "merges beyond the vocabulary": Kind(REFUSED, _of_byte_bpe(_merges)),
    "merges that make the same": Kind(EITHER, _of_byte_bpe(_endless_merges)),
    "bytes without a word": Kind(REFUSED, _of_byte_bpe(_no_byte)),
}
"""By name."""
