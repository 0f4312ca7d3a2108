"""Reading the sets of code points that ``sti.text.unicode_tables`` holds.

In: a generated table. Out: its runs. Knows nothing of what the sets mean.
"""

from __future__ import annotations

from collections.abc import Iterator


def runs(table: str) -> Iterator[tuple[int, int, list[int]]]:
    """``(first, last, tags)`` of every run of a generated table."""
    code = 0
    for word in table.split():
        run, *tags = word.split(":")
        gap, _, more = run.partition(".")
        first = code + int(gap, 36)
        code = first + (int(more, 36) if more else 0)
        yield first, code, [int(tag, 36) for tag in tags]
