"""The index of a vocabulary: every word is found, and bad ones are refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sti.errors import PackFormatError
from sti.text.vocabulary import HASH_BASE, HASH_SCALE, Vocabulary, encoded

# A few letters, so that words begin and repeat one another, of one to four bytes each.
LETTERS = "ab#é中\U0001f600"
WORDS = st.text(st.sampled_from(LETTERS), max_size=6)
TEXTS = st.text(st.sampled_from([*LETTERS, "\n", "\x00", "\ud800", "\udcff"]), max_size=10)
# (base, scale): as they are; words of the same bytes collide; few buckets; all words collide.
HASHES = st.sampled_from([(HASH_BASE, HASH_SCALE), (1, HASH_SCALE), (3, 1 << 24), (1, 0)])
CHUNKS = st.sampled_from([1, 2, 7, 16384])


def blob_of(words: Sequence[str]) -> bytes:
    return "\n".join(words).encode()


def longest_by_definition(ids: dict[str, int], text: str, least: int) -> tuple[int, int] | None:
    for end in range(len(text), -1, -1):
        size = len(encoded(text[:end]))
        if text[:end] in ids and size >= least:
            return ids[text[:end]], size
    return None


@settings(max_examples=500)
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
    ours = Vocabulary(blob_of(words), base=numbers[0], scale=numbers[1], chunk=chunk)
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


class CountedBlob(bytes):
    """A blob that counts the words taken out of it, which is what a look-up compares."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        self.taken += 1
        return super().__getitem__(key)


def test_a_look_up_compares_few_words() -> None:
    words = [f"{prefix}{number}" for prefix in ("", "##", "a") for number in range(10_000)]
    words += [chr(code) for code in range(0x4E00, 0x5E00)] + [chr(code) for code in range(97, 123)]
    blob = CountedBlob(blob_of(words))
    ours = Vocabulary(blob)
    blob.taken = 0
    assert all(ours.find(word) == line for line, word in enumerate(words))
    assert blob.taken / len(words) < 1.4  # 1.26 if chance placed two words in four buckets
    blob.taken = 0
    assert not any(ours.find(f"{word}no") for word in words)
    assert blob.taken / len(words) < 0.7  # and 0.52


@pytest.mark.parametrize("scale", [HASH_SCALE, 0], ids=["apart", "colliding"])
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
    words: list[str], named: str, chunk: int, scale: int
) -> None:
    with pytest.raises(PackFormatError) as caught:
        Vocabulary(blob_of(words), scale=scale, chunk=chunk)
    assert str(caught.value) == f"tokenizer: the vocabulary holds {named!r} twice"


@settings(max_examples=300)
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
    if expected is None:
        assert len(Vocabulary(blob, chunk=chunk)) == len(words)
    else:
        with pytest.raises(PackFormatError) as caught:
            Vocabulary(blob, chunk=chunk)
        assert str(caught.value) == expected
