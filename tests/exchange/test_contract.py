"""What every transport promises its members."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sti.errors import ClosedError, DeadlineError, InputError, PeerError, PeerLostError
from sti.exchange.interface import FOUND, LOST, Exchange
from tests.exchange.members import TRANSPORTS, members_of, soon

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)
WAITS: tuple[Callable[[Exchange], object], ...] = (
    lambda member: member.receive(deadline=None),
    lambda member: member.receive(key="k", deadline=soon()),
    lambda member: member.receive(peer="b", deadline=soon()),
)


@each_transport
def test_messages_of_a_peer_arrive_whole_and_in_order(transport: str) -> None:
    with members_of(transport, 2) as (a, b):
        for number in range(50):
            rows = np.full((number, 3), number, np.float32)
            a.send("b", f"k{number % 3}", {"number": number}, [rows, np.int32([number])])
        for number in range(50):
            message = b.receive(deadline=soon())
            assert message[:3] == ("a", f"k{number % 3}", {"number": number})
            rows, single = message.arrays
            assert rows.shape == (number, 3) and (rows == number).all() and single[0] == number


@each_transport
def test_large_arrays_arrive_whole(transport: str) -> None:
    sent = np.random.default_rng(0).integers(0, 255, 9_000_001, np.uint8)
    with members_of(transport, 2) as (a, b):
        a.send("b", "k", arrays=[sent[::-1]])
        message = b.receive(key="k", peer="a", deadline=soon())
        assert np.array_equal(message.arrays[0], sent[::-1])


@each_transport
def test_arrays_may_be_overwritten_as_soon_as_they_are_sent(transport: str) -> None:
    with members_of(transport, 2) as (a, b):
        array = np.ones(200_000, np.float32)
        a.send("b", "k", arrays=[array])
        array[:] = 0
        got = b.receive(deadline=soon()).arrays[0]
        assert (got == 1).all()
        got[:] = 2  # the receiver's own
        assert not array.any()


@each_transport
def test_messages_are_picked_by_key_and_by_peer_oldest_first(transport: str) -> None:
    with members_of(transport, 3) as (a, b, c):
        for number in range(2):
            a.send("c", "x", {"n": number})
            a.send("c", "y", {"n": number})
        b.send("c", "y", {"n": 9})
        a.send("c", "end")
        b.send("c", "end")
        for peer in "ab":
            c.receive(key="end", peer=peer, deadline=soon())
        assert c.receive(key="y", peer="a", deadline=soon()).head == {"n": 0}
        assert c.receive(key="y", peer="b", deadline=soon()).head == {"n": 9}
        assert c.receive(peer="a", deadline=soon())[:3] == ("a", "x", {"n": 0})
        assert c.receive(key="y", deadline=soon()).head == {"n": 1}
        assert c.receive(deadline=soon())[:3] == ("a", "x", {"n": 1})


@each_transport
def test_what_does_not_come_is_waited_for_until_the_deadline(transport: str) -> None:
    with members_of(transport, 2) as (a, b):
        b.send("a", "other")
        for key, peer in ((None, "c"), ("k", None), ("k", "b")):
            with pytest.raises(DeadlineError, match="came in time"):
                a.receive(key=key, peer=peer, deadline=time.monotonic() + 0.01)
        assert a.receive(deadline=time.monotonic() + 30).key == "other"


@each_transport
def test_several_threads_send_and_receive_at_once(transport: str) -> None:
    with members_of(transport, 3) as (a, b, c), ThreadPoolExecutor(8) as pool:
        for number in range(20):
            for member in (a, b):
                pool.submit(member.send, "c", f"k{number}", {"number": number})
        waiting = [
            pool.submit(c.receive, key=f"k{number}", peer=peer, deadline=soon())
            for number in range(20)
            for peer in "ab"
        ]
        assert [done.result().head["number"] for done in waiting] == sorted([*range(20)] * 2)


@each_transport
def test_messages_go_to_peers_that_were_found_only(transport: str) -> None:
    with members_of(transport, 2) as (a, _):
        with pytest.raises(PeerError, match=r"z: was not found yet.*address"):
            a.send("z", "k")
        with pytest.raises(InputError, match="itself"):
            a.send("a", "k")
        with pytest.raises(InputError, match="no key"):
            a.send("b", LOST)
        with pytest.raises(InputError, match="float64"):
            a.send("b", "k", arrays=[np.zeros(1)])


@each_transport
def test_who_waits_learns_that_a_peer_was_lost(transport: str) -> None:
    with members_of(transport, 3) as (a, b, c), ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(a.receive, key="k", peer="b", deadline=soon()),
            pool.submit(a.receive, key="k", watch=["b", "c"], deadline=soon()),
            pool.submit(a.receive, key="k", peer="c", watch=["b"], deadline=soon()),
        ]
        others = pool.submit(c.receive, key=LOST, deadline=soon())
        b.close()
        for done in waiting:
            with pytest.raises(PeerLostError, match="b: was lost: ") as caught:
                done.result()
            assert caught.value.peer == "b"
        message = others.result()
        assert message.peer == "b" and message.head["why"]
        with pytest.raises(PeerLostError):
            a.send("b", "k")
        a.send("c", "k")
        assert c.receive(key="k", deadline=soon()).peer == "a"


@each_transport
def test_what_arrived_before_its_sender_was_lost_is_given_out(transport: str) -> None:
    with members_of(transport, 2) as (a, b):
        b.send("a", "k")
        a.receive(key="k", deadline=soon())
        b.send("a", "last")
        b.send("a", "last")
        a.receive(key="last", deadline=soon())
        a.receive(key="last", peer="b", deadline=soon())
        b.close()
        assert a.receive(key=LOST, peer="b", deadline=soon()).peer == "b"
        with pytest.raises(PeerLostError):
            a.receive(key="k", peer="b", deadline=soon())


@each_transport
def test_who_closes_ends_its_own_waits(transport: str) -> None:
    with members_of(transport, 2) as (a, _), ThreadPoolExecutor(3) as pool:
        begun = threading.Barrier(4)

        def wait(receive: Callable[[Exchange], object]) -> None:
            begun.wait()
            receive(a)

        waiting = [pool.submit(wait, receive) for receive in WAITS]
        begun.wait()
        a.close()
        a.close()
        for done in waiting:
            with pytest.raises(ClosedError):
                done.result()
        with pytest.raises(ClosedError):
            a.send("b", "k")
        with pytest.raises(ClosedError):
            a.receive(key=FOUND, deadline=None)


@each_transport
def test_forgotten_keys_are_dropped_and_end_whoever_waits_for_them(transport: str) -> None:
    with members_of(transport, 2) as (a, b), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.receive, key="run", deadline=soon())
        b.send("a", "other", {"n": 0})
        a.receive(key="other", deadline=soon())
        a.forget("run")
        with pytest.raises(ClosedError, match="'run': was given up"):
            waiting.result()
        b.send("a", "run", arrays=[np.zeros(100_000, np.float32)])
        b.send("a", "other", {"n": 1})
        assert a.receive(deadline=soon()).head == {"n": 1}
        with pytest.raises(ClosedError):
            a.receive(key="run", peer="b", deadline=soon())
