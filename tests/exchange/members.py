"""Members of every transport that runs in one process, for tests that each has to pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import zmq

from sti.exchange.interface import FOUND, Exchange
from sti.exchange.threads import thread_exchanges
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys

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


def keys_of(names: Sequence[str]) -> dict[str, Keys]:
    """Keys of members that know one another."""
    pairs = {name: zmq.curve_keypair() for name in names}
    public = {name: pair[0] for name, pair in pairs.items()}
    return {name: Keys(name, public, pairs[name][1]) for name in names}


@contextmanager
def zeromq(
    names: Sequence[str], keys: Mapping[str, Keys] = MappingProxyType({})
) -> Iterator[Mapping[str, Exchange]]:
    """Each listens, and connects to those before it."""
    with ExitStack() as closed:
        members: dict[str, ZmqExchange] = {}
        for name in names:
            members[name] = ZmqExchange(
                name,
                listen="127.0.0.1:0",
                peers={other: str(member.address) for other, member in members.items()},
                keys=keys.get(name),
                silence_s=10,  # these tests freeze nobody, and the machine may be busy
            )
            closed.callback(members[name].close)
        yield members


def encrypted(names: Sequence[str]) -> Any:
    return zeromq(names, keys_of(names))


TRANSPORTS: dict[str, Callable[[Sequence[str]], Any]] = {
    "threads": threads,
    "zeromq": zeromq,
    "zeromq with keys": encrypted,
}


@contextmanager
def members_of(transport: str, count: int) -> Iterator[list[Exchange]]:
    """Members called a, b, c and so on that have found one another, and said so."""
    with TRANSPORTS[transport]([chr(ord("a") + number) for number in range(count)]) as named:
        members = list(named.values())
        for member in members:
            for other in members:
                if other is not member:
                    member.receive(key=FOUND, peer=other.name, deadline=soon())
        yield members
