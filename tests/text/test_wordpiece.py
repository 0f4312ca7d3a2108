"""The tokenizer against rules, golden sentences and nasty texts."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
import tracemalloc
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers, processors

from sti.errors import PackFormatError
from sti.text.encoding import Encoding
from sti.text.longest_of import longest_of
from sti.text.normalizer import TABLE_LIMIT, TABLES, TextNormalizer
from sti.text.text_model import Span
from sti.text.tokenizer import CHUNK_CHARS, Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from sti.text.vocabulary import Vocabulary
from sti.text.wordpiece import WordPiece, WordPieceSettings
from tests.support.paths import ROOT
from tests.support.wordpiece import SETTINGS, SPECIAL
from tests.support.wordpiece import SPEC as UNCASED

GOLDEN = ROOT / "tests" / "golden"
SENTENCES = (GOLDEN / "tokenizer_sentences.txt").read_text(encoding="utf-8").splitlines()
NO_LIMIT = 1_000_000
SPEC = UNCASED._replace(max_tokens=NO_LIMIT)
ALL_SETTINGS = [
    SETTINGS._replace(
        lowercase=bool(bits & 1),
        strip_accents=bool(bits & 2),
        clean_text=bool(bits & 4),
        handle_chinese_chars=bool(bits & 8),
    )
    for bits in range(16)
]
ALL_OPTIONS = [SPEC._replace(settings=found) for found in ALL_SETTINGS]


def settings_of(spec: TokenizerSpec) -> WordPieceSettings:
    assert isinstance(spec.settings, WordPieceSettings)
    return spec.settings


def reference_normalizer(settings: WordPieceSettings) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(
        clean_text=settings.clean_text,
        handle_chinese_chars=settings.handle_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.lowercase,
    )


def our_normalizer(
    settings: WordPieceSettings, *, table_limit: int = TABLE_LIMIT
) -> TextNormalizer:
    return TextNormalizer(
        clean_text=settings.clean_text,
        handle_chinese_chars=settings.handle_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.lowercase,
        table_limit=table_limit,
    )


def reference_words(spec: TokenizerSpec, text: str) -> list[str]:
    normalized = reference_normalizer(settings_of(spec)).normalize_str(text)
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalized)]


def reference(spec: TokenizerSpec, words: Sequence[str]) -> tokenizers.Tokenizer:
    model = tokenizers.models.WordPiece(
        vocab={word: index for index, word in enumerate(words)},
        unk_token=settings_of(spec).unk_token,
        continuing_subword_prefix=settings_of(spec).continuing_prefix,
        max_input_chars_per_word=settings_of(spec).max_word_chars,
    )
    built = tokenizers.Tokenizer(model)
    built.normalizer = reference_normalizer(settings_of(spec))
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.add_special_tokens(list(spec.special_tokens))
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, words.index(word)) for word in ("[CLS]", "[SEP]")],
    )
    if spec.max_tokens != NO_LIMIT:
        built.enable_truncation(spec.max_tokens)
    return built


@lru_cache(maxsize=64)
def both(
    spec: TokenizerSpec, words: tuple[str, ...], chunk_chars: int = CHUNK_CHARS
) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    ours = Tokenizer(spec, "\n".join(words).encode(), chunk_chars=chunk_chars)
    return ours, reference(spec, words)


@lru_cache(maxsize=2)
def sentence_vocabulary() -> tuple[str, ...]:
    """Whole words, beginnings, and continuations of the sentences; some words are left out."""
    words = {
        word
        for spec in (SPEC, ALL_OPTIONS[0])
        for sentence in SENTENCES
        for word in reference_words(spec, sentence)
    }
    pieces: set[str] = set()
    for index, word in enumerate(sorted(words)):
        if index % 7 == 0:
            continue
        pieces |= {word} if len(word) % 2 == 0 else {word[:3], "##" + word[3:5], "##" + word[3:]}
        pieces |= {char for char in word if ord(char) % 3}
        pieces |= {"##" + char for char in word if ord(char) % 5}
    return (*SPECIAL, *sorted(pieces - set(SPECIAL) - {"##"}))


def rows(encoding: Encoding) -> dict[str, object]:
    return {
        "ids": encoding.ids.tolist(),
        "type_ids": encoding.type_ids.tolist(),
        "offsets": [tuple(pair) for pair in encoding.offsets.tolist()],
        "word_ids": encoding.word_ids.tolist(),
        "truncated": encoding.truncated,
    }


def expected_rows(encoding: tokenizers.Encoding) -> dict[str, object]:
    return {
        "ids": encoding.ids,
        "type_ids": encoding.type_ids,
        "offsets": encoding.offsets,
        "word_ids": [-1 if word is None else word for word in encoding.word_ids],
        "truncated": bool(encoding.overflowing),
    }


def assert_same(
    spec: TokenizerSpec,
    words: tuple[str, ...],
    case: str | tuple[str, str] | list[str],
    *,
    chunk_chars: int = CHUNK_CHARS,
) -> None:
    """Ours and theirs on a text, a pair of texts, or words."""
    ours, theirs = both(spec, words, chunk_chars)
    if isinstance(case, list):
        assert rows(ours.encode_words(case)) == expected_rows(
            theirs.encode(case, is_pretokenized=True)
        )
        return
    text, pair = (case, None) if isinstance(case, str) else case
    assert rows(ours.encode(text, pair)) == expected_rows(theirs.encode(text, pair))


# --- against the reference library ---


@pytest.mark.parametrize("spec", ALL_OPTIONS, ids=lambda spec: f"{ALL_OPTIONS.index(spec):04b}")
def test_sentences_encode_as_the_reference_does_under_every_option(spec: TokenizerSpec) -> None:
    words = sentence_vocabulary()
    for sentence in SENTENCES:
        assert_same(spec, words, sentence)


def test_the_sentences_meet_whole_words_pieces_and_unknown_ones() -> None:
    ours, _ = both(SPEC, sentence_vocabulary())
    ids = np.concatenate([ours.encode(sentence).ids for sentence in SENTENCES])
    continuing = [i for i, w in enumerate(sentence_vocabulary()) if w.startswith("##")]
    assert np.count_nonzero(ids == SPECIAL.index("[UNK]")) > 50
    assert np.count_nonzero(np.isin(ids, continuing)) > 300
    assert len(np.unique(ids)) > 1000


@pytest.mark.parametrize("limit", [3, 4, 5, 6, 7, 12, 13, 40])
def test_texts_pairs_and_words_are_truncated_as_the_reference_does(limit: int) -> None:
    spec = SPEC._replace(max_tokens=limit)
    words = sentence_vocabulary()
    for first, second in zip(SENTENCES, reversed(SENTENCES), strict=True):
        assert_same(spec, words, first)
        assert_same(spec, words, (first, second))
        assert_same(spec, words, first.split(" "))


def scalars() -> list[int]:
    return [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]


@pytest.mark.parametrize(
    "spec", [ALL_OPTIONS[15], ALL_OPTIONS[1]], ids=["every step", "lower case alone"]
)
def test_every_code_point_is_split_as_the_reference_does(spec: TokenizerSpec) -> None:
    ours = our_normalizer(settings_of(spec))
    codes = scalars()
    for start in range(0, len(codes), 4096):
        batch = codes[start : start + 4096]
        text = " ".join(f"a{chr(code)}b" for code in batch)
        if [word for word in ours.split(text) if word] != reference_words(spec, text):
            for code in batch:
                alone = f"a{chr(code)}b"
                got = [word for word in ours.split(alone) if word]
                assert got == reference_words(spec, alone), f"U+{code:04X}"


def interesting() -> list[str]:
    """Characters that some step of normalizing treats in its own way."""
    codes = {*TABLES.combining, *TABLES.decomposition, *TABLES.lower}
    kinds = [TABLES.control, TABLES.space, TABLES.punctuation, TABLES.mark]
    codes |= {code for code in range(0x3000) if any(code in kind for kind in kinds)}
    codes |= {0x3400, 0x4E00, 0x9FFF, 0xAC00, 0xAC01, 0xD7A3, 0x1100, 0x1161, 0x11A8, 0x20000}
    return [chr(code) for code in sorted(codes) if not 0xD800 <= code <= 0xDFFF]


def reorderable() -> list[str]:
    """Characters that move in canonical ordering, and those among them that are no marks."""
    kept = [chr(code) for code in TABLES.combining if code not in TABLES.mark]
    return kept * 4 + [chr(code) for code in TABLES.combining]


CHARS = st.one_of(
    st.sampled_from("abcxyzABC 019"),
    st.sampled_from(" \t\n\r.,-#[]'é中"),
    st.sampled_from(interesting()),
    st.sampled_from(reorderable()),
    st.characters(exclude_categories=["Cs"]),
)
TEXTS = st.lists(
    st.one_of(CHARS, st.sampled_from([*SPECIAL, "[mask]", "hello", "wor", "ab" * 60])),
    max_size=24,
).map("".join)
OPTIONS = st.sampled_from(ALL_OPTIONS)
LIMITS = st.sampled_from([NO_LIMIT, 3, 4, 7, 8, 16])


@st.composite
def vocabularies(draw: st.DrawFn, spec: TokenizerSpec, texts: Sequence[str]) -> tuple[str, ...]:
    """A vocabulary that knows some of the pieces of the texts."""
    pieces: set[str] = set()
    for word in {word for text in texts for word in reference_words(spec, text)}:
        style = draw(st.integers(0, 3))
        cut = draw(st.integers(1, 3))
        if style:
            pieces |= {word[:cut]} | {"##" + char for char in word[1:]}
            pieces |= {"##" + word[at : at + cut] for at in range(1, len(word), style)}
        if style == 3:
            pieces.add(word)
    return (*SPECIAL, *sorted(pieces - set(SPECIAL)))


@st.composite
def cases(
    draw: st.DrawFn,
) -> tuple[TokenizerSpec, tuple[str, ...], str | tuple[str, str] | list[str]]:
    spec = draw(OPTIONS)._replace(max_tokens=draw(LIMITS))
    shape = draw(st.sampled_from(["text", "pair", "words"]))
    if shape == "words":
        words = draw(st.lists(TEXTS, max_size=5))
        return spec, draw(vocabularies(spec, words)), words
    text, pair = draw(TEXTS), draw(TEXTS)
    vocabulary = draw(vocabularies(spec, [text, pair]))
    return spec, vocabulary, text if shape == "text" else (text, pair)


@settings(max_examples=600)
@given(cases())
@example((SPEC, SPECIAL, "\x00\ufffd\u200d"))
@example((SPEC, (*SPECIAL, "\U0001d157", "##\U0001d165"), "\U0001d15e\u0327 \U0001d15e"))
@example((SPEC, (*SPECIAL, "\u302e", "##\u302f"), "\u302e\u0323\u302f[SEP]\u302e"))
def test_any_text_encodes_as_the_reference_does(
    case: tuple[TokenizerSpec, tuple[str, ...], str | tuple[str, str] | list[str]],
) -> None:
    assert_same(*case)


@settings(max_examples=300)
@given(OPTIONS, st.lists(st.sampled_from(reorderable()), max_size=12).map("".join))
def test_combining_characters_are_ordered_as_the_reference_does(
    spec: TokenizerSpec, text: str
) -> None:
    got = [word for word in our_normalizer(settings_of(spec)).split(text) if word]
    assert got == reference_words(spec, text)


@settings(max_examples=300)
@given(OPTIONS, TEXTS)
def test_the_quick_way_to_split_equals_the_definition(spec: TokenizerSpec, text: str) -> None:
    normalizer = our_normalizer(settings_of(spec))
    words, source = normalizer.align(text)
    by_definition, its_source = normalizer.by_definition(text)
    assert normalizer.split(text) == words == by_definition.split(" ")
    assert source == its_source


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["<a>", "<a>b", "b", "bc", "<", ">", "c ", "a"])).map("".join))
def test_special_tokens_that_overlap_are_found_as_the_reference_does(text: str) -> None:
    markers = ("<a>", "<a>b", "bc", ">>")
    spec = SPEC._replace(special_tokens=(*SPECIAL, *markers))
    assert_same(spec, (*SPECIAL, *markers, *"abc<>", "##b"), text)


MARKS = st.text(st.sampled_from("ab-]^\\é["), min_size=1, max_size=5)


@settings(max_examples=200)
@given(st.lists(MARKS, max_size=30, unique=True), st.lists(MARKS).map("".join))
def test_the_longest_of_words_that_begin_alike_is_found_first(words: list[str], text: str) -> None:
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)"
    expected = [found.span() for found in re.finditer(longest_first, text)]
    try:
        pattern = longest_of(words)
    except ValueError:
        return
    assert [found.span() for found in re.finditer(pattern, text)] == expected


def test_a_thousand_special_tokens_of_usual_letters_cost_little() -> None:
    more = [f"{first}{number}~" for first in "etaoinsrh " for number in range(100)]
    spec = SPEC._replace(special_tokens=(*SPECIAL, *more))
    tokenizer = Tokenizer(spec, "\n".join((*SPECIAL, *more)).encode())
    text = "the ten tin hats are not in a red tea shop " * 10_000
    start = time.process_time()
    tokenizer.encode(text)
    assert time.process_time() - start < 2.0  # one after the other they take several times that


def test_special_tokens_that_begin_alike_in_many_ways_are_refused() -> None:
    more = ["a" * count + end for count in range(1, 60) for end in "bcde"]
    spec = SPEC._replace(special_tokens=(*SPECIAL, *more))
    with pytest.raises(PackFormatError, match="special tokens: more than 24 choices"):
        Tokenizer(spec, "\n".join((*SPECIAL, *more)).encode())


# --- long texts ---


@settings(max_examples=300)
@given(cases())
def test_a_text_taken_in_chunks_encodes_as_one_taken_whole(
    case: tuple[TokenizerSpec, tuple[str, ...], str | tuple[str, str] | list[str]],
) -> None:
    assert_same(*case, chunk_chars=3)


@pytest.fixture
def normalized_chars(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many characters were normalized, for ids and for offsets."""
    counts = {"split": 0, "align": 0}
    split, align = TextNormalizer.split, TextNormalizer.align

    def counting_split(self: TextNormalizer, text: str) -> list[str]:
        counts["split"] += len(text)
        return split(self, text)

    def counting_align(self: TextNormalizer, text: str) -> tuple[list[str], list[int]]:
        counts["align"] += len(text)
        return align(self, text)

    monkeypatch.setattr(TextNormalizer, "split", counting_split)
    monkeypatch.setattr(TextNormalizer, "align", counting_align)
    return counts


@pytest.mark.parametrize("unit", ["word, ", "中文", "[SEP]", "!"])
def test_a_text_far_over_the_limit_is_not_read_to_the_end(
    unit: str, normalized_chars: dict[str, int]
) -> None:
    spec = SPEC._replace(max_tokens=64)
    ours, theirs = both(spec, sentence_vocabulary())
    long, short = unit * 500_000, unit * 200
    assert rows(ours.encode(long)) == expected_rows(theirs.encode(short))
    for count in normalized_chars.values():
        assert count < 50_000
        assert count > 0 or unit in SPECIAL  # which are found before anything is normalized


@pytest.mark.parametrize("counts", [(120, 119), (119, 120), (120, 120), (62, 120), (120, 62)])
@pytest.mark.parametrize("limit", [32, 33])
def test_of_two_texts_over_the_limit_the_longer_keeps_the_odd_token(
    counts: tuple[int, int], limit: int
) -> None:
    spec = SPEC._replace(max_tokens=limit)
    pair = ("the " * counts[0], "dog " * counts[1])
    assert_same(spec, sentence_vocabulary(), pair, chunk_chars=16)


def test_of_two_texts_one_read_in_part_keeps_its_share() -> None:
    spec = SPEC._replace(max_tokens=64)
    for pair in (("the " * 200, "dog " * 20), ("dog " * 40, "the " * 200)):
        assert_same(spec, sentence_vocabulary(), pair, chunk_chars=16)


# --- what the reference cannot be asked ---


@pytest.mark.parametrize("spec", ALL_OPTIONS[::5], ids=["none", "0101", "1010", "all"])
def test_lone_surrogates_do_no_harm(spec: TokenizerSpec) -> None:
    ours, _ = both(spec, sentence_vocabulary())
    for surrogate in ("\ud800", "\udc80", "\udfff"):
        plain = ours.encode(" the dog")
        got = ours.encode(f"{surrogate} the dog")
        assert got.ids[-3:].tolist() == plain.ids[-3:].tolist()
        assert len(got.ids) == len(plain.ids) + (not settings_of(spec).clean_text)
        assert got.offsets[-3:-1].tolist() == [[2, 5], [6, 9]]


def test_surrogates_are_control_characters() -> None:
    ours, _ = both(SPEC, sentence_vocabulary())
    assert ours.encode("th\udfffe d\ud800og").ids.tolist() == ours.encode("the dog").ids.tolist()


@pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0", reason="the golden list is Unicode 14's"
)
def test_the_listed_differences_from_pythons_unicode_are_all_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.unicode_differences"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (GOLDEN / "unicode_differences.txt").read_text(encoding="utf-8")


# --- the object ---


def test_ids_are_int64_and_offsets_int32() -> None:
    ours, _ = both(SPEC, sentence_vocabulary())
    encoding = ours.encode("the dog", "")
    assert encoding.ids.dtype == encoding.type_ids.dtype == np.int64
    assert encoding.offsets.dtype == encoding.word_ids.dtype == np.int32
    assert encoding.offsets.shape == (len(encoding.ids), 2)
    assert not encoding.offsets.flags.writeable


def test_more_words_than_are_remembered_change_nothing() -> None:
    words = Vocabulary("\n".join(sentence_vocabulary()).encode())
    remembering = WordPiece(SETTINGS, words, {})
    forgetful = WordPiece(SETTINGS, words, {}, words_remembered=3)
    for text in SENTENCES:
        expected = remembering.ids(text, None, first=True)
        assert forgetful.ids(text, None, first=True) == expected
        count = len(expected)
        spans = remembering.spans(text, count, first=True)
        assert forgetful.spans(text, count, first=True) == spans


@pytest.mark.parametrize("spec", ALL_OPTIONS[::5], ids=["none", "0101", "1010", "all"])
def test_more_characters_than_are_remembered_change_nothing(spec: TokenizerSpec) -> None:
    forgetful = our_normalizer(settings_of(spec), table_limit=3)
    for text in (*SENTENCES, "".join(reorderable())):
        assert forgetful.align(text) == our_normalizer(settings_of(spec)).align(text)
        assert forgetful.split(text) == our_normalizer(settings_of(spec)).split(text)


def grown_bytes(work: Callable[[], object]) -> int:
    """What the tokenizer holds after ``work`` that it did not hold before.

    What other code allocates meanwhile does not count: threads of the tests' runner do, and so do
    finalizers of what earlier tests left behind.
    """
    tracemalloc.start()
    try:
        work()
        gc.collect()  # also gives back the small tuples that Python keeps for the next ones
        found = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    own = found.filter_traces([tracemalloc.Filter(True, "*/sti/text/*")])
    return sum(trace.size for trace in own.traces)


def test_memory_does_not_grow_with_the_words_that_were_met() -> None:
    words = [f"a{number}" for number in range(4000)]
    vocabulary = Vocabulary("\n".join([*SPECIAL, "a", *words]).encode())
    remembering = WordPiece(SETTINGS, vocabulary, {})
    forgetful = WordPiece(SETTINGS, vocabulary, {}, words_remembered=100)
    text = " ".join(words)
    # What a process takes once, for any tokenizer, is no growth.
    WordPiece(SETTINGS, vocabulary, {}).ids(text, None, first=True)
    both_kinds = (remembering, forgetful)
    grown = [grown_bytes(lambda m=m: m.ids(text, None, first=True)) for m in both_kinds]
    assert grown[1] < grown[0] / 10


def test_memory_does_not_grow_with_the_characters_that_were_met() -> None:
    text = "".join(map(chr, range(0x4E00, 0x6E00)))
    remembering, forgetful = our_normalizer(SETTINGS), our_normalizer(SETTINGS, table_limit=100)
    grown = [grown_bytes(lambda n=n: n.split(text)) for n in (remembering, forgetful)]
    assert grown[1] < grown[0] / 10


def test_threads_may_share_a_model() -> None:
    words = Vocabulary("\n".join(sentence_vocabulary()).encode())
    shared = WordPiece(SETTINGS, words, {}, words_remembered=20)

    def found(model: WordPiece, text: str) -> tuple[list[int], list[Span]]:
        return model.ids(text, None, first=True), model.spans(text, NO_LIMIT, first=True)

    expected = [found(WordPiece(SETTINGS, words, {}), text) for text in SENTENCES]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda t: found(shared, t), SENTENCES * 4)) == expected * 4


def test_vocab_size_and_pad_id_come_from_the_vocabulary() -> None:
    ours = Tokenizer(SPEC, b"[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]")
    assert (ours.vocab_size, ours.pad_id) == (5, 3)


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[MASK]", r"'\[SEP\]' is not in the vocabulary"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]", r"'\[MASK\]' is not in the vocabulary"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nof\nof", "holds 'of' twice"),
        (b"[PAD]\n[UNK]\n\xff", "not UTF-8"),
        (b"", "not in the vocabulary"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_refused(vocab: bytes, message: str) -> None:
    with pytest.raises(PackFormatError, match=message):
        Tokenizer(SPEC, vocab)


def test_a_spec_survives_json() -> None:
    for spec in ALL_OPTIONS:
        assert TokenizerSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "none"),
        ("lowercase", 1),
        ("strip_accents", None),
        ("unk_token", ["[UNK]"]),
        ("max_word_chars", 0),
        ("max_word_chars", 129),
        ("special_tokens", ["a" * 65]),
        ("max_tokens", 2),
        ("max_tokens", "256"),
        ("special_tokens", "[CLS]"),
        ("special_tokens", [""]),
    ],
)
def test_a_malformed_spec_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(
        PackFormatError, match=f"tokenizer: .*{field.replace('special_', 'special.')}"
    ):
        TokenizerSpec.from_json({**SPEC.to_json(), field: value})


def test_a_spec_that_is_no_object_or_lacks_a_field_is_refused() -> None:
    with pytest.raises(PackFormatError, match="expected an object"):
        TokenizerSpec.from_json([])
    fields = SPEC.to_json()
    del fields["cls_token"]
    with pytest.raises(PackFormatError, match="cls_token"):
        TokenizerSpec.from_json(fields)
