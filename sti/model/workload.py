"""What is to be run at once: sentences and tokens, rounded up to few sizes. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be run: sentences and tokens a sentence (padded length), already bucketed."""

    batch: int
    tokens: int


TOKEN_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""A plan is made for the bucket that a batch's mean length falls into."""


def bucket(batch: int, tokens: int, *, most: int) -> Workload:
    """The workload a plan is made for: sizes rounded up, so that few plans are made.

    Args:
        most: the most tokens the model takes.
    """
    fitting = (size for size in TOKEN_BUCKETS if size >= tokens)
    return Workload(1 << (batch - 1).bit_length(), min(next(fitting, most), most))
