"""A vocabulary by order: every word is found, also of the first ones, and bad ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.errors import PackFormatError
from sti.text.sorted_vocabulary import SortedIndex, SortedVocabulary, make_sorted_index

WORDS = st.text(st.sampled_from("ab▁é中\U0001f600"), max_size=6)
TEXTS = st.text(st.sampled_from(["a", "b", "é", "\n", "\ud800"]), max_size=10)
BLOB = "▁a\nb\n▁\né".encode()


@given(
    st.lists(WORDS, min_size=1, max_size=40, unique=True),
    st.lists(TEXTS, max_size=8),
    st.integers(0, 45),
)
def test_words_are_found_as_in_a_dict(words: list[str], texts: list[str], first: int) -> None:
    ids = {word: line for line, word in enumerate(words)}
    ours = SortedVocabulary("\n".join(words).encode())
    part = ours.of_first(first)
    assert (len(ours), len(part)) == (len(words), min(first, len(words)))
    for text in (*words, *texts):
        assert ours.find(text) == ids.get(text)
        assert part.find(text) == {word: ids[word] for word in words[:first]}.get(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": np.array([0, 4, 6, 10], np.uint32)}, "sizes"),
        ({"sorted": np.zeros(0, np.uint32)}, "sizes"),
        ({"starts": np.array([0, 5, 6, 10, 13], np.uint32)}, "lines"),
        ({"starts": np.array([0, 6, 5, 10, 13], np.uint32)}, "lines"),
        ({"sorted": np.array([0, 1, 2, 4], np.uint32)}, "beyond"),
    ],
)
def test_an_index_that_a_search_would_leave_is_refused(change: dict[str, Any], words: str) -> None:
    index = make_sorted_index(BLOB)
    assert SortedVocabulary(BLOB, index).find("é") == 3
    with pytest.raises(PackFormatError, match=words):
        SortedVocabulary(BLOB, index._replace(**change))


@pytest.mark.parametrize(
    ("blob", "words"),
    [(b"a\nb\na", "'a' twice"), (b"a\n\xc3", "UTF-8"), (b"\xed\xa0\x80", "UTF-8")],
)
def test_bad_vocabularies_are_refused(blob: bytes, words: str) -> None:
    with pytest.raises(PackFormatError, match=words):
        SortedVocabulary(blob)
    lines = blob.split(b"\n")
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).astype(np.uint32)
    index = SortedIndex(starts, np.arange(len(lines), dtype=np.uint32))
    if words == "UTF-8":
        with pytest.raises(PackFormatError, match=words):
            SortedVocabulary(blob, index)


def test_another_order_hides_words_and_finds_no_others() -> None:
    index = make_sorted_index(BLOB)
    ours = SortedVocabulary(BLOB, index._replace(sorted=index.sorted[::-1].copy()))
    for line, word in enumerate(BLOB.decode().split("\n")):
        assert ours.find(word) in (None, line)
