"""Byte-level BPE against the reference library, and damaged tables."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from shard_tools.checkpoint.byte_bpe_json import read_byte_bpe
from sti.errors import CheckpointError, PackFormatError
from sti.json_fields import JsonFields
from sti.text import unicode_tables
from sti.text.byte_bpe import TABLES, ByteBpe, ByteBpeSettings
from sti.text.byte_words import BYTE_CHARS, words
from sti.text.merges import Merges, make_tables
from sti.text.unicode_runs import runs
from sti.text.vocabulary import Vocabulary
from tests.support.byte_bpe import SENTENCES, trained_json

NASTY = [
    "",
    " ",
    "  ",
    "\n",
    " \n x",
    "\u3000hi",
    "a" * 150,
    " " * 150 + "x",
    "=" * 150,
    "x\u0301y e\u0301",
    "\U0001f469\u200d\U0001f469 ok",
    "\x00\x01 a\x7f\x1c\x1db\x85c",
    "it's we'll I'VE 's 't ''s",
    "\u0661\u0662 12\u00bd\u00b2x",
    "  lead and trail  ",
    "\ta\t\r\nb\u00a0\u2028c",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u3067\u3059\u3002" * 12,
]
PIECES = [" ", "  ", "a", "the", "'s", "\n", "1", "\u00e9", "\u65e5", "\U0001f600", "\u0301", "!"]
OPTIONS = list(itertools.product((False, True), repeat=5))[::3]  # each pair of values occurs


@functools.cache
def both(options: tuple[bool, ...]) -> tuple[ByteBpe, Tokenizer]:
    """Ours and the reference with the same options, in the order of the settings."""
    prefix, part_words, whole_words, trim, trim_prefix = options
    raw = trained_json()
    raw["pre_tokenizer"].update(add_prefix_space=prefix, use_regex=part_words)
    raw["post_processor"].update(trim_offsets=trim, add_prefix_space=trim_prefix)
    raw["model"]["ignore_merges"] = whole_words
    raw["added_tokens"] = []
    files = read_byte_bpe(JsonFields(raw, where="tokenizer.json", error=CheckpointError))
    expected = ByteBpeSettings(prefix, part_words, whole_words, trim, trim and trim_prefix)
    assert files.settings == expected
    assert ByteBpeSettings.from_json(as_fields(files.settings.to_json())) == files.settings
    vocabulary = Vocabulary("\n".join(files.words).encode())
    return ByteBpe(files.settings, vocabulary, files.tables), Tokenizer.from_str(json.dumps(raw))


def as_fields(value: object) -> JsonFields:
    return JsonFields(value, where="tokenizer", error=PackFormatError)


def parts_of(reference: Tokenizer, text: str) -> list[tuple[str, tuple[int, int]]]:
    pre_tokenizer = reference.pre_tokenizer
    assert pre_tokenizer is not None
    return pre_tokenizer.pre_tokenize_str(text)


def assert_equal(options: tuple[bool, ...], text: str) -> None:
    ours, reference = both(options)
    wanted = reference.encode(text, add_special_tokens=True)
    kept = [at for at, word in enumerate(wanted.word_ids) if word is not None]
    ids = ours.ids(text, None, first=True)
    assert ids == [wanted.ids[at] for at in kept]
    spans = [(*wanted.offsets[at], wanted.word_ids[at]) for at in kept]
    assert ours.spans(text, len(ids), first=True) == spans
    assert ours.spans(text, 3, first=True) == spans[:3]


@pytest.mark.parametrize("options", OPTIONS)
def test_nasty_texts_are_tokenized_as_by_the_reference(options: tuple[bool, ...]) -> None:
    for text in NASTY:
        assert_equal(options, text)


def test_sentences_are_tokenized_as_by_the_reference() -> None:
    for sentence in SENTENCES[::4]:
        assert_equal((False, True, False, True, False), sentence)


@settings(max_examples=40)
@given(
    st.sampled_from(OPTIONS),
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    ),
)
def test_any_text_is_tokenized_as_by_the_reference(options: tuple[bool, ...], text: str) -> None:
    assert_equal(options, text)


def test_characters_at_the_ends_of_the_tables_are_parted_as_by_the_reference() -> None:
    tables = (unicode_tables.LETTER, unicode_tables.NUMBER, unicode_tables.SPACE)
    ends = {end for table in tables for first, last, _ in runs(table) for end in (first, last)}
    codes = sorted({code + step for code in ends for step in (-1, 0, 1)} - {0xD7FF + 1})
    _, reference = both((False, True, False, False, False))
    for start in range(0, len(codes), 64):
        text = "".join(f"a{c}a1{c}1!{c}!" for c in map(chr, codes[start : start + 64]))
        parted = [text[begin:end] for _, (begin, end) in parts_of(reference, text)]
        assert words(text) == parted


def test_a_cut_text_has_the_tokens_of_the_whole() -> None:
    text = "One, two  three\n four \u65e5\u672c\u3001\u8a9e\u306e\u3002 five  six."
    for prefix in (False, True):
        ours, _ = both((prefix, True, False, True, prefix))
        whole = ours.ids(text, None, first=True)
        cuts = {ours.cut(text, at) for at in range(1, len(text))} - {len(text)}
        assert cuts == {4, 21, 28} | (set() if prefix else {24, 27})
        for cut in cuts:
            parts = ours.ids(text[:cut], None, first=True), ours.ids(text[cut:], None, first=False)
            assert parts[0] + parts[1] == whole
            spans = [
                *ours.spans(text[:cut], 99, first=True),
                *(
                    (start + cut, end + cut, 0)
                    for start, end, _ in ours.spans(text[cut:], 99, first=False)
                ),
            ]
            expected = ours.spans(text, 99, first=True)
            assert [span[:2] for span in spans] == [span[:2] for span in expected]


def test_lone_surrogates_are_taken_for_the_replacement_character() -> None:
    ours, _ = both((False, True, False, True, False))
    bad, good = "a \ud800b\udfff", "a \ufffdb\ufffd"
    assert ours.ids(bad, None, first=True) == ours.ids(good, None, first=True)
    assert ours.spans(bad, 99, first=True) == ours.spans(good, 99, first=True)


def test_a_limit_ends_the_work_soon() -> None:
    ours, _ = both((False, True, False, True, False))
    ids = ours.ids("one two three four five " * 100, 10, first=True)
    assert 10 < len(ids) < 30


def test_words_that_are_forgotten_are_found_again() -> None:
    raw = read_byte_bpe(JsonFields(trained_json(), where="x", error=CheckpointError))
    vocabulary = Vocabulary("\n".join(raw.words).encode())
    small = ByteBpe(raw.settings, vocabulary, raw.tables, words_remembered=2)
    usual, _ = both((False, True, False, True, False))
    for sentence in SENTENCES[:20] * 2:
        assert small.ids(sentence, None, first=True) == usual.ids(sentence, None, first=True)


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=40))
@settings(max_examples=40)
def test_long_and_short_words_are_merged_alike(ids: list[int]) -> None:
    merges = Merges(make_tables([(0, 0, 3), (3, 0, 4), (3, 3, 5), (1, 4, 6), (2, 2, 3)], 7), 7)
    assert merges.merged(list(ids), long=2) == merges.merged(list(ids), long=99)


def damaged(name: str, at: int | slice, value: int) -> dict[str, np.ndarray]:
    tables = make_tables([(0, 0, 3), (0, 1, 4), (3, 3, 5)], 6)
    tables[name][at] = value
    return tables


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("merge_starts", 0, 1),
        ("merge_starts", 1, 99),
        ("merge_starts", -1, 2),
        ("merge_rights", 0, 6),
        ("merge_rights", slice(0, 2), 1),
        ("merge_ranks", 1, 3),
        ("merge_results", 2, 6),
    ],
)
def test_damaged_tables_are_refused(name: str, at: int | slice, value: int) -> None:
    with pytest.raises(PackFormatError, match="tokenizer: "):
        Merges(damaged(name, at, value), 6)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_other_sizes_are_refused(name: str) -> None:
    tables = make_tables([(0, 0, 3)], 6)
    tables[name] = tables[name][:-1]
    with pytest.raises(PackFormatError, match="sizes"):
        Merges(tables, 6)


def test_a_vocabulary_without_a_byte_is_refused() -> None:
    vocabulary = Vocabulary("\n".join(BYTE_CHARS[:-1]).encode())
    plain = ByteBpeSettings(False, True, False, True, False)
    with pytest.raises(PackFormatError, match="0xff"):
        ByteBpe(plain, vocabulary, make_tables([], 255))
