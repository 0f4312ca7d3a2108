"""Texts as callers give them: checked before anything is run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sti.errors import InputError

Text = str | tuple[str, str]
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_texts(texts: Sequence[Text], *, pairs: bool) -> None:
    """Refuse what is no batch of texts.

    Args:
        pairs: whether a text may be a pair.

    Raises:
        InputError: no texts, an empty text, one that is no valid Unicode, or no sequence of texts.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise InputError("texts must be a list of texts (or of pairs); wrap a single text in [...]")
    if not texts:
        raise InputError("no texts were given")
    for index, text in enumerate(texts):
        parts = text if isinstance(text, tuple) else (text, text)
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise InputError(f"text {index} must be a text or a pair of texts, found {text!r:.60}")
        if isinstance(text, tuple) and not pairs:
            raise InputError(f"text {index} is a pair; this pack labels single texts")
        if not all(part.strip() for part in parts):
            raise InputError(f"text {index} is empty; leave it out")
        if any(_SURROGATE.search(part) for part in parts):
            raise InputError(f"text {index} is no valid Unicode text: it holds a lone surrogate")
