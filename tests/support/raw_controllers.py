"""A worker in a thread, and members that tell it whatever a test likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.interface import Backend
from sti.device.lanes import PIPELINED
from sti.devices import commands
from sti.devices.commands import HELLO, Prepare, Run, ask_key, run_key
from sti.devices.facts import Facts
from sti.devices.worker import Worker
from sti.exchange.interface import Message
from sti.exchange.threads import ThreadExchange, thread_exchanges
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.links import FLOAT32
from sti.planning.plan import Plan, PlanRequest
from sti.planning.stages import layers_of
from sti.planning.uniform import uniform_plan
from tests.support.devices import CONTROLLER, facts_of, machine
from tests.support.processes import WAIT_S

WORKER, OTHER = "a", "b"
_SESSION = "0123456789abcdef"


class RawController:
    """A member that has said hello, or not, and sends what it is told to.

    Args:
        exchange: of the member.
        reader: of the worker's pack.
    """

    def __init__(self, exchange: ThreadExchange, reader: PackReader) -> None:
        self.exchange, self._reader = exchange, reader
        self._asked = self._number = 0
        self.session = _SESSION
        self.facts = facts_of(reader)
        self.told: list[str] = []
        """By the worker."""

    def send(
        self, head: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = (), *, key: str = ""
    ) -> str:
        """Send something; the key of the answer."""
        self._asked += 1
        key = key or ask_key(self.session, self._asked)
        self.exchange.send(WORKER, key, head, arrays)
        return key

    def answer(self, key: str) -> Message:
        """What the worker says."""
        deadline = time.monotonic() + WAIT_S
        return self.exchange.receive(key=key, peer=WORKER, deadline=deadline)

    def ask(
        self, head: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = (), *, key: str = ""
    ) -> Mapping[str, Any]:
        """Send something; the head of the answer."""
        return self.answer(self.send(head, arrays, key=key)).head

    def refused(
        self, head: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = (), *, key: str = ""
    ) -> str:
        """Send something that is refused: why it is."""
        found = self.ask(head, arrays, key=key)
        assert found["is"] == commands.FAILED, found
        assert isinstance(found["why"], str)
        return found["why"]

    def hello(self) -> Mapping[str, Any]:
        """Say hello; what the worker is."""
        return self.ask({"do": HELLO, "facts": self.facts.to_json()})

    @property
    def plan(self) -> Plan:
        """A plan that the worker's pack takes."""
        pack_id = self._reader.part.pack_id if self._reader.part else self._reader.pack_id
        request = PlanRequest(self._reader.manifest, pack_id, Workload(1, 8))
        return replace(uniform_plan(request, bits=4), threads=PIPELINED)

    def wanted(self, **others: Any) -> Prepare:
        """What asks for all layers, unless something else is said."""
        plan = self.plan
        layers = layers_of(plan)
        whole = Prepare(
            part=0,
            plan=plan,
            first=layers[0],
            last=layers[-1],
            preloads=(0,) * len(plan.steps),
            threads=plan.threads,
            read_ahead=2,
            before="",
            after="",
            link_type=FLOAT32,
        )
        return whole._replace(**others)

    def prepare(self, **others: Any) -> Mapping[str, Any]:
        """Ask for a part; the answer."""
        wanted = self.wanted(**others)
        return self.ask(wanted.to_json(), wanted.plan_arrays)

    def wanted_back(self, part: int, *, before: str = OTHER) -> Prepare:
        """What asks for all layers but the first, whose hidden states come from elsewhere."""
        first = layers_of(self.plan)[1]
        count = sum(step.layer >= first for step in self.plan.steps)
        return self.wanted(part=part, first=first, before=before, preloads=(0,) * count)

    def back(self, part: int = 1, *, before: str = OTHER) -> Mapping[str, Any]:
        """Ask for all layers but the first; the answer."""
        return self.prepare(**self.wanted_back(part, before=before)._asdict())

    def next_run(self, *lengths: int, part: int = 0, wait_s: float = WAIT_S, **others: Any) -> Run:
        """The next run of texts of these lengths."""
        self._number += 1
        return Run(self._number, part, lengths or (4,), wait_s)._replace(**others)

    def run(self, run: Run, arrays: Sequence[NDArray[Any]] | None = None) -> Message:
        """Ask for a run of a first part; what comes of it."""
        given = text_arrays(sum(run.lengths)) if arrays is None else arrays
        return self.answer(self.send(run.to_json(), given, key=run_key(self.session, run.number)))

    def is_well(self) -> bytes:
        """Check that the worker does what it is asked for; the bits of the answer."""
        assert self.hello()["is"] == HELLO
        found = self.prepare()
        assert found["is"] == commands.PREPARE, found
        answer = self.run(self.next_run(3, 5))
        assert answer.head["is"] == commands.ANSWER, answer.head
        return answer.arrays[0].tobytes()


def text_arrays(tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and types of so many tokens."""
    return np.arange(5, 5 + tokens, dtype=np.int64) % 20 + 5, np.zeros(tokens, np.int64)


@contextmanager
def raw_controller(
    pack: Path,
    *,
    facts: Callable[[Facts], Facts] = lambda facts: facts,
    wrap: Callable[[Backend], Backend] = lambda backend: backend,
) -> Iterator[tuple[RawController, ThreadExchange]]:
    """A worker of a pack, a controller of it, and another device.

    Args:
        facts: makes of the worker's what it says of itself.
        wrap: makes of its back end what it computes with.
    """
    with ExitStack() as closed:
        exchanges = thread_exchanges([CONTROLLER, WORKER, OTHER])
        at_work = closed.enter_context(machine(pack, wrap=wrap))
        controller = RawController(exchanges[CONTROLLER], at_work.reader)
        worker = Worker(
            exchanges[WORKER],
            at_work.reader,
            at_work.runner,
            at_work.backend,
            facts(facts_of(at_work.reader)),
            connect=lambda *_: None,
            notify=controller.told.append,
        )
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                worker.serve()
            except BaseException as error:
                failed.append(error)
                exchanges[WORKER].kill()

        thread = threading.Thread(target=serve)
        thread.start()
        closed.callback(thread.join)
        for exchange in exchanges.values():
            closed.callback(exchange.close)
        yield controller, exchanges[OTHER]
    assert not failed, failed
