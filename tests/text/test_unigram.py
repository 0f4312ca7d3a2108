"""Unigram against the reference library, and what it refuses."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.checkpoint.unigram_json import read_unigram
from sti.errors import CheckpointError, PackFormatError
from sti.json_fields import JsonFields
from sti.text.sorted_vocabulary import SortedIndex, SortedVocabulary
from sti.text.unigram import TABLES, Unigram, UnigramSettings
from tests.support.unigram import (
    PIECES,
    PIPELINES,
    document,
    metaspace,
    precompiled,
    replace,
    sequence,
)

PARTS = [
    *("", " ", "  ", "a", "b", "ab", "abc", "aab", "▁", "é", "e\u0301", "ﬁ", "½", "ﷺ", "\u00a8"),
    *(
        "\x01",
        "™\x1e",
        "\t",
        "\r\n",
        "日本語",
        "語",
        "☃☃",
        "👨\u200d👩",
        "``",
        "''",
        "\uff21",
        "\u0301",
    ),
    *("A", "\u0600a", "\u1100\u1161\u0301", "\xa0", "<unk>", "la l", "aaaaaaaa", "\u200b", "İ"),
]


def read(found: dict[str, Any], **options: int) -> Unigram:
    fields = JsonFields(found, where="tokenizer.json", error=CheckpointError)
    parts = read_unigram(fields)
    vocabulary = SortedVocabulary("\n".join(parts.words).encode())
    told = JsonFields(parts.settings.to_json(), where="tokenizer", error=PackFormatError)
    return Unigram(UnigramSettings.from_json(told), vocabulary, parts.tables, **options)


@functools.cache
def kept(name: str) -> Unigram:
    return read(document(name))


def texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(PARTS, k=draw.randint(0, 9))) for _ in range(count)]


@pytest.mark.parametrize("name", PIPELINES)
def test_ids_and_places_are_those_of_the_reference_library(name: str) -> None:
    found = document(name)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(found))
    ours, hurried = read(found), read(found, chunk_chars=4, words_remembered=2)
    for text in [*texts(1, 120), *(" ".join(texts(seed, 30)) for seed in range(3))]:
        wanted = theirs.encode(text)
        spans = [(*span, word) for span, word in zip(wanted.offsets, wanted.word_ids, strict=True)]
        for model in (ours, hurried):
            assert model.ids(text, None, first=True) == wanted.ids, ascii(text)
            assert model.spans(text, len(spans), first=True) == spans, ascii(text)
            assert model.ids(text, 3, first=True)[:3] == wanted.ids[:3]
            assert model.spans(text, 3, first=True) == spans[:3]


def test_every_code_point_becomes_what_the_reference_library_makes_of_it() -> None:
    found = document()
    theirs = tokenizers.Tokenizer.from_str(json.dumps(found))
    ours = read(found)
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for at in range(0, len(codes), 4096):
        some = codes[at : at + 4096 : 61]
        text = "".join(f"a{chr(code)}b " for code in some)
        assert ours.ids(text, None, first=True) == theirs.encode(text).ids


@given(st.text(max_size=30), st.sampled_from(sorted(PIPELINES)))
@settings(max_examples=15)
def test_any_text_can_be_cut_and_limits_only_shorten_it(text: str, name: str) -> None:
    model = kept(name)
    ids = model.ids(text, None, first=True)
    spans = model.spans(text, len(ids), first=True)
    assert len(spans) == len(ids)
    assert model.ids(text, 2, first=True)[:2] == ids[:2]
    assert all(0 <= start <= end <= len(text) for start, end, _ in spans)


def test_lone_surrogates_count_as_replacement_characters() -> None:
    model = read(document())
    assert model.ids("a\ud800b", None, first=True) == model.ids("a\ufffdb", None, first=True)


def test_of_equal_scores_the_longest_last_piece_wins() -> None:
    vocab = [["<unk>", 0.0], ["▁", -1.0], ["a", -1.0], ["aa", -2.0], ["aaa", -3.0]]
    found = document("plain", vocab=vocab)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(found))
    for text in ("aa", "aaaa", "aaaaaaa"):
        assert read(found).ids(text, None, first=True) == theirs.encode(text).ids


def test_scores_that_floats_do_not_hold_are_kept_in_full() -> None:
    vocab = [["<unk>", 0.0], ["▁", -1.0], ["a", -1.0], ["b", -1.0 - 1e-12], ["ab", -2.0]]
    found = document("plain", vocab=vocab)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(found))
    assert read(found).ids("ab", None, first=True) == theirs.encode("ab").ids


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalizer": {"type": "NFKC"}}, "normalizer.*'NFKC' is not supported"),
        ({"normalizer": replace({"Regex": "a+b"}, "")}, "regular expression 'a.b'"),
        ({"normalizer": sequence(precompiled(), precompiled())}, "more than one Precompiled"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}}, "not base64"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAB"}}, "a trie of"),
        ({"pre_tokenizer": None}, "no pre_tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "'Whitespace' is not supported"),
        ({"pre_tokenizer": {**metaspace(), "replacement": "ab"}}, "replacement"),
        ({"pre_tokenizer": {**metaspace(), "add_prefix_space": False}}, "prepend_scheme"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read({**document(), **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unk_id": None}, "unk_id"),
        ({"unk_id": 900}, "unk_id"),
        ({"vocab": [["a", -1.0], ["a", -2.0]]}, "'a' is there twice"),
        ({"vocab": [["a", float("nan")]]}, "score of 'a' is nan"),
        ({"vocab": [["a", float("-inf")]]}, "score of 'a' is -inf"),
        ({"vocab": [["a", None]]}, "score of 'a' is no number"),
        ({"vocab": [["a"]]}, "a piece and its score"),
        ({"vocab": []}, "no pieces"),
        ({"vocab": [["a\nb", -1.0]]}, "newline"),
        ({"vocab": [["a" * 513, -1.0]]}, "more than 512 bytes"),
        ({"alpha": 0.5}, "unknown field 'alpha'"),
    ],
)
def test_models_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(document(**change))


LONGER = {"kind": "replace", "pattern": "a", "content": "aa", "left": False, "right": False}


def tables_of(found: dict[str, Any]) -> tuple[UnigramSettings, SortedVocabulary, dict[str, Any]]:
    parts = read_unigram(JsonFields(found, where="tokenizer.json", error=CheckpointError))
    return parts.settings, SortedVocabulary("\n".join(parts.words).encode()), dict(parts.tables)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scores", np.zeros(3, np.uint32)),
        ("scores", np.full(len(PIECES), np.nan, np.float32).view(np.uint32)),
        ("scores", np.full(len(PIECES), 1e30, np.float32).view(np.uint32)),
        ("scores", np.zeros(len(PIECES), np.float32)),
        ("charsmap_trie", np.zeros(0, np.uint32)),
        ("charsmap_trie", np.zeros(255, np.uint32)),
        ("charsmap_trie", np.full(256, 1 << 30, np.uint32)),
        ("charsmap_trie", np.full(256, (1 << 31) + 900, np.uint32)),
        ("charsmap_trie", np.full(256, 1 << 8, np.uint32)),
        ("charsmap_trie", np.array([1 << 31] + [0] * 255, np.uint32)),
        ("charsmap_replacements", np.zeros(0, np.uint8)),
        ("charsmap_replacements", np.ones(9, np.uint8)),
        ("charsmap_replacements", np.array([0xC0, 0], np.uint8)),
        ("charsmap_replacements", np.array([97] * 300 + [0], np.uint8)),
    ],
)
def test_tables_that_a_search_would_leave_are_refused(name: str, value: Any) -> None:
    settings_, vocabulary, tables = tables_of(document())
    assert {key: table.dtype for key, table in tables.items()} == {
        key: np.dtype(dtype) for key, dtype in TABLES.items()
    }
    with pytest.raises(PackFormatError, match="tokenizer:"):
        Unigram(settings_, vocabulary, {**tables, name: value})


def test_scores_of_8_bytes_may_begin_at_any_multiple_of_4() -> None:
    vocab = [["<unk>", 0.0], ["▁", -1.0], ["a", -1.0], ["b", -1.0 - 1e-12], ["ab", -2.0]]
    settings_, vocabulary, tables = tables_of(document("plain", vocab=vocab))
    scores = tables["scores"]
    assert scores.size == 2 * len(vocab)
    found = []
    for start in (0, 1):  # one of the two lies between multiples of 8
        room = np.zeros(len(scores) + 1, np.uint32)
        room[start : start + len(scores)] = scores
        moved = {**tables, "scores": room[start : start + len(scores)]}
        found.append(Unigram(settings_, vocabulary, moved).ids("ab", None, first=True))
    assert found[0] == found[1]


def test_an_order_that_is_another_finds_fewer_pieces_and_no_others() -> None:
    settings_, vocabulary, tables = tables_of(document())
    index = SortedIndex(vocabulary.starts, vocabulary.order[::-1].copy())
    vocabulary = SortedVocabulary(vocabulary.blob, index)
    model = Unigram(settings_, vocabulary, tables)
    for text in texts(2, 30):
        assert set(model.ids(text, None, first=True)) <= set(range(len(PIECES)))


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": -1},
        {"mark": " "},
        {"mark": ""},
        {"prepend": "often"},
        {"steps": [{"kind": "x", "pattern": "", "content": "", "left": False, "right": False}]},
        {
            "steps": [
                {
                    "kind": "replace_regex",
                    "pattern": "(a+)+b",
                    "content": "",
                    "left": False,
                    "right": False,
                }
            ]
        },
        {"steps": [LONGER] * 4},
    ],
)
def test_settings_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    known = tables_of(document())[0].to_json()
    fields = JsonFields({**known, **change}, where="tokenizer", error=PackFormatError)
    with pytest.raises(PackFormatError):
        UnigramSettings.from_json(fields)


def test_a_long_text_without_spaces_ends_soon_after_its_limit() -> None:
    model = read(document())
    text = "日本語ab" * 20000
    assert len(model.ids(text, 10, first=True)) < 3000
    assert model.ids(text, 10, first=True)[:10] == model.ids(text[:200], None, first=True)[:10]
