"""The size of a run: sentences and tokens, rounded up to one of a few buckets. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Workload(NamedTuple):
    """Sentences in a run, and tokens per sentence (padded length), both already rounded up."""

    batch: int
    tokens: int


TOKEN_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Token counts that plans are made for: a batch's mean length is rounded up to one of them."""


def bucket(batch: int, tokens: int, *, most: int) -> Workload:
    """The workload that a plan is made for: sizes rounded up, so that few plans are needed.

    Args:
        batch: sentences, rounded up to a power of two.
        tokens: tokens per sentence, rounded up to one of ``TOKEN_BUCKETS``.
        most: the most tokens that the model takes.
    """
    fitting = (size for size in TOKEN_BUCKETS if size >= tokens)
    return Workload(1 << (batch - 1).bit_length(), min(next(fitting, most), most))
