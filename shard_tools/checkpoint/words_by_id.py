"""The words of a vocabulary that a JSON file holds as ``{word: id}``.

In: the object. Out: words in the order of their ids. Knows no kind of tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable

from sti.errors import CheckpointError
from sti.json_fields import JsonFields


def words_by_id(vocab: JsonFields) -> list[str]:
    """The words in the order of their ids, which must be 0, 1, 2, ...

    Raises:
        CheckpointError: an id is no whole number from 0 on, is missing or there twice; or a word
            cannot be in a vocabulary.
    """
    by_id: dict[int, str] = {}
    for word in vocab.keys():
        number = vocab.integer(word)
        if number in by_id:
            raise CheckpointError(
                f"{vocab.where}: {by_id[number]!r:.80} and {word!r:.80} share the id {number}"
            )
        by_id[number] = word
    missing = next((number for number in range(len(by_id)) if number not in by_id), None)
    if missing is not None:
        raise CheckpointError(f"{vocab.where}: no word has the id {missing}")
    words = [by_id[number] for number in range(len(by_id))]
    expect_encodable(vocab.where, words)
    return words


def expect_encodable(where: str, words: Iterable[str]) -> None:
    """Refuse words that a vocabulary blob cannot hold."""
    for word in words:
        if "\n" in word or any("\ud800" <= char <= "\udfff" for char in word):
            raise CheckpointError(f"{where}: {word!r:.80} holds a newline or a lone surrogate")
