"""The index of a vocabulary: every word is found, and bad ones are refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sti.errors import PackFormatError
from sti.text import vocabulary
from sti.text.vocabulary import Vocabulary, encoded

# A few letters, so that words begin and repeat one another, of one to four bytes each.
LETTERS = "ab#é中\U0001f600"
WORDS = st.text(st.sampled_from(LETTERS), max_size=6)
TEXTS = st.text(st.sampled_from([*LETTERS, "\n", "\x00", "\ud800", "\udcff"]), max_size=10)
# (base, scale): as they are; words of the same bytes collide; few buckets; all words collide.
HASHES = st.sampled_from(
    [(vocabulary._BASE, vocabulary._SCALE), (1, vocabulary._SCALE), (3, 1 << 24), (1, 0)]
)
CHUNKS = st.sampled_from([1, 2, 7, 16384])


def blob_of(words: Sequence[str]) -> bytes:
    return "\n".join(words).encode()


@pytest.fixture(params=[(vocabulary._BASE, vocabulary._SCALE), (1, 0)], ids=["apart", "colliding"])
def hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes as they are, and all hashes equal."""
    base, scale = request.param
    monkeypatch.setattr(vocabulary, "_BASE", base)
    monkeypatch.setattr(vocabulary, "_SCALE", scale)


def longest_by_definition(ids: dict[str, int], text: str, least: int) -> tuple[int, int] | None:
    for end in range(len(text), -1, -1):
        size = len(encoded(text[:end]))
        if text[:end] in ids and size >= least:
            return ids[text[:end]], size
    return None


@settings(max_examples=500, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=40, unique=True),
    st.lists(TEXTS, max_size=8),
    st.integers(0, 8),
    HASHES,
    CHUNKS,
)
@example([""], ["", "a", "\n"], 0, (1, 0), 1)
@example(["a", ""], ["", "a", "ab"], 0, (1, 0), 1)
@example(["ab", "ba", "é", "##é", "##"], ["ab", "ba", "##é中", "##\ud800"], 3, (1, 1), 2)
def test_words_are_found_as_in_a_dict(
    words: list[str], texts: list[str], least: int, numbers: tuple[int, int], chunk: int
) -> None:
    ids = {word: line for line, word in enumerate(words)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_BASE", numbers[0])
        patch.setattr(vocabulary, "_SCALE", numbers[1])
        patch.setattr(vocabulary, "_CHUNK", chunk)
        ours = Vocabulary(blob_of(words))
    assert len(ours) == len(ids)
    for text in (*words, *texts, *(word + text for word in words[:4] for text in texts)):
        assert ours.find(text) == ids.get(text)
        found = ours.longest(encoded(text), at_least=least)
        assert found == longest_by_definition(ids, text, least)


def test_every_one_of_many_words_is_found() -> None:
    draw = random.Random(5)
    words = list(dict.fromkeys("".join(draw.choices(LETTERS, k=8)) for _ in range(20_000)))
    words[7000] = "long" * 10_000  # longer than what is worked on at a time
    ours = Vocabulary(blob_of(words))
    assert [ours.find(word) for word in words] == list(range(len(words)))
    assert ours.find("long" * 9_999) is None
    assert ours.find("long" * 10_001) is None


@pytest.mark.parametrize("size", [253, 254, 255, 256, 257, 65533, 65534, 65535, 65536])
def test_words_are_found_where_line_numbers_and_places_grow_by_a_byte(size: int) -> None:
    words = ["first", "a" * (size - 11), "last"]
    blob = blob_of(words)
    assert len(blob) == size
    assert [Vocabulary(blob).find(word) for word in words] == [0, 1, 2]


def test_hashes_spread_over_the_buckets() -> None:
    words = [f"{prefix}{number}" for prefix in ("", "##", "a") for number in range(10_000)]
    words += [chr(code) for code in range(0x4E00, 0x5E00)] + [chr(code) for code in range(97, 123)]
    buckets = Vocabulary(blob_of(words))._buckets.tolist()
    sizes = [last - first for first, last in pairwise(buckets)]
    assert sum(sizes) == len(words) <= len(sizes)
    # How many share a word's bucket: 1.5 if chance placed them.
    assert sum(size * size for size in sizes) / len(words) < 2


@pytest.mark.usefixtures("hashes")
@pytest.mark.parametrize("chunk", [1, 16384])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a", "b", "c", "b", "a"], "a"),
        (["x", "é", "a", "é", "é"], "é"),
        (["a", "", "b", ""], ""),
        (["", ""], ""),
        (["c", "a", "b", "##a", "##a", "d", "d"], "##a"),
    ],
)
def test_the_first_of_the_words_that_are_repeated_is_named(
    words: list[str], named: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "_CHUNK", chunk)
    with pytest.raises(PackFormatError) as caught:
        Vocabulary(blob_of(words))
    assert str(caught.value) == f"tokenizer: the vocabulary holds {named!r} twice"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\xc3\xa9", b"\xe4\xb8", b"\xff", b"\xed\xa0\x80"])),
    CHUNKS,
)
def test_what_is_not_utf8_is_refused_as_python_says_it(parts: list[bytes], chunk: int) -> None:
    blob = b"".join(parts)
    expected = None
    try:
        words = blob.decode().split("\n")
        repeated = next((word for word in words if words.count(word) > 1), None)
        if repeated is not None:
            expected = f"tokenizer: the vocabulary holds {repeated!r} twice"
    except UnicodeDecodeError as error:
        expected = f"tokenizer: the vocabulary is not UTF-8: {error}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_CHUNK", chunk)
        if expected is None:
            assert len(Vocabulary(blob)) == len(words)
        else:
            with pytest.raises(PackFormatError) as caught:
                Vocabulary(blob)
            assert str(caught.value) == expected
