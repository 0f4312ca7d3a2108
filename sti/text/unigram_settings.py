"""What a pack's manifest says of a Unigram tokenizer.

In: JSON. Out: ``UnigramSettings``, checked but for what only the vocabulary can tell. Knows nothing
of how text is cut.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from sti.json_fields import JsonFields
from sti.text.normalizer_steps import MOST_STEPS, SPACES, StepSettings

PREPENDS = ("always", "first", "never")
MOST_GROWTH = 8
"""So many times longer a text may become by what steps put in its place, the map of characters
apart; known is twice."""

SURROGATES = re.compile("[\ud800-\udfff]")


class UnigramSettings(NamedTuple):
    """What a pack's manifest says of a Unigram tokenizer.

    Attributes:
        unknown: id for what no piece is of.
        byte_fallback: what no piece is of becomes pieces ``<0x00>`` to ``<0xFF>`` where all are
            there.
        steps: normalize the text, in order.
        split_spaces: white space parts words, and is dropped.
        mark: one character, which takes the place of spaces.
        prepend: whether a mark is put before each word (``"always"``), or only before what begins
            at the first character of the text (``"first"``), or not at all (``"never"``).
        split_marks: each mark begins another word.
    """

    unknown: int
    byte_fallback: bool
    steps: tuple[StepSettings, ...]
    split_spaces: bool
    mark: str
    prepend: str
    split_marks: bool

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        return {**self._asdict(), "steps": [found._asdict() for found in self.steps]}

    @classmethod
    def from_json(cls, fields: JsonFields) -> UnigramSettings:
        """The settings that ``to_json`` wrote.

        Raises:
            The error of ``fields``: one is missing, ill-typed or out of bounds.
        """
        found = cls(
            unknown=fields.integer("unknown"),
            byte_fallback=fields.flag("byte_fallback"),
            steps=tuple(StepSettings.from_json(item) for item in fields.objects("steps")),
            split_spaces=fields.flag("split_spaces"),
            mark=fields.text("mark"),
            prepend=fields.text("prepend"),
            split_marks=fields.flag("split_marks"),
        )
        if len(found.steps) > MOST_STEPS:
            raise fields.fail("steps", f"at most {MOST_STEPS} steps")
        if math.prod(map(_growth, found.steps)) > MOST_GROWTH:
            raise fields.fail("steps", f"steps that make a text at most {MOST_GROWTH} times longer")
        if sum(found.kind == "charsmap" for found in found.steps) > 1:
            raise fields.fail("steps", "a list with at most one map of characters")
        if len(found.mark) != 1 or found.mark in SPACES or SURROGATES.match(found.mark):
            raise fields.fail("mark", "one character that is no white space")
        if found.prepend not in PREPENDS:
            raise fields.fail("prepend", f"one of {', '.join(PREPENDS)}")
        return found

    def named_words(self) -> tuple[str, ...]:
        """Words of the vocabulary that stand for something: none, as the unknown one has an id."""
        return ()


def _growth(step: StepSettings) -> int:
    """How many times longer a text may become, rounded up: regular expressions match one character
    or more.
    """
    found = len(step.pattern) if step.kind == "replace" else 1
    return max(1, -(-len(step.content) // found))
