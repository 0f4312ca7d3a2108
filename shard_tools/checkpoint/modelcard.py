"""The licence that a model card names.

In: a checkpoint directory. Out: the ``license`` in the front matter of its ``README.md``, or an
empty string. Looks for that one line instead of parsing YAML; nothing else in a card is needed.
"""

from __future__ import annotations

from pathlib import Path

from sti.storage.plain_files import read_plain

_FENCE = "---"
_MOST_BYTES = 1 << 22


def licence_of(directory: Path) -> str:
    """Identifier of the licence, e.g. ``apache-2.0``; empty where the card names none."""
    try:
        lines = read_plain(directory / "README.md", _MOST_BYTES).decode("utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    if not lines or lines[0].strip() != _FENCE:
        return ""
    for line in lines[1:]:
        if line.strip() == _FENCE:
            break
        key, _, value = line.partition(":")
        if key == "license":
            return value.strip().strip("\"'")
    return ""
