"""The mailbox: what it keeps of whom, and for how long."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sti.errors import ClosedError, DeadlineError, PeerLostError, RunError
from sti.exchange.interface import FOUND, LOST, Message
from sti.exchange.mailbox import MOST_FORGOTTEN, Mailbox
from sti.exchange.threads import thread_exchanges
from tests.support.processes import forked


def message(peer: str, key: str = "k") -> Message:
    return Message(peer, key, {}, ())


def received(mailbox: Mailbox, key: str | None = None, peer: str | None = None) -> Message:
    return mailbox.receive(key=key, peer=peer, watch=(), deadline=time.monotonic())


def test_one_peer_cannot_take_the_room_of_another() -> None:
    mailbox = Mailbox("a", most_bytes=1000)
    assert mailbox.put(message("b"), 600)
    assert not mailbox.has_room("b", 401) and not mailbox.put(message("b"), 401)
    assert mailbox.put(message("b"), 400) and mailbox.put(message("c"), 1000)
    received(mailbox, peer="b")
    assert mailbox.put(message("b"), 600) and not mailbox.put(message("b"), 1)


def test_forgotten_messages_give_their_room_back() -> None:
    mailbox = Mailbox("a", most_bytes=10)
    mailbox.put(message("b", "x"), 9)
    mailbox.forget("x")
    assert not mailbox.wants("x") and mailbox.has_room("b", 10)
    assert mailbox.put(message("b", "x"), 9) and mailbox.has_room("b", 10)


def test_as_many_keys_stay_forgotten_as_is_said() -> None:
    mailbox = Mailbox("a")
    for number in range(MOST_FORGOTTEN + 1):
        mailbox.forget(str(number))
        mailbox.forget("1")  # forgotten last, again and again
    assert mailbox.wants("0") and not mailbox.wants("1") and not mailbox.wants("3")


def test_a_loss_stays_told_until_somebody_has_received_it_and_the_peer_is_back() -> None:
    mailbox = Mailbox("a")
    mailbox.found("b")
    received(mailbox, FOUND)
    mailbox.lost("b", "it was killed")
    mailbox.found("b")
    mailbox.check_peer("b")  # it is there again
    for _ in range(2):
        with pytest.raises(PeerLostError, match="it was killed"):
            received(mailbox, "k", "b")
    assert received(mailbox, LOST).head == {"why": "it was killed"}
    assert received(mailbox, FOUND).peer == "b"
    with pytest.raises(DeadlineError):
        received(mailbox, "k", "b")


def test_a_lost_peer_can_be_waited_for() -> None:
    mailbox = Mailbox("a")
    mailbox.found("b")
    mailbox.lost("b", "it was killed")
    received(mailbox, FOUND)
    received(mailbox, LOST)
    with pytest.raises(PeerLostError):
        received(mailbox, "k", "b")
    with pytest.raises(DeadlineError):
        received(mailbox, FOUND, "b")


def test_a_peer_that_comes_and_goes_leaves_two_messages_at_most() -> None:
    mailbox = Mailbox("a")
    for number in range(9):
        mailbox.found("b")
        mailbox.lost("b", str(number))
        mailbox.lost("b", "it was lost already")
    mailbox.lost("c", "it was never there")
    assert [received(mailbox)[1:3] for _ in range(2)] == [(FOUND, {}), (LOST, {"why": "8"})]
    with pytest.raises(DeadlineError):
        received(mailbox)


def test_a_closed_mailbox_keeps_nothing() -> None:
    mailbox = Mailbox("a")
    mailbox.put(message("b"), 1)
    mailbox.close()
    mailbox.close()
    assert mailbox.is_closed and not mailbox.wants("k")
    with pytest.raises(ClosedError, match="a: this exchange was closed"):
        received(mailbox)


def test_a_peer_that_floods_and_its_receiver_lose_one_another() -> None:
    members = thread_exchanges("ab", most_bytes=1_000_000)
    a, b = members["a"], members["b"]
    big = [np.zeros(400_000, np.int8)]
    a.send("b", "k", arrays=big)
    a.send("b", "k", arrays=big)
    with pytest.raises(PeerLostError, match="a sent more than b has room for"):
        a.send("b", "k", arrays=big)
    assert "room" in b.receive(key=LOST, deadline=None).head["why"]
    assert len([b.receive(key="k", deadline=None) for _ in range(2)]) == 2


def test_a_member_that_was_killed_comes_again() -> None:
    members = thread_exchanges("ab")
    a, b = members["a"], members["b"]
    a.receive(key=FOUND, deadline=None)
    b.kill()
    assert a.receive(key=LOST, deadline=None).head == {"why": "it was killed"}
    with pytest.raises(ClosedError):
        b.send("a", "k")
    again = b.again()
    assert a.receive(key=FOUND, deadline=None).peer == "b"
    a.send("b", "k")
    assert again.receive(key="k", deadline=None).peer == "a"
    b.close()  # the one that was killed: changes nothing
    a.send("b", "k")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_instead_of_hanging() -> None:
    members = thread_exchanges("ab")

    def child() -> None:
        for act in (
            lambda: members["a"].receive(deadline=None),
            lambda: members["a"].send("b", "k"),
            lambda: members["a"].forget("k"),
        ):
            with pytest.raises(RunError, match="forked"):
                act()
        members["a"].close()

    assert forked(child) == 0
    members["a"].send("b", "k")  # the parent's is as it was
