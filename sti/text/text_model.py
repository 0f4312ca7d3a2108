"""What a kind of tokenizer is: the model that turns text between added tokens into ids.

In: text. Out: ids, and where tokens lie in the text. Knows nothing of added tokens, templates or
limits of a sequence, which all kinds share (``sti.text.tokenizer``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Span = tuple[int, int, int]
"""``(start, end, word)`` of a token: its characters, and the word it belongs to."""


class TextModel(Protocol):
    """One kind of tokenizer over one vocabulary. Safe to share between threads.

    A text given to these methods has no added tokens in it. It may contain anything, lone
    surrogates too.
    """

    @property
    def unknown(self) -> int | None:
        """The id of what no word of the vocabulary is of; None where there is no such thing."""
        ...

    def ids(self, text: str, limit: int | None, *, first: int) -> list[int]:
        """Ids of a text.

        Args:
            text: what stands between added tokens.
            limit: may stop soon after more than so many are found; None to find all.
            first: how many of its characters come from the very first one of the whole text: more
                than one only where it was normalized before.
        """
        ...

    def spans(self, text: str, count: int, *, first: int, begin: int = -1) -> list[Span]:
        """Of the first ``count`` tokens of a text; words are counted from 0.

        Args:
            text: what stands between added tokens.
            count: how many at most.
            first: how many of its characters come from the very first one of the whole text: more
                than one only where it was normalized before.
            begin: number of the token before which all are cut off; below 0 if it is in another
                part of the text.
        """
        ...

    def added_span(self, text: str, *, first: bool) -> tuple[int, int]:
        """Which characters of an added token, with the white space it takes, its span has.

        Args:
            text: the token and the white space.
            first: whether it begins the whole text, or all before it is cut off.
        """
        ...

    def cut(self, text: str, at: int) -> int:
        """The first place from ``at`` on where a text may be cut in two; its length if none.

        Ids and spans of both parts, the second not ``first``, are together those of the whole.
        """
        ...

    def normalized(self, text: str) -> tuple[str, Sequence[int]]:
        """What the normalizer alone makes of a text, and the source of each of its characters."""
        ...

    def after_normalizer(self) -> TextModel:
        """The same model for texts that are normalized already."""
        ...
