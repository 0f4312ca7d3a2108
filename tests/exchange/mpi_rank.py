"""What each rank of an MPI job does: ``mpiexec -n 4 python -m tests.exchange.mpi_rank PART``.

Writes a line of JSON, or fails; the test that started it looks at both.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import mpi4py
import numpy as np

from sti.errors import ClosedError, DeadlineError, InputError, PeerError, PeerLostError
from sti.exchange.interface import FOUND, LOST, Exchange
from tests.exchange.mpi_work import collected, soon

MPI_RANKS = 4


def failing(kind: type[Exception], act: object) -> str:
    """What an error of this kind says."""
    assert callable(act)
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def contract(thread_level: str) -> None:
    """The promises of ``Exchange``, and what members collect."""
    mpi4py.rc.thread_level = thread_level
    from mpi4py import MPI

    from sti.exchange.mpi import MpiExchange

    floods = MPI_RANKS - 1
    rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    assert (MPI.Query_thread() == MPI.THREAD_MULTIPLE) == (thread_level == "multiple")
    exchange = MpiExchange(most_bytes=400_000_000 if rank == floods else 40_000_000)
    assert exchange.name == f"rank{rank}"
    others = [f"rank{other}" for other in range(MPI_RANKS) if other != rank]
    for other in others:
        exchange.receive(key=FOUND, peer=other, deadline=soon())
    found = {
        count: [hashlib.sha256(part).hexdigest() for part in collected(exchange, count, rank)]
        for count in range(1, MPI_RANKS + 1)
        if rank < count
    }
    large_messages_arrive_in_order(exchange, others)
    what_cannot_be_is_refused(exchange, others)
    (closes, is_closed_on, is_flooded, floods_another)[rank](exchange)
    if thread_level == "multiple":
        who_waits_is_woken_by_who_closes(exchange)
    exchange.close()
    print(json.dumps({"rank": rank, "found": found}), flush=True)


def large_messages_arrive_in_order(exchange: Exchange, others: list[str]) -> None:
    for number in range(6):
        array = np.full(500_000, number, np.float32)
        for other in others:
            exchange.send(other, f"k{number % 2}", {"n": number}, [array])
        array[:] = -1
    for other in others:
        for key in ("k1", "k0"):
            for number in range(int(key[1]), 6, 2):
                message = exchange.receive(key=key, peer=other, deadline=soon())
                assert message[:3] == (other, key, {"n": number}), message[:3]
                assert (message.arrays[0] == number).all()


def what_cannot_be_is_refused(exchange: Exchange, others: list[str]) -> None:
    late = failing(DeadlineError, lambda: exchange.receive(key="k", deadline=time.monotonic()))
    assert "no message 'k' came in time" in late
    exchange.forget("gone")
    failing(ClosedError, lambda: exchange.receive(key="gone", deadline=None))
    failing(PeerError, lambda: exchange.send("rank9", "k"))
    failing(InputError, lambda: exchange.send(exchange.name, "k"))
    failing(InputError, lambda: exchange.send(others[0], "k", arrays=[np.zeros(1)]))


def closes(exchange: Exchange) -> None:
    exchange.send("rank1", "last")
    exchange.close()
    exchange.close()
    failing(ClosedError, lambda: exchange.send("rank1", "k"))
    failing(ClosedError, lambda: exchange.receive(deadline=None))


def is_closed_on(exchange: Exchange) -> None:
    exchange.receive(key="last", peer="rank0", deadline=soon())
    said = failing(PeerLostError, lambda: exchange.receive(key="k", peer="rank0", deadline=soon()))
    assert "rank0: was lost: it was closed" in said


def floods_another(exchange: Exchange) -> None:
    with suppress(PeerLostError):  # it may be told at once
        for number in range(6):
            exchange.send("rank2", "flood", {"n": number}, [np.zeros(2_500_000, np.float32)])
    lost = exchange.receive(key=LOST, peer="rank2", deadline=soon())
    assert "rank3 sent more than rank2 has room for" in lost.head["why"]
    failing(PeerLostError, lambda: exchange.send("rank2", "k"))


def is_flooded(exchange: Exchange) -> None:
    assert "room" in exchange.receive(key=LOST, peer="rank3", deadline=soon()).head["why"]
    came: list[int] = []
    try:
        while True:  # what had come before is given out
            message = exchange.receive(key="flood", peer="rank3", deadline=soon())
            came.append(message.head["n"])
    except PeerLostError:
        assert came == list(range(len(came))) and len(came) <= 4, came


def who_waits_is_woken_by_who_closes(exchange: Exchange) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange.receive, key="k", deadline=None)
        exchange.close()
        failing(ClosedError, waiting.result)


def death(_: str) -> None:
    """A rank dies, another waits for it without a deadline, and large messages are under way."""
    from sti.exchange.mpi import MpiExchange

    exchange = MpiExchange()
    exchange.receive(key=FOUND, deadline=soon())
    if exchange.name == "rank1":
        exchange.receive(key="ready", deadline=soon())
        os.kill(os.getpid(), signal.SIGKILL)
    exchange.send("rank1", "ready")
    exchange.send("rank1", "large", arrays=[np.zeros(9_000_000, np.float32)])
    exchange.receive(key="k", peer="rank1", deadline=None)


if __name__ == "__main__":
    {"contract": contract, "death": death}[sys.argv[1]](sys.argv[2])
