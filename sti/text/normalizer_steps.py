"""The steps that normalize a text before it is cut into pieces, as ``tokenizer.json`` lists them.

In: what a step does (``StepSettings``), and text without lone surrogates. Out: the text after the
step, and where each of its characters comes from, as the reference library has it. Knows nothing
of words or pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from sti.json_fields import JsonFields
from sti.text.charsmap import CharsMap, Place
from sti.text.normalizer import TABLE_LIMIT, TABLES, CharTable

MOST_STEPS = 16
LONGEST_TEXT = 64
"""Characters of what is searched for or put in its place."""

SPACES = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)
"""Unicode's white space, which is less than what ``str`` takes for it."""


class StepSettings(NamedTuple):
    """One step.

    Attributes:
        kind: ``"charsmap"`` (the tokenizer's own map), ``"lowercase"``, ``"strip"`` (white space at
            either end), ``"replace"`` (each ``pattern``, as it is) or ``"replace_regex"`` (each
            match of ``pattern``, one of ``REGEXES``).
        pattern, content: what is replaced by what; empty for other kinds.
        left, right: the ends that are stripped; False for other kinds.
    """

    kind: str
    pattern: str = ""
    content: str = ""
    left: bool = False
    right: bool = False

    @classmethod
    def from_json(cls, fields: JsonFields) -> StepSettings:
        """The step that ``_asdict`` wrote; raises the error of ``fields``."""
        fields.only(*cls._fields)
        found = cls(
            kind=fields.text("kind"),
            pattern=fields.text("pattern"),
            content=fields.text("content"),
            left=fields.flag("left"),
            right=fields.flag("right"),
        )
        if found.kind not in KINDS:
            raise fields.fail("kind", f"one of {', '.join(KINDS)}")
        if found.kind == "replace_regex" and found.pattern not in REGEXES:
            raise fields.fail("pattern", f"one of {', '.join(map(repr, REGEXES))}")
        if found.kind == "replace" and not found.pattern:
            raise fields.fail("pattern", "a string that is not empty")
        for key in ("pattern", "content"):
            if len(fields.text(key)) > LONGEST_TEXT:
                raise fields.fail(key, f"at most {LONGEST_TEXT} characters")
        return found


class Step(Protocol):
    """What a step does to text."""

    def replaced(self, text: str) -> str:
        """The text after the step."""

    def aligned(self, text: str, places: Sequence[Place]) -> tuple[str, Sequence[Place]]:
        """The same, and where it comes from, for a text whose characters come from ``places``."""


def step(settings: StepSettings, charsmap: CharsMap | None) -> Step:
    """The step of some settings that were checked."""
    if settings.kind == "charsmap":
        assert charsmap is not None
        return charsmap
    if settings.kind == "lowercase":
        return _Lowercase()
    if settings.kind == "strip":
        return _Strip(settings.left, settings.right)
    if settings.kind == "replace":
        return _Replace(_literally(settings.pattern), settings.content)
    return _Replace(REGEXES[settings.pattern], settings.content)


def lower(char: str) -> str:
    """What a step of lower case makes of a character."""
    return TABLES.lower.get(ord(char), char)


class _Lowercase:
    """Lower case, character by character."""

    def __init__(self) -> None:
        self._table = CharTable(lambda code: lower(chr(code)), TABLE_LIMIT)

    def replaced(self, text: str) -> str:
        return text.translate(self._table)

    def aligned(self, text: str, places: Sequence[Place]) -> tuple[str, Sequence[Place]]:
        news = [self._table[ord(char)] for char in text]
        found = [place for new, place in zip(news, places, strict=True) for _ in new]
        return "".join(news), found


class _Strip:
    """White space at one end or both goes."""

    def __init__(self, left: bool, right: bool) -> None:
        self._left, self._right = left, right

    def replaced(self, text: str) -> str:
        start, stop = self._kept(text)
        return text[start:stop]

    def aligned(self, text: str, places: Sequence[Place]) -> tuple[str, Sequence[Place]]:
        start, stop = self._kept(text)
        return text[start:stop], places[start:stop]

    def _kept(self, text: str) -> tuple[int, int]:
        start = len(text) - len(text.lstrip(SPACES)) if self._left else 0
        return start, max(start, len(text.rstrip(SPACES)) if self._right else len(text))


Finder = Callable[[str], Iterator[Place]]
"""Where a pattern is found in a text, from left to right, without overlaps."""


class _Replace:
    """What is found is replaced by a text, whose characters all come from the last one found."""

    def __init__(self, finder: Finder, content: str) -> None:
        self._finder, self._content = finder, content

    def replaced(self, text: str) -> str:
        kept: list[str] = []
        at = 0
        for start, stop in self._finder(text):
            kept += (text[at:start], self._content)
            at = stop
        return "".join((*kept, text[at:])) if kept else text

    def aligned(self, text: str, places: Sequence[Place]) -> tuple[str, Sequence[Place]]:
        found: list[Place] = []
        at = 0
        for start, stop in self._finder(text):
            found += places[at:start]
            found += [places[stop - 1]] * len(self._content)
            at = stop
        found += places[at:]
        return self.replaced(text), found


def _literally(pattern: str) -> Finder:
    def find(text: str) -> Iterator[Place]:
        at = text.find(pattern)
        while at >= 0:
            yield at, at + len(pattern)
            at = text.find(pattern, at + len(pattern))

    return find


_TWO_SPACES = re.compile(" {2,}")


def _spaces(text: str) -> Iterator[Place]:
    return (match.span() for match in _TWO_SPACES.finditer(text)) if "  " in text else iter(())


def _spaces_at_ends(text: str) -> Iterator[Place]:
    before = len(text) - len(text.lstrip(" "))
    after = len(text.rstrip(" "))
    if before:
        yield 0, before
    if before < len(text) and after < len(text):
        yield after, len(text)


def _first_mark(text: str) -> Iterator[Place]:
    return iter(((0, 1),) if text.startswith("\u2581") else ())


REGEXES: dict[str, Finder] = {
    " {2,}": _spaces,
    r"\A +| +\z": _spaces_at_ends,
    "\\A\u2581": _first_mark,
}
"""The regular expressions that files of SentencePiece models have. No others: a pack's could take
time without end.
"""

KINDS = ("charsmap", "lowercase", "strip", "replace", "replace_regex")
