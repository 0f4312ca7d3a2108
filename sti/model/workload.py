"""The size of a run: sentences and tokens, and which of a few buckets it is rounded up to. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Workload(NamedTuple):
    """Sentences in a run, and tokens per sentence (padded length).

    Both are rounded up (``bucket``), except where it says what was asked for.
    """

    batch: int
    tokens: int

    @property
    def words(self) -> str:
        """For people: ``1 text of 32 tokens``, ``40 texts of up to 57 tokens``."""
        if self.batch == 1:
            return f"1 text of {self.tokens} token{'s' * (self.tokens != 1)}"
        return f"{self.batch} texts of up to {self.tokens} tokens"

    def within(self, other: Workload) -> bool:
        """Whether it is no larger than another one, in texts and in tokens of each."""
        return self.batch <= other.batch and self.tokens <= other.tokens


TOKEN_BUCKETS = (
    *(8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128),
    *(144, 160, 176, 192, 208, 232, 256, 288, 320, 360, 400, 448, 480, 512),
)
"""Token counts that plans are made for: a batch's mean length is rounded up to one of them.

From 64 on they are an eighth apart at most, so that no text is planned as a much longer one.
"""


def bucket(batch: int, tokens: int, *, most: int) -> Workload:
    """The workload that a plan is made for: sizes rounded up, so that few plans are needed.

    Args:
        batch: sentences, rounded up to a power of two.
        tokens: tokens per sentence, rounded up to one of ``TOKEN_BUCKETS``.
        most: the most tokens that the model takes.
    """
    fitting = (size for size in TOKEN_BUCKETS if size >= tokens)
    return Workload(1 << (batch - 1).bit_length(), min(next(fitting, most), most))
