"""What members collect, so that transports can be compared from one process to another."""

from __future__ import annotations

import time

import numpy as np

from sti.exchange.collectives import all_gather, all_reduce, reduce_scatter
from sti.exchange.interface import Exchange

LONG_S = 30.0
"""Only a test that fails waits for so long."""


def soon() -> float:
    """A deadline that only a test that fails meets."""
    return time.monotonic() + LONG_S


def collected(exchange: Exchange, count: int, number: int) -> list[bytes]:
    """What a member gets of gathering, scattering and summing with the first few of all."""
    members = [f"rank{rank}" for rank in range(count)]
    shares = [5, 0, 2, 9][:count]
    random = np.random.default_rng(number)
    array = (random.standard_normal((sum(shares), 700)) * 10.0**number).astype(np.float32)
    end = soon()
    found = [
        all_gather(exchange, members, array[: shares[number]], key="c", deadline=end),
        reduce_scatter(exchange, members, array, shares, key="c", deadline=end),
        all_reduce(exchange, members, array, key="c", deadline=end),
        all_reduce(exchange, members, array[:1].astype(np.float16), key="c", deadline=end),
    ]
    return [part.tobytes() for part in found]
