"""Peers that are killed, frozen, closed, or start again: both sides learn it, and nothing hangs.

How fast is measured by ``benchmarks/devices_exchange.py``; here times are bounded generously, since
the machine may be busy.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sti.errors import PeerError, PeerLostError
from sti.exchange.interface import FOUND, LOST
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys, make_keys
from tests.exchange.members import soon
from tests.support.paths import ROOT
from tests.support.processes import ended

SOON_S = 8.0
"""Within which a loss is told: ten times what it takes where nothing else runs."""
LOCAL = "127.0.0.1:0"


class Child:
    """A member in a process of its own, which echoes."""

    def __init__(self, **options: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.exchange.zeromq.member", json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.address = str(self.said()["address"])

    def said(self) -> dict[str, Any]:
        """The next line that it wrote."""
        assert self.process.stdout is not None
        found = json.loads(self.process.stdout.readline())
        assert isinstance(found, dict)
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def closed() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def child(closed: ExitStack, **options: object) -> Child:
    made = Child(**options)
    closed.callback(made.end)
    return made


def pair(closed: ExitStack, folder: Path, listens: str) -> tuple[ZmqExchange, Child]:
    """This process's member and another process's, which have found one another."""
    make_keys(folder, ["board"])
    keys = Keys.load(folder)
    if listens == "this one":
        here = closed.enter_context(closing(ZmqExchange("controller", listen=LOCAL, keys=keys)))
        peers = {"controller": here.address}
        there = child(closed, name="board", peers=peers, keys=str(folder / "board"))
    else:
        there = child(closed, name="board", listen=LOCAL, keys=str(folder / "board"))
        peers = {"board": there.address}
        here = closed.enter_context(closing(ZmqExchange("controller", peers=peers, keys=keys)))
    here.receive(key=FOUND, peer="board", deadline=soon())
    assert there.said()["key"] == FOUND
    return here, there


@pytest.mark.parametrize("listens", ["this one", "the other"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_peer_that_is_killed_or_frozen_is_lost_on_both_sides(
    tmp_path: Path, closed: ExitStack, listens: str, how: signal.Signals
) -> None:
    here, there = pair(closed, tmp_path / "keys", listens)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(here.receive, key="k", peer="board", deadline=soon())
        begun_s = time.monotonic()
        there.process.send_signal(how)
        with pytest.raises(PeerLostError, match=r"board: was lost: its connection ended"):
            waiting.result()
    assert time.monotonic() - begun_s < SOON_S
    assert here.receive(key=LOST, deadline=soon()).peer == "board"
    if how == signal.SIGSTOP:
        there.process.send_signal(signal.SIGCONT)
        lost = there.said()
        assert (lost["key"], lost["peer"]) == (LOST, "controller")
        # It finds its way back.
        assert here.receive(key=FOUND, deadline=soon()).peer == "board"
        assert there.said()["key"] == FOUND
        here.send("board", "again")
        assert here.receive(key="again", deadline=soon()).peer == "board"


def test_what_was_meant_for_a_lost_peer_does_not_reach_the_one_that_comes_back(
    tmp_path: Path, closed: ExitStack
) -> None:
    here, there = pair(closed, tmp_path / "keys", "the other")
    there.process.send_signal(signal.SIGSTOP)
    large = np.zeros(1 << 20, np.float32)
    for _ in range(8):  # more than ZeroMQ and the system hold
        here.send("board", "old", arrays=[large])
    there.process.send_signal(signal.SIGKILL)
    here.receive(key=LOST, deadline=soon())
    with pytest.raises(PeerLostError):
        here.send("board", "old")
    keys = str(tmp_path / "keys" / "board")
    child(closed, name="board", listen=there.address, keys=keys)
    here.receive(key=FOUND, peer="board", deadline=soon())
    here.send("board", "new", {"n": 1}, [np.arange(3, dtype=np.int32)])
    message = here.receive(peer="board", deadline=soon())
    assert message[:3] == ("board", "new", {"n": 1})
    assert message.arrays[0].tolist() == [0, 1, 2]


def test_more_than_a_frozen_peer_takes_is_refused_and_not_kept(
    tmp_path: Path, closed: ExitStack
) -> None:
    there = child(closed, name="b", listen=LOCAL, silence_s=60)
    here = ZmqExchange("a", peers={"b": there.address}, silence_s=60, most_bytes=20_000_000)
    closed.callback(here.close)
    here.receive(key=FOUND, deadline=soon())
    there.process.send_signal(signal.SIGSTOP)

    def send_much() -> None:
        for _ in range(20):  # ZeroMQ and the system hold some 12 MB
            here.send("b", "k", arrays=[np.zeros(4_000_000, np.int8)])

    with pytest.raises(PeerError, match=r"b: takes in less than it is sent.* 20000000 bytes"):
        send_much()
    here.send("b", "small")


@pytest.mark.parametrize("listens", ["this one", "the other"])
def test_a_peer_that_closes_or_is_closed_on_is_told(
    tmp_path: Path, closed: ExitStack, listens: str
) -> None:
    here, there = pair(closed, tmp_path / "keys", listens)
    here.send("board", "echo", {"last": True})
    here.receive(key="echo", deadline=soon())
    here.close()
    assert there.said()["key"] == LOST
    assert there.process.poll() is None


def test_a_listener_that_starts_again_is_found_again_and_again(closed: ExitStack) -> None:
    b = ZmqExchange("b", listen=LOCAL)
    a = closed.enter_context(closing(ZmqExchange("a", peers={"b": str(b.address)})))
    for _ in range(3):
        a.receive(key=FOUND, peer="b", deadline=soon())
        b.receive(key=FOUND, peer="a", deadline=soon())
        a.send("b", "k")
        assert b.receive(key="k", peer="a", deadline=soon()).peer == "a"
        b.close()
        a.receive(key=LOST, peer="b", deadline=soon())
        b = ZmqExchange("b", listen=b.address)
    b.close()


def test_a_peer_that_connects_again_is_found_again(closed: ExitStack) -> None:
    b = closed.enter_context(closing(ZmqExchange("b", listen=LOCAL)))
    for _ in range(3):
        with closing(ZmqExchange("a", peers={"b": str(b.address)})) as a:
            a.receive(key=FOUND, peer="b", deadline=soon())
            b.receive(key=FOUND, peer="a", deadline=soon())
            a.send("b", "last", {"before": "it closes"})
            assert b.receive(key="last", peer="a", deadline=soon()).head
        b.receive(key=LOST, peer="a", deadline=soon())


def test_everybody_who_waits_or_sends_as_it_closes_is_told(closed: ExitStack) -> None:
    most = 1 << 30  # of small messages: none is refused for want of room before it closes
    b = closed.enter_context(closing(ZmqExchange("b", listen=LOCAL, most_bytes=most)))
    a = ZmqExchange("a", peers={"b": str(b.address)}, most_bytes=most)
    a.receive(key=FOUND, deadline=soon())
    begun, outcomes = threading.Barrier(5), queue.SimpleQueue[str]()

    def work(number: int) -> None:
        begun.wait()
        try:
            while True:
                if number % 2:
                    a.receive(key="k", deadline=soon())
                else:
                    a.send("b", "other")
        except Exception as error:
            outcomes.put(type(error).__name__)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    begun.wait()
    b.receive(key="other", deadline=soon())
    a.close()
    for worker in workers:
        worker.join()
    assert {outcomes.get(timeout=30) for _ in workers} == {"ClosedError"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_closes_nothing_of_its_parents(closed: ExitStack) -> None:
    code = """
import os, sys, time
from sti.exchange.zeromq.exchange import ZmqExchange
b = ZmqExchange("b", listen="127.0.0.1:0")
a = ZmqExchange("a", peers={"b": b.address})
a.receive(key="found", deadline=time.monotonic() + 30)
if os.fork() == 0:
    a.close()
    try:
        a.send("b", "k")
    except Exception as error:
        os._exit("forked" in str(error))
    os._exit(9)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
a.send("b", "k")
assert b.receive(key="k", deadline=time.monotonic() + 30).peer == "a"
print("whole")
"""
    # Neither is closed: the process ends all the same.
    done = ended(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
