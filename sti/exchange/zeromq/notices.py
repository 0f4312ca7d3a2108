"""Notices about peers and strangers, so few that nobody can fill a log or a screen with them.

In: a kind and a line. Out: the line at once, the first time; the last one of a kind with how many
there were, once a while, where they go on. Knows nothing of connections. For one thread.
"""

from __future__ import annotations

from time import monotonic

from sti.notices import Notify

EVERY_S = 10.0
MOST_KINDS = 64
"""That are told apart; others count as one, as do those of strangers from many addresses."""


class Notices:
    """Hands lines on to ``notify``, each kind at most once in ``every_s``.

    Args:
        notify: what it raises ends the thread that tells.
    """

    def __init__(self, notify: Notify, *, every_s: float = EVERY_S) -> None:
        self._notify, self._every_s = notify, every_s
        self._kinds: dict[str, tuple[float, int]] = {}

    def tell(self, kind: str, line: str) -> None:
        """Tell a line, or count it where one of its kind was told just now."""
        now_s = monotonic()
        if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
            self._kinds = {
                kind: (told_s, count)
                for kind, (told_s, count) in self._kinds.items()
                if now_s < told_s + self._every_s
            }
            if len(self._kinds) >= MOST_KINDS:
                kind = ""
        told_s, count = self._kinds.get(kind, (now_s - self._every_s, 0))
        if now_s < told_s + self._every_s:
            self._kinds[kind] = (told_s, count + 1)
            return
        self._kinds[kind] = (now_s, 0)
        self._notify(f"{line} ({count} more like it before)" if count else line)
