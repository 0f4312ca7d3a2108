"""A device that says it is a worker, and answers whatever a test likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from sti.devices.commands import DROP, ECHO, HELLO, RUN
from sti.exchange.interface import FOUND, LOST, Message
from sti.exchange.threads import ThreadExchange, thread_exchanges
from tests.support.devices import CONTROLLER, facts_of, machine
from tests.support.packs import tiny_pack
from tests.support.processes import WAIT_S
from tests.support.raw_controllers import WORKER

Answer = tuple[Mapping[str, Any], Sequence[NDArray[Any]]]


@contextmanager
def raw_worker(
    head: Callable[[dict[str, Any]], Mapping[str, Any] | None] = lambda head: head,
    run: Callable[[Message], Answer | None] = lambda asked: None,
) -> Iterator[ThreadExchange]:
    """A device that has a tiny pack; the exchange of its controller.

    Args:
        head: makes of each head that a worker would answer what this one answers; None: nothing.
        run: what it answers to a run; None for nothing.
    """
    exchanges = thread_exchanges([CONTROLLER, WORKER])
    worker = exchanges[WORKER]
    with machine(tiny_pack()) as at_work:
        hello = {"is": HELLO, "facts": facts_of(at_work.reader).to_json()}

    def serve() -> None:
        while True:
            message = worker.receive(deadline=time.monotonic() + WAIT_S)
            if message.key == LOST:
                return
            asked = message.head.get("do")
            if message.key == FOUND or asked == DROP:
                continue
            if asked == RUN:
                answer = run(message)
            else:
                sound = hello if asked == HELLO else {"is": asked}
                said = head(dict(sound))
                answer = None if said is None else (said, message.arrays if asked == ECHO else ())
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
