"""Workers in processes of their own, as `sti worker` starts them, and what an engine makes of them.

Everything is on loopback, with keys that `sti devices init` made. A process writes into files, so
that tests that start one again hold no pipe of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.free_ports import free_ports
from sti import Engine
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.engine.device_options import DeviceOptions
from sti.engine.results import Result
from sti.exchange.interface import NOTHING, Exchange, Message
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys, make_keys
from tests.support.commands import ENVIRONMENT
from tests.support.packs import PROFILE
from tests.support.processes import until

SLOW = PROFILE.slowed({STORAGE: 1e5, DECODE: 1e5, COMPUTE: 1e5})
"""What a machine says of itself that leaves work to others where it can, whatever runs show."""
PATIENT = PROFILE.slowed({STORAGE: 300.0, DECODE: 300.0, COMPUTE: 300.0})
"""What workers say of themselves that runs are to wait for, however busy this machine is."""
LONG_S = 60.0
"""Only a test that fails takes so long."""


class WorkerProcess:
    """A worker that may be killed, frozen and started again, at the same address.

    Args:
        name: of its keys.
        folder: for what it says.
        address: where it listens; loopback if it is not said.
        within: makes of a command one that runs it somewhere else.
    """

    def __init__(
        self,
        name: str,
        pack: Path,
        keys: Path,
        folder: Path,
        *,
        address: str = "",
        within: Callable[[list[str]], list[str]] = list,
    ) -> None:
        self.name, self.address = name, address or f"127.0.0.1:{next(free_ports())}"
        self._said = folder / f"{name}.said"
        argv = ["worker", str(pack), "--listen", self.address, "--keys", str(keys)]
        self._argv = within([sys.executable, "-m", "sti", *argv])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        """All that it has written, also before it was started again."""
        return self._said.read_text("utf-8") if self._said.exists() else ""

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        before = self.said.count("listens at")
        with self._said.open("ab") as stream:
            self._process = subprocess.Popen(
                self._argv,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
            )
        until(lambda: self.said.count("listens at") > before or not self.runs)
        assert self.runs, self.said

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a device does that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LONG_S)

    def freeze(self) -> None:
        """Stop it where it is."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)


@contextmanager
def workers(packs: Mapping[str, Path], folder: Path, *others: str) -> Iterator[Home]:
    """Workers of these names, each with a pack of its own; they and their keys are in a folder.

    Args:
        others: names that get keys, too.
    """
    make_keys(folder / "keys", [*packs, *others])
    with ExitStack() as closed:
        found = {}
        for name, pack in packs.items():
            worker = WorkerProcess(name, pack, folder / "keys" / name, folder)
            closed.callback(worker.kill)
            found[name] = worker
        home = Home(folder, found)
        for worker in found.values():
            worker.start()
        yield home
    for worker in found.values():
        assert "Traceback" not in worker.said, worker.said


class Home:
    """Workers, their keys, and a file that names them."""

    def __init__(self, folder: Path, found: dict[str, WorkerProcess]) -> None:
        self.folder, self.workers = folder, found
        self.config, self.keys = folder / "devices.toml", folder / "keys"
        write_config(self.config, {name: worker.address for name, worker in found.items()})

    def exchange(self, said: Callable[[str], None]) -> Hooked:
        """A controller's, which tests may listen to."""
        keys = Keys.load(self.keys)
        peers = {name: worker.address for name, worker in self.workers.items()}
        return Hooked(ZmqExchange(keys.name, peers=peers, keys=keys, notify=said))


class Hooked:
    """An exchange that tells a test what is sent over it, before it returns."""

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self.hook: Callable[[str, Mapping[str, Any]], None] = lambda peer, head: None
        """Called behind each message with whom it went to, and its head."""

    @property
    def name(self) -> str:
        return self._inner.name

    def send(
        self,
        peer: str,
        key: str,
        head: Mapping[str, Any] = NOTHING,
        arrays: Sequence[NDArray[Any]] = (),
    ) -> None:
        self._inner.send(peer, key, head, arrays)
        self.hook(peer, head)

    def receive(
        self,
        *,
        key: str | None = None,
        peer: str | None = None,
        watch: Collection[str] = (),
        deadline: float | None,
    ) -> Message:
        return self._inner.receive(key=key, peer=peer, watch=watch, deadline=deadline)

    def forget(self, key: str) -> None:
        self._inner.forget(key)

    def close(self) -> None:
        self._inner.close()

    def once(self, peer: str, do: str, act: Callable[[], None]) -> None:
        """Do something as soon as a peer is sent this command, once."""

        def hook(to: str, head: Mapping[str, Any]) -> None:
            if (to, head.get("do")) == (peer, do):
                self.hook = lambda peer, head: None
                act()

        self.hook = hook


class Asking:
    """An engine that is asked the same again and again: every answer has to be the right one.

    Args:
        engine: with devices.
        texts: what it is asked.
        due: the bits of the answer.
    """

    def __init__(self, engine: Engine, texts: Sequence[str], due: bytes) -> None:
        self._engine, self._texts, self._due = engine, texts, due

    def once(self) -> Result:
        """One answer, with what it warns of as its notices."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self._engine.run(self._texts)
        assert result.embeddings.tobytes() == self._due
        return result

    def until_by(self, *devices: str) -> None:
        """Answers until one is by these devices."""
        until(lambda: {stage.device for stage in self.once().stages} == set(devices))

    def until_by_others(self) -> None:
        """Answers until one is by other devices than the engine's, or not by it alone."""
        until(lambda: bool(self.once().stages))


@contextmanager
def asking(
    pack: Path, texts: Sequence[str], options: DeviceOptions, said: Callable[[str], None]
) -> Iterator[Asking]:
    """An engine that leaves work to its devices where it can."""
    due = alone(pack, texts)
    with Engine.open(
        pack, fidelity=4, threads=1, profile=SLOW, devices=options, notify=said
    ) as engine:
        yield Asking(engine, texts, due)


def alone(pack: Path, texts: Sequence[str]) -> bytes:
    """The bits of an engine without devices."""
    with Engine.open(pack, fidelity=4, threads=1, profile=SLOW) as engine:
        return engine.run(texts).embeddings.tobytes()


def write_config(path: Path, addresses: Mapping[str, str]) -> None:
    """A file that names devices."""
    path.write_text(
        "".join(
            f"[devices.{name}]\naddress = {json.dumps(address)}\n"
            for name, address in addresses.items()
        ),
        encoding="utf-8",
    )
