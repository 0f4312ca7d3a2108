"""Workers in threads, that may be slow, lost and back, and the exchange of their controller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sti.backend.interface import Backend
from sti.device.profile import DeviceProfile
from sti.devices.worker import Worker
from sti.engine.device_options import DeviceOptions
from sti.exchange.interface import Exchange
from sti.exchange.threads import ThreadExchange, thread_exchanges
from tests.support.devices import CONTROLLER, facts_of, machine
from tests.support.workers import PATIENT, Hooked, write_config


class Gate:
    """Stands in a worker's way: while it is shut, the worker computes nothing."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.reached = threading.Event()
        """Whether a worker has come to a shut gate."""
        self.steps = 0
        """That were computed."""

    def shut(self) -> None:
        """Let nobody through."""
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    def wrap(self, backend: Backend) -> Backend:
        """A back end behind it."""
        found: Any = _Behind(backend, self)
        return found  # type: ignore[no-any-return]

    def passed(self) -> None:
        """Somebody wants to go through."""
        if not self._open.is_set():
            self.reached.set()
            self._open.wait()


class _Behind:
    """A back end, or a state of it, behind a gate."""

    def __init__(self, inner: Any, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def start(self, *arguments: Any, **others: Any) -> Any:
        return _Behind(self._inner.start(*arguments, **others), self._gate)

    def resume(self, *arguments: Any, **others: Any) -> Any:
        return _Behind(self._inner.resume(*arguments, **others), self._gate)

    def step(self, *arguments: Any, **others: Any) -> None:
        self._gate.passed()
        self._inner.step(*arguments, **others)
        self._gate.steps += 1


class Threads:
    """Workers of these names; ``members`` are their exchanges, and the controller's."""

    def __init__(self, closed: ExitStack, pack: Path, names: str) -> None:
        self._closed, self._pack = closed, pack
        self.members: dict[str, ThreadExchange] = thread_exchanges([CONTROLLER, *names])
        self.controller = Hooked(self.members[CONTROLLER])

    def start(
        self,
        name: str,
        *,
        pack: Path | None = None,
        profile: DeviceProfile = PATIENT,
        gate: Gate | None = None,
        wrap: Callable[[Exchange], Exchange] = lambda exchange: exchange,
    ) -> None:
        """Start a worker.

        Args:
            pack: that it has, instead of the whole one.
            profile: what it says of itself.
            gate: stands in its way.
            wrap: makes of its exchange the one that it uses.
        """
        in_the_way = Gate() if gate is None else gate
        at_work = self._closed.enter_context(machine(pack or self._pack, wrap=in_the_way.wrap))
        worker = Worker(
            wrap(self.members[name]),
            at_work.reader,
            at_work.runner,
            at_work.backend,
            facts_of(at_work.reader, profile),
            connect=lambda *_: None,
            notify=lambda _: None,
        )
        thread = threading.Thread(target=worker.serve)
        thread.start()
        self._closed.callback(thread.join)
        self._closed.callback(self.members[name].close)
        self._closed.callback(in_the_way.open)

    def again(self, name: str) -> None:
        """Start a worker again that was killed."""
        self.members[name] = self.members[name].again()
        self.start(name)

    def options(self, folder: Path, names: str, strategy: str = "chain") -> DeviceOptions:
        """Of an engine with these devices."""
        config = folder / "devices.toml"
        write_config(config, {name: f"127.0.0.1:{7000 + ord(name)}" for name in names})
        return DeviceOptions(config, strategy=strategy, exchange=self.controller)


@contextmanager
def worker_threads(pack: Path, names: str) -> Iterator[Threads]:
    """Exchanges of workers that are to be started."""
    with ExitStack() as closed:
        found = Threads(closed, pack, names)
        for member in found.members.values():
            closed.callback(member.close)
        yield found
