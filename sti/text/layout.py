"""A template with ids, and how it is filled in with the tokens of texts.

In: the parts of a template, ids found of texts, and how many of them are kept. Out: ``Encoding``.
Knows nothing of how text becomes ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sti.text.encoding import Alignment, Encoding
from sti.text.template import FIRST, SECOND, Part
from sti.text.text_model import Span

SpansOf = Callable[[Sequence[int], Sequence[int]], list[list[Span]]]
"""The spans of the first so many tokens of each text, given the numbers of those that are kept
first, and how many.
"""

_SPECIAL_SPAN = (0, 0, -1)
_TEXTS = {FIRST: 0, SECOND: 1}


class Layout(NamedTuple):
    """What stands where."""

    parts: tuple[tuple[int | None, int, int], ...]
    """Of each part the number of the text, or None, its id, and its type."""
    specials: int
    """Tokens besides those of texts."""
    typed: bool
    """Whether a type is not 0."""

    def filled(
        self, texts: list[list[int]], kept: Sequence[int], spans: SpansOf, *, left: bool
    ) -> Encoding:
        """The tokens of texts with what is put around them.

        Args:
            texts: ids found of each text; the list is the caller's no more.
            kept: how many of them are kept.
            spans: where they lie.
            left: whether those at the beginning are cut off.
        """
        truncated = False
        first = [0] * len(kept)
        for number, (every, keep) in enumerate(zip(texts, kept, strict=True)):
            if len(every) > keep:
                truncated = True
                first[number] = len(every) - keep if left else 0
                texts[number] = every[first[number] : first[number] + keep]
        ids: list[int] = []
        for text, special, _ in self.parts:
            if text is None:
                ids.append(special)
            else:
                ids += texts[text]
        type_ids = np.zeros(len(ids), np.int64)
        if self.typed:
            at = 0
            for text, _, type_id in self.parts:
                end = at + (1 if text is None else kept[text])
                type_ids[at:end] = type_id
                at = end

        def align() -> list[Span]:
            found = spans(first, [at + keep for at, keep in zip(first, kept, strict=True)])
            table: list[Span] = []
            for text, _, _ in self.parts:
                if text is None:
                    table.append(_SPECIAL_SPAN)
                else:
                    table += found[text][first[text] :] if first[text] else found[text]
            return table

        return Encoding(np.array(ids, np.int64), type_ids, truncated, Alignment(align))


def layout_of(parts: Sequence[Part], id_of: Callable[[str], int]) -> Layout:
    """The layout of a template, by the ids of its tokens."""
    return Layout(
        tuple(
            (_TEXTS[what], 0, type_id) if what in _TEXTS else (None, id_of(what), type_id)
            for what, type_id in parts
        ),
        sum(what not in _TEXTS for what, _ in parts),
        any(type_id for _, type_id in parts),
    )


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens to keep of each text of a pair, by the rule of the reference library."""
    if first + second <= room:
        return first, second
    shorter, longer = min(first, second), max(first, second)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)
