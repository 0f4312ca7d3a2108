"""How sentence-transformers uses an encoder: one file, under the names that it had over the years.

In: a directory. Out: which file counts. Knows nothing of what it says.
"""

from __future__ import annotations

from pathlib import Path

NAMES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""In the order in which sentence-transformers looks for them."""


def sentence_file(directory: Path) -> str:
    """The name of the first that is there, as sentence-transformers reads no other; the usual one
    where none is.
    """
    return next((name for name in NAMES if (directory / name).exists()), NAMES[0])
