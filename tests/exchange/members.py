"""Members of every engine that runs in one process, for tests that each engine has to pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from sti.exchange.interface import FOUND, Exchange
from sti.exchange.threads import thread_exchanges

LONG_S = 30.0
"""Only a test that fails waits for so long."""


def soon() -> float:
    """A deadline that only a test that fails meets."""
    return time.monotonic() + LONG_S


@contextmanager
def threads(names: Sequence[str]) -> Iterator[Mapping[str, Exchange]]:
    with ExitStack() as closed:
        members = thread_exchanges(names)
        for member in members.values():
            closed.callback(member.close)
        yield members


ENGINES: dict[str, Callable[[Sequence[str]], Any]] = {"threads": threads}


@contextmanager
def members_of(engine: str, count: int) -> Iterator[list[Exchange]]:
    """Members called a, b, c and so on that have found one another, and said so."""
    with ENGINES[engine]([chr(ord("a") + number) for number in range(count)]) as named:
        members = list(named.values())
        for member in members:
            for other in members:
                if other is not member:
                    member.receive(key=FOUND, peer=other.name, deadline=soon())
        yield members
