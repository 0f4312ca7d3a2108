"""A text or a pair of texts, and its encoding: token ids, type ids, offsets and word ids."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Text = str | tuple[str, str]
"""One input of a model: a text, or a pair of texts."""


class Alignment:
    """Where each token comes from in the text, worked out at first use.

    ``find`` returns ``(start, end, word)`` for every token. Safe to share between threads: at worst
    two of them do the same work.
    """

    def __init__(self, find: Callable[[], list[tuple[int, int, int]]]) -> None:
        self._find = find

    @functools.cached_property
    def table(self) -> NDArray[np.int32]:
        """int32 ``(n, 3)``: start, end, word; read-only."""
        table = np.array(self._find(), dtype=np.int32).reshape(-1, 3)
        table.flags.writeable = False
        return table


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """The tokens of one text or pair, special tokens included.

    Attributes:
        ids: ``(n,)`` int64, owned by the caller.
        type_ids: ``(n,)`` int64, 1 for the second text of a pair and the SEP after it.
        truncated: whether tokens were cut off to stay within the limit.

    ``offsets`` and ``word_ids`` are worked out at first use from the text, which this object keeps.
    Safe to share between threads.
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    truncated: bool
    _alignment: Alignment = field(repr=False)

    @property
    def offsets(self) -> NDArray[np.int32]:
        """``(n, 2)`` int32, read-only view: characters ``[start, end)`` of the text the token
        belongs to (of its word, for ``encode_words``); ``(0, 0)`` for special tokens.
        """
        return self._alignment.table[:, :2]

    @property
    def word_ids(self) -> NDArray[np.int32]:
        """``(n,)`` int32, read-only view: index of the word the token belongs to, counted in each
        text of a pair from 0 (for ``encode_words``: the index given); -1 for special tokens.
        """
        return self._alignment.table[:, 2]
