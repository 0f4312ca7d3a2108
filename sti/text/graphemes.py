"""Grapheme clusters of several characters in less than six bytes, as the reference library cuts.

A map of characters replaces those whole and all else character by character, so no others matter;
but where a cluster begins and ends is known only from all of it. In: text without lone surrogates.
Out: places. Knows nothing of maps. Pure.
"""

from __future__ import annotations

import functools
import re

from sti.text import grapheme_tables as tables

_MOST_BYTES = 5
_TWO_BYTES = "\u07ff"  # the last character of two bytes in UTF-8
_JOINER = "\u200d"
_SYLLABLES = range(0xAC00, 0xD7A4)  # of Hangul; every 28th ends in a vowel
_LINES = re.compile("\r\n")


def short_clusters(text: str) -> list[tuple[int, int]]:
    """Where they begin and end, in order. Takes time in proportion to the text."""
    if text.isascii():
        return [found.span() for found in _LINES.finditer(text)] if "\r\n" in text else []
    if _suspicious().search(text) is None:
        return []
    return [
        (start, stop)
        for start, stop in (found.span() for found in _cluster().finditer(text))
        if 1 < stop - start <= _MOST_BYTES and len(text[start:stop].encode()) <= _MOST_BYTES
    ]


@functools.cache
def _suspicious() -> re.Pattern[str]:
    """What every such cluster has: there is no room for two characters of three bytes."""
    attached = f"[{tables.ATTACHED}]"
    return re.compile(
        f"\r\n|[{tables.PREPENDED}]|[\0-{_TWO_BYTES}]{attached}|(?=[\0-{_TWO_BYTES}]){attached}"
    )


@functools.cache
def _cluster() -> re.Pattern[str]:
    """A cluster by Unicode's annex 29; its rules for flags matter to none that is short."""
    leading, vowel, trailing = f"[{tables.LEADING}]", f"[{tables.VOWEL}]", f"[{tables.TRAILING}]"
    opened = f"[{''.join(map(chr, _SYLLABLES[::28]))}]"
    closed = f"[{chr(_SYLLABLES[0])}-{chr(_SYLLABLES[-1])}]"
    syllable = f"{leading}*(?:{vowel}+|{opened}{vowel}*|{closed}){trailing}*|{leading}+|{trailing}+"
    linked = f"[{tables.LINKED}]*[{tables.LINKER}][{tables.LINKED}{tables.LINKER}]*"
    consonants = f"[{tables.CONSONANT}](?:{linked}[{tables.CONSONANT}])*"
    pictures = f"[{tables.PICTURE}](?:[{tables.EXTENDING}]*{_JOINER}[{tables.PICTURE}])*"
    return re.compile(
        f"\r\n|[{tables.CONTROL}]|[{tables.PREPENDED}]*"
        f"(?:{syllable}|{consonants}|{pictures}|[^{tables.CONTROL}])[{tables.ATTACHED}]*"
    )
