"""A device that says it is a worker, and answers whatever a test likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from sti.devices.commands import DROP, ECHO, HELLO, PREPARE, RUN
from sti.exchange.interface import FOUND, LOST, Message
from sti.exchange.threads import ThreadExchange, thread_exchanges
from tests.support.devices import CONTROLLER, facts_of, machine
from tests.support.packs import tiny_pack
from tests.support.processes import WAIT_S
from tests.support.raw_controllers import WORKER

Answer = tuple[Mapping[str, Any], Sequence[NDArray[Any]]]


@contextmanager
def raw_worker(
    head: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda head: head,
    run: Callable[[Message], Answer | None] = lambda asked: None,
) -> Iterator[ThreadExchange]:
    """A device that has a tiny pack; the exchange of its controller.

    Args:
        head: makes of each head that a worker would answer what this one answers.
        run: what it answers to a run; None for nothing.
    """
    exchanges = thread_exchanges([CONTROLLER, WORKER])
    worker = exchanges[WORKER]
    with machine(tiny_pack()) as at_work:
        sound = {"is": HELLO, "facts": facts_of(at_work.reader).to_json()}

    def serve() -> None:
        while True:
            message = worker.receive(deadline=time.monotonic() + WAIT_S)
            if message.key == LOST:
                return
            asked = message.head.get("do")
            if message.key == FOUND or asked == DROP:
                continue
            answer: Answer | None = (head({"is": asked}), ())
            if asked == HELLO:
                answer = (head(dict(sound)), ())
            elif asked == PREPARE:
                answer = (head({"is": PREPARE, "memory_bytes": 1}), ())
            elif asked == ECHO:
                answer = (head({"is": ECHO}), message.arrays)
            elif asked == RUN:
                answer = run(message)
            if answer is not None:
                worker.send(CONTROLLER, message.key, *answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield exchanges[CONTROLLER]
    finally:
        exchanges[CONTROLLER].close()
        thread.join()
        worker.close()
