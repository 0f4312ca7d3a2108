"""Text to the words that Unigram cuts: normalized, parted at white space, marks put in its place.

In: settings, the map of characters, text between added tokens. Out: words with their marks, and
where their characters come from. Knows nothing of pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sti.text.charsmap import CharsMap, Place
from sti.text.graphemes import short_clusters
from sti.text.normalizer_steps import SPACES, Step, lower, step
from sti.text.unigram_settings import SURROGATES, UnigramSettings

CHUNK_CHARS = 8192
"""A long text is normalized in chunks of about this many characters."""

_OTHER_SPACES = re.compile(f"[{SPACES.replace(' ', '')}]")
_WORD = re.compile(f"[^{SPACES}]+")
_CUT = re.compile(r"(?<=[^\W_]) (?=[^\W_])")  # a long text may be cut there: between two words


class UnigramWords:
    """Words of text, for one choice of settings.

    Args:
        settings: were checked by ``from_json``.
        charsmap: the map of characters, where a step is one.
        chunk_chars: characters of a text that are normalized at a time; bounds memory and changes
            no answer.

    Safe to share between threads. Lone surrogates count as U+FFFD.
    """

    def __init__(
        self, settings: UnigramSettings, charsmap: CharsMap | None, *, chunk_chars: int
    ) -> None:
        self._settings, self._charsmap, self._chunk_chars = settings, charsmap, chunk_chars
        self._steps: list[Step] = [step(found, charsmap) for found in settings.steps]
        self._touched = set(SPACES + settings.mark).union(*(s.pattern for s in settings.steps))
        # What a step before the map makes of a character may be one that the map drops.
        kinds = [found.kind for found in settings.steps]
        self._map_is_first = "charsmap" not in kinds[1:]
        self._lowers = "lowercase" in kinds
        self._cuttable = self._may_be_cut()

    def after_normalizer(self) -> UnigramWords:
        """The same for texts that are normalized already."""
        settings = self._settings._replace(steps=())
        return UnigramWords(settings, None, chunk_chars=self._chunk_chars)

    def normalized(self, text: str) -> tuple[str, Sequence[Place]]:
        """What the steps make of a text, and where each of its characters comes from."""
        text = _without_surrogates(text)
        places: Sequence[Place] = [(at, at + 1) for at in range(len(text))]
        for one in self._steps:
            text, places = one.aligned(text, places)
        return text, places

    def chunks(self, text: str) -> Iterator[Place]:
        """Parts of a text that can be normalized each for itself."""
        size = self._chunk_chars
        start = 0
        while len(text) - start > size and self._cuttable and not self._begins_dropped(text):
            cuts = (cut.start() for cut in _CUT.finditer(text, start + size))
            stop = next(
                (at for at in cuts if self._kept(text[at - 1]) and self._kept(text[at + 1])), None
            )
            if stop is None:
                break
            yield start, stop
            start = stop
        yield start, len(text)

    def _may_be_cut(self) -> bool:
        """Whether no step and no word goes across a space between two words."""
        settings = self._settings
        return (
            (settings.split_spaces or settings.split_marks)
            and (self._charsmap is None or self._charsmap.of(" ") == " ")
            and self._map_is_first
            and all(
                not found.left
                and not found.pattern.startswith("\\A")
                and (found.kind != "replace" or not {" ", settings.mark} & set(found.pattern))
                for found in settings.steps
            )
        )

    def _begins_dropped(self, text: str) -> bool:
        """Whether the map may drop the text's first character, which shifts all places."""
        charsmap = self._charsmap
        return charsmap is not None and (not charsmap.of(text[0]) or bool(short_clusters(text[:4])))

    def _kept(self, char: str) -> bool:
        """Whether a character alone stays one character that no step but the map touches."""
        new = char if self._charsmap is None else self._charsmap.of(char)
        if len(new) != 1:
            return False
        found = {char, new, lower(new) if self._lowers else new}
        return max(map(len, found)) == 1 and not found & self._touched

    def words(self, text: str, *, first: int) -> list[str]:
        """The words of a text, marks included; some may be empty."""
        settings, mark = self._settings, self._settings.mark
        text = _without_surrogates(text)
        if settings.prepend == "first" and (first > 1 or (first and not self._begins_kept(text))):
            return [word for word, _ in self.aligned(text, first=first)]
        prepend = settings.prepend == "always" or (settings.prepend == "first" and first > 0)
        for one in self._steps:
            text = one.replaced(text)
        if not settings.split_spaces:
            text = text.replace(" ", mark)
            if prepend and text and not text.startswith(mark):
                text = mark + text
            return text.replace(mark, " " + mark).split(" ") if settings.split_marks else [text]
        words = _WORD.findall(text) if _OTHER_SPACES.search(text) else text.split(" ")
        if settings.prepend == "always":
            words = [word if word.startswith(mark) else mark + word for word in words if word]
        elif prepend and not words[0].startswith(mark):
            words[0] = mark + words[0]
        if settings.split_marks and mark in text:
            return [part for word in words for part in word.replace(mark, " " + mark).split(" ")]
        return words

    def _begins_kept(self, text: str) -> bool:
        """Whether a text's first character becomes the first of its first word, and no other."""
        kept = bool(text) and self._map_is_first and self._kept(text[0])
        return kept and not short_clusters(text[:4])

    def aligned(self, text: str, *, first: int) -> Iterator[tuple[str, Sequence[Place]]]:
        """The words of ``words`` that are not empty, and where their characters come from."""
        settings, mark = self._settings, self._settings.mark
        text, places = self.normalized(text)
        runs = [found.span() for found in _WORD.finditer(text)]
        for start, stop in runs if settings.split_spaces else [(0, len(text))] * bool(text):
            word, where = text[start:stop].replace(" ", mark), places[start:stop]
            prepend = settings.prepend == "first" and where[0][0] < first
            if (prepend or settings.prepend == "always") and not word.startswith(mark):
                word, where = mark + word, (where[0], *where)
            at = 0
            for part in (
                word.replace(mark, " " + mark).split(" ") if settings.split_marks else [word]
            ):
                if part:
                    yield part, where[at : at + len(part)]
                    at += len(part)


def _without_surrogates(text: str) -> str:
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)
