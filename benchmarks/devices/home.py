"""Emulated devices at work: workers and a controller, each a process on a network of its own.

    with Home(packed, kinds, Joined(125.0)) as home:
        home.open("chain", "chain")
        home.ask("run", name="chain", texts=["a text"])

In: what each device is, how they are joined. Out: answers of the controller, counts of workers.
Keys are made for them, and messages are encrypted, as between any devices.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple, Protocol, Self

from benchmarks.child_process import start_child
from benchmarks.devices import controller, worker
from benchmarks.devices.kinds import Counted, Kind
from benchmarks.devices.packed import Packed
from benchmarks.free_ports import free_ports
from benchmarks.network.namespaces import Network
from sti.exchange.zeromq.keys import make_keys

_PORT = 7311
_END_S = 10.0
_ANSWERS_S = 300.0
_MOST_SAID = 2000
_ENGINES = ("first", "second", "third")
"""Names of more controllers on the same device: a worker knows each by its key."""


class Joined(NamedTuple):
    """How devices are joined."""

    mbit: float
    shared: bool = False
    delay_s: float = 0.5e-3

    @property
    def words(self) -> str:
        """For tables: ``300 Mbit, one medium``."""
        return f"{self.mbit:g} Mbit{', one medium' if self.shared else ''}"


class Place(Protocol):
    """Where processes of devices run: ``Network``, or ``OnThisMachine``."""

    def address(self, device: int) -> str:
        """Of a device."""

    def run(self, device: int, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a process on a device."""


class OnThisMachine:
    """All devices on this machine's loopback: for what needs no network."""

    def address(self, device: int) -> str:
        """The same for all."""
        return "127.0.0.1"

    def run(self, device: int, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a process."""
        return subprocess.Popen(list(argv), **popen)


class Child:
    """A process that answers lines of JSON with lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], errors: Any) -> None:
        self._process, self._errors = process, errors

    def ready(self) -> dict[str, Any]:
        """Wait for its first line."""
        return self._answer(_ANSWERS_S)

    def ask(self, question: dict[str, Any], *, within_s: float = _ANSWERS_S) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            RuntimeError: it failed, ended, or took too long; says what it wrote.
        """
        stdin = self._process.stdin
        assert stdin is not None, "it was asked for"
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
        except OSError:
            pass  # it ended, as the answer shows
        return self._answer(within_s)

    def end(self) -> None:
        """Let it end by itself, or end it."""
        process = self._process
        try:
            assert process.stdin is not None, "it was asked for"
            process.stdin.close()
            process.wait(_END_S)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait(_END_S)
        finally:
            assert process.stdout is not None, "it was asked for"
            process.stdout.close()

    @property
    def said(self) -> str:
        """The end of what it wrote on standard error."""
        self._errors.seek(0)
        return str(self._errors.read()[-_MOST_SAID:])

    def _answer(self, within_s: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None, "it was asked for"
        late = Timer(within_s, self._process.kill)
        late.start()
        try:
            line = stdout.readline()
        finally:
            late.cancel()
        if not line:
            raise RuntimeError(f"a device ended or was too late: {self.said}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RuntimeError(f"{found['error']}; it wrote: {self.said}")
        return found


class Home:
    """A controller and workers; a context manager.

    Args:
        packed: the pack of all, and profiles of devices.
        kinds: of the controller, then of each worker.
        joined: how; None: on this machine's loopback.
        link_type: how hidden states travel.
        preload_bytes: that each worker holds.

    Raises:
        NoNetwork: there can be none here.
    """

    def __init__(
        self,
        packed: Packed,
        kinds: Sequence[Kind],
        joined: Joined | None,
        *,
        link_type: str = "float32",
        preload_bytes: int = 0,
    ) -> None:
        self._packed, self._kinds = packed, tuple(kinds)
        self._joined, self._link_type = joined, link_type
        self._preload_bytes = preload_bytes
        self._stack = ExitStack()
        self._engines: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sti-devices-")))
            place: Place = OnThisMachine()
            ports: Iterator[int] = free_ports()
            if self._joined is not None:
                mbit, shared, delay_s = self._joined
                network = Network(len(self._kinds), mbit=mbit, shared=shared, delay_s=delay_s)
                place, ports = stack.enter_context(network), repeat(_PORT)
            self._keys = folder / "keys"
            make_keys(self._keys, [*self.names, *_ENGINES])
            addresses = [f"{place.address(n)}:{next(ports)}" for n in range(1, len(self._kinds))]
            config = folder / "devices.toml"
            config.write_text(self._config(addresses), encoding="utf-8")
            self._workers = [
                self._started(stack, place, number, "worker", self._worker(number, address))
                for number, address in enumerate(addresses, 1)
            ]
            asked = controller.Asked(
                str(self._packed.path),
                str(self._packed.profile_of(self._kinds[0])),
                str(config),
                self._kinds[0].times,
                self._kinds[0].storage,
            )
            self._controller = self._started(stack, place, 0, "controller", asked._asdict())
            for child in (*self._workers, self._controller):
                child.ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """Of the workers."""
        return [f"w{number}" for number in range(1, len(self._kinds))]

    def open(self, name: str, strategy: str) -> float:
        """Open one more engine on the controller; the seconds it took."""
        keys = None
        if strategy != "local":
            taken = len(self._engines)
            # Each engine that talks to workers is another controller to them.
            keys = str(self._keys if not taken else self._keys / _ENGINES[taken - 1])
            self._engines.append(name)
        found = self.ask("open", name=name, strategy=strategy, keys=keys)
        return float(found["seconds"])

    def ask(self, do: str, **question: Any) -> dict[str, Any]:
        """Ask the controller (``benchmarks.devices.controller``).

        Raises:
            RuntimeError: it failed.
        """
        return self._controller.ask({"do": do, **question})

    def run(self, name: str, texts: Sequence[str]) -> controller.Ran:
        """Run texts through an engine of the controller."""
        return controller.Ran(**self.ask("run", name=name, texts=list(texts)))

    def price(self, name: str, *, texts: int, tokens: int) -> list[controller.Priced]:
        """Every strategy, as an engine of the controller prices it now."""
        found = self.ask("price", name=name, texts=texts, tokens=tokens)
        return [controller.Priced(**item) for item in found["strategies"]]

    def stages(
        self,
        texts: Sequence[str],
        stages: Sequence[tuple[str, int, int]],
        *,
        units: int = 1,
    ) -> list[str]:
        """The bits of each text's answer, computed by these stages."""
        found = self.ask(
            "stages",
            keys=str(self._keys / _ENGINES[-1]),
            texts=list(texts),
            stages=list(stages),
            units=units,
            link_type=self._link_type,
        )
        return list(found["digests"])

    def digests(self, name: str, texts: Sequence[str]) -> list[str]:
        """The bits of each text's answer, run together through an engine."""
        return list(self.ask("digests", name=name, texts=list(texts))["digests"])

    def counted(self) -> dict[str, Counted]:
        """What each device has read since this was asked last."""
        found = {"local": Counted(**self.ask("counted"))}
        for name, child in zip(self.names, self._workers, strict=True):
            found[name] = Counted(**child.ask({}))
        return found

    @property
    def said(self) -> str:
        """What the controller and its workers wrote on standard error."""
        return "\n".join(child.said for child in (self._controller, *self._workers))

    def _worker(self, number: int, address: str) -> dict[str, Any]:
        kind = self._kinds[number]
        return worker.Asked(
            str(self._packed.path),
            str(self._packed.profile_of(kind)),
            str(self._keys / self.names[number - 1]),
            address,
            kind.times,
            kind.storage,
            self._preload_bytes,
        )._asdict()

    def _config(self, addresses: Sequence[str]) -> str:
        devices = [
            f'[devices.{name}]\naddress = "{address}"\n'
            for name, address in zip(self.names, addresses, strict=True)
        ]
        return "".join([*devices, f'[links]\nnumbers = "{self._link_type}"\n'])

    def _started(
        self, stack: ExitStack, place: Place, number: int, module: str, asked: dict[str, Any]
    ) -> Child:
        process, errors = start_child(
            partial(place.run, number), f"{__package__}.{module}", json.dumps(asked)
        )
        stack.callback(errors.close)
        child = Child(process, errors)
        stack.callback(child.end)
        return child
