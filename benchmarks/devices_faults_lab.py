"""The home of ``benchmarks.devices_faults``: two workers and a controller that is asked again.

In: a pack, texts. Out: answers, checked; what the controller's engine says, and when; faults, and
their end. Each process is on an emulated network of its own. Knows nothing of trials.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, NamedTuple, Self

from benchmarks.child_process import start_child
from benchmarks.devices_faults_child import FIDELITY, Answered, Spec
from benchmarks.network.namespaces import Network
from shard_tools.packing.share import share
from sti.calibration.sample_texts import SampleTexts
from sti.engine.engine import Engine
from sti.exchange.zeromq.keys import make_keys
from sti.pack.pack_reader import PackReader

KILLED, FROZEN, UNPLUGGED = "killed", "frozen", "unplugged"
WORKERS = ("a", "b")
_PLACES = {"a": 1, "b": 2}
_PORT = 7311
_PATIENCE_S = 120.0
_MOST_SAID = 2000


class Pack(NamedTuple):
    """What is run, and this machine's profile of it."""

    path: Path
    profile: Path
    """The file that it is in, with one compute thread."""
    layers: int
    most_tokens: int
    """Of a text."""

    @classmethod
    def measured(cls, path: Path, folder: Path) -> Pack:
        """A pack with its profile, measured now where it is not known."""
        with Engine.open(path, fidelity=FIDELITY, threads=1, history=False) as engine:
            text = json.dumps(engine.profile.to_json())
        (folder / "profile.json").write_text(text, encoding="utf-8")
        return cls.with_profile(path, folder / "profile.json")

    @classmethod
    def with_profile(cls, path: Path, profile: Path) -> Pack:
        """A pack whose profile is known."""
        with PackReader.open(path) as reader:
            dimensions = reader.manifest.dimensions
        return cls(path, profile, dimensions.layers, dimensions.max_tokens)

    def texts(self, count: int, tokens: int) -> tuple[str, ...]:
        """Texts of so many tokens, or as many as the model takes."""
        with PackReader.open(self.path) as reader:
            return tuple(SampleTexts(reader).texts(count, min(tokens, self.most_tokens)))


class Times(NamedTuple):
    """How many times slower than this machine devices are: a chain is to be worth it."""

    worker: float = 4.0
    controller: float = 10.0


class Noticed(NamedTuple):
    """When a fault was noticed."""

    lost_s: float
    """By the controller's process."""
    told_s: float
    """By its engine, which may have been at work on an answer of its own."""


class Ran(NamedTuple):
    """An answer."""

    seconds: float
    devices: tuple[str, ...]
    ended_s: float


@dataclass
class Counts:
    """Of answers so far."""

    answers: int = 0
    wrong: int = 0


class Child:
    """A process that writes lines of JSON.

    Args:
        errors: where it writes what it says besides; closed with it.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process, self._errors = process, errors
        self._lines: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._thread = Thread(target=self._read)
        self._thread.start()

    def ask(self) -> None:
        """Have a controller answer once."""
        assert self.process.stdin is not None, "it was asked for"
        print(file=self.process.stdin, flush=True)

    def line(self, deadline: float) -> dict[str, Any] | None:
        """What it writes next; None where nothing comes in time.

        Raises:
            RuntimeError: it ended; says what it wrote.
        """
        try:
            found = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return None
        if found is None:
            self._errors.seek(0)
            raise RuntimeError(f"a device ended: {self._errors.read()[-_MOST_SAID:]}")
        return found

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._thread.join()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None, "it was asked for"
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)


class Lab:
    """A context manager.

    Args:
        pack: of all; each worker has half of its layers.
        texts: what the controller is asked.
        mbit: of each link.
        times: how slow devices are.

    Raises:
        NoNetwork: there can be none here.
        RuntimeError: a device does not start.
    """

    def __init__(self, pack: Pack, texts: tuple[str, ...], *, mbit: float, times: Times) -> None:
        self._pack, self._texts, self._mbit, self._times = pack, texts, mbit, times
        self._stack = ExitStack()
        self._workers: dict[str, Child] = {}
        self._due = ""
        self._lost: dict[str, float] = {}
        """Device to when it was lost to the controller's process last."""
        self._told: dict[str, float] = {}
        """Device to when the engine said so."""
        self.counts = Counts()
        """Of answers so far."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            place = tempfile.TemporaryDirectory(prefix="sti-faults-")
            self._folder = Path(stack.enter_context(place))
            self._network = stack.enter_context(Network(3, mbit=self._mbit))
            stack.callback(self._end_workers)
            make_keys(self._folder / "keys", WORKERS)
            self._share()
            for name in WORKERS:
                self._start(name)
            self._due = self._alone(stack)
            config = self._folder / "devices.toml"
            config.write_text(
                "".join(f'[devices.{name}]\naddress = "{self._at(name)}"\n' for name in WORKERS),
                encoding="utf-8",
            )
            self._controller = self._child(0, self._asked(config))
            stack.callback(self._controller.end)
            self._wait(self._controller, "opened")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answer(self) -> Ran:
        """Ask the controller."""
        self._controller.ask()
        return self.answer_begun()

    def answer_begun(self) -> Ran:
        """The answer to what was asked last."""
        return self._checked(self._wait(self._controller, "digest"))

    def break_amid(self, kind: str, device: str, *, after_s: float) -> float:
        """Ask the controller, and break a device so many seconds later; when that was."""
        self._controller.ask()
        time.sleep(after_s)
        process, fault_s = self._workers[device].process, time.monotonic()
        if kind == UNPLUGGED:
            self._network.unplug(_PLACES[device])
        else:
            process.send_signal(signal.SIGKILL if kind == KILLED else signal.SIGSTOP)
        return fault_s

    def mend(self, kind: str, device: str) -> float:
        """End a fault; when that was."""
        if kind == UNPLUGGED:
            self._network.plug(_PLACES[device])
        elif kind == FROZEN:
            self._workers[device].process.send_signal(signal.SIGCONT)
        else:
            self._workers[device].end()
            self._start(device)
        return time.monotonic()

    def until_told(self, device: str, *, since_s: float, within_s: float) -> Noticed | None:
        """Ask on until the engine has said that a device is lost."""
        deadline = time.monotonic() + within_s
        while min(self._told.get(device, 0.0), self._lost.get(device, 0.0)) < since_s:
            if time.monotonic() > deadline:
                return None
            self.answer()
        return Noticed(self._lost[device], self._told[device])

    def until_by(self, devices: set[str], *, within_s: float) -> float | None:
        """Ask on until these devices have had a part in an answer; when it was there."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = self.answer()
            if devices <= set(found.devices):
                return found.ended_s
        return None

    def _share(self) -> None:
        """Write the workers' parts."""
        half = self._pack.layers // 2
        share(self._pack.path, self._part("a"), 0, half - 1)
        share(self._pack.path, self._part("b"), half, self._pack.layers - 1)

    def _part(self, name: str) -> Path:
        return self._folder / f"{name}.sti.safetensors"

    def _at(self, name: str) -> str:
        return f"{self._network.address(_PLACES[name])}:{_PORT}"

    def _start(self, name: str) -> None:
        """Start a worker, and wait until it listens."""
        spec = Spec(
            str(self._part(name)),
            str(self._pack.profile),
            str(self._folder / "keys" / name),
            self._times.worker,
            listen=self._at(name),
        )
        self._workers[name] = self._child(_PLACES[name], spec)
        self._wait(self._workers[name], "listens")

    def _alone(self, stack: ExitStack) -> str:
        """The bits of an engine without devices."""
        alone = self._child(0, self._asked(None))
        stack.callback(alone.end)
        alone.ask()
        return str(self._wait(alone, "digest")["digest"])

    def _asked(self, config: Path | None) -> Spec:
        return Spec(
            str(self._pack.path.resolve()),
            str(self._pack.profile),
            str(self._folder / "keys"),
            self._times.controller,
            config="" if config is None else str(config),
            texts=self._texts,
        )

    def _child(self, place: int, spec: Spec) -> Child:
        asked = json.dumps(spec._asdict())
        run = partial(self._network.run, place)
        return Child(*start_child(run, "benchmarks.devices_faults_child", asked))

    def _wait(self, child: Child, key: str) -> dict[str, Any]:
        """The next line that has a field; what the engine says meanwhile is noted."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            line = child.line(deadline)
            if line is None:
                raise RuntimeError(f"a device said no {key!r} within {_PATIENCE_S:g} s")
            if key in line:
                return line
            if "lost" in line:
                self._lost[line["lost"]] = float(line["at_s"])
            for name in WORKERS:
                if str(line.get("said")).startswith(f"device {name} is not used: it was lost"):
                    self._told[name] = float(line["at_s"])

    def _checked(self, line: dict[str, Any]) -> Ran:
        answered = Answered(**line)
        self.counts.answers += 1
        self.counts.wrong += answered.digest != self._due
        seconds = answered.ended_s - answered.begun_s
        return Ran(seconds, tuple(answered.devices), answered.ended_s)

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.end()
