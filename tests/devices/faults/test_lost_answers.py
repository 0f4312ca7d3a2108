"""Answers that never come, as with a connection of which there were two: what was asked is asked
again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from sti.devices.chain import PREPARED_WITHIN_S, Chains
from sti.devices.commands import ECHO, PREPARE, REACH
from sti.devices.neighbours import MOST_NEIGHBOURS, Neighbours
from sti.devices.peers import Peers
from sti.errors import DeadlineError, PeerError
from sti.exchange.interface import FOUND
from sti.exchange.threads import ThreadExchange, thread_exchanges
from sti.planning.links import FLOAT32
from sti.planning.stages import Stage, layers_of
from tests.devices.test_chain import plan_of, strategy_of
from tests.support.devices import Machine, facts_of, machine
from tests.support.packs import tiny_pack
from tests.support.processes import WAIT_S, until
from tests.support.raw_controllers import WORKER
from tests.support.raw_workers import raw_worker


def peers_of(exchange: ThreadExchange, here: Machine) -> Peers:
    return Peers(
        exchange,
        {WORKER: "127.0.0.1:1"},
        facts_of(here.reader),
        connect=lambda *_: None,
        notify=lambda _: None,
    )


class Deaf:
    """Answers nothing to the first heads of a kind."""

    def __init__(self, kind: str, times: int) -> None:
        self._kind, self._times = kind, times

    def __call__(self, head: dict[str, Any]) -> Mapping[str, Any] | None:
        if head["is"] == self._kind and self._times:
            self._times -= 1
            return None
        return head


@pytest.mark.parametrize("kind", ["hello", ECHO])
def test_a_device_that_says_nothing_is_asked_what_it_is_again(kind: str) -> None:
    with raw_worker(Deaf(kind, 1)) as exchange, machine(tiny_pack()) as here:
        found = peers_of(exchange, here)
        found.take(exchange.receive(key=FOUND, deadline=time.monotonic() + WAIT_S))
        found.catch_up()
        peer = found.named[WORKER]
        assert not peer.is_ready and peer.again_s is not None

        def is_ready() -> bool:
            peer.again_s = 0.0
            found.catch_up()
            return peer.is_ready

        until(is_ready)
        assert peer.again_s is None


def test_a_part_that_nothing_was_said_of_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with raw_worker(Deaf(PREPARE, 1)) as exchange, machine(tiny_pack()) as here:
        found = peers_of(exchange, here)
        found.meet()
        chains = Chains(found, here.runner, here.jobs, here.reader.manifest)
        plan = plan_of(here.reader)
        layers = layers_of(plan)
        strategy = strategy_of(plan, (Stage(WORKER, layers[0], layers[-1]),))
        with pytest.raises(DeadlineError, match="a was late to get ready"):
            chains.make_ready(strategy, plan, FLOAT32, within_s=0.05)
        assert not chains.are_ready(strategy, plan, FLOAT32)
        monkeypatch.setattr("sti.devices.chain.PREPARED_WITHIN_S", -1.0)
        assert not chains.are_ready(strategy, plan, FLOAT32)  # asked for again
        monkeypatch.setattr("sti.devices.chain.PREPARED_WITHIN_S", PREPARED_WITHIN_S)
        until(lambda: found.catch_up() is None and chains.are_ready(strategy, plan, FLOAT32))


def test_a_way_is_measured_anew_when_it_is_asked_for_again() -> None:
    members = thread_exchanges(["a", "b", "c"])
    told: list[tuple[str, str, Mapping[str, Any]]] = []
    neighbours = Neighbours(
        members["a"], lambda *_: None, lambda peer, key, head: told.append((peer, key, head))
    )

    def answer(key: str) -> None:
        """What b says to what a has sent; a takes it in."""
        asked = members["b"].receive(peer="a", deadline=time.monotonic() + WAIT_S)
        while asked.key == FOUND:
            asked = members["b"].receive(peer="a", deadline=time.monotonic() + WAIT_S)
        members["b"].send("a", key or asked.key, {"is": ECHO}, asked.arrays)
        found = members["a"].receive(peer="b", deadline=time.monotonic() + WAIT_S)
        while found.key == FOUND:
            found = members["a"].receive(peer="b", deadline=time.monotonic() + WAIT_S)
        neighbours.take(found)

    neighbours.found("b")
    neighbours.reach("b", "127.0.0.1:1", asker="c", key="first")
    answer("another key")  # as if it were lost
    assert not told
    neighbours.reach("b", "127.0.0.1:1", asker="c", key="again")
    for _ in range(6):
        answer("")
    ((peer, key, head),) = told
    assert (peer, key, head["is"]) == ("c", "again", REACH)
    neighbours.reach("b", "127.0.0.1:1", asker="c", key="lost")
    neighbours.lost("b")
    assert told[-1][1] == "lost" and told[-1][2]["why"] == "b is lost"
    for number in range(MOST_NEIGHBOURS):
        neighbours.reach(f"n{number}", "127.0.0.1:1", asker="c", key="many")
    with pytest.raises(PeerError, match="reaches 32 devices already"):
        neighbours.reach("more", "127.0.0.1:1", asker="c", key="many")
    for member in members.values():
        member.close()
