"""A network that becomes slow or goes away amid runs, in emulated networks: these take root."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices_faults_child import Spec
from benchmarks.network.namespaces import Network, NoNetwork
from shard_tools.packing.share import share
from sti.exchange.zeromq.keys import make_keys
from tests.support.packs import TEXTS, tiny_pack
from tests.support.workers import SLOW, WorkerProcess, alone, write_config

MANY = TEXTS * 300
MBIT = 200.0
PLACES = {"a": 1, "b": 2}
LAYERS = {"a": (0, 0), "b": (1, 2)}
_PORT = 7311
_MOST_ANSWERS = 200


class Lab:
    """Two workers and a controller, a device of an emulated network each."""

    def __init__(self, network: Network, controller: subprocess.Popen[str]) -> None:
        self.network, self._controller = network, controller
        self.said: list[str] = []
        self._due = sha256(alone(tiny_pack(), MANY)).hexdigest()

    def answer(self) -> dict[str, Any]:
        """The next answer, which has to be the right one."""
        print(file=self._controller.stdin, flush=True)
        found = self._line("digest")
        assert found["digest"] == self._due
        return found

    def opened(self) -> None:
        """Wait for the engine."""
        self._line("opened")

    def answer_of(self, *devices: str) -> None:
        """Answers until one is by these devices."""
        for _ in range(_MOST_ANSWERS):
            if set(self.answer()["devices"]) == set(devices):
                return
        raise AssertionError(f"no answer came of {devices}: {self.said[-5:]}")

    def _line(self, key: str) -> dict[str, Any]:
        assert self._controller.stdout is not None
        for line in self._controller.stdout:
            found: dict[str, Any] = json.loads(line)
            if key in found:
                return found
            self.said.append(str(found.get("said")))
        raise AssertionError("the controller has ended")


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    make_keys(folder / "keys", ["a", "b"])
    profile = folder / "profile.json"
    profile.write_text(json.dumps(SLOW.to_json()), encoding="utf-8")
    with ExitStack() as closed:
        try:
            network = closed.enter_context(Network(3, mbit=MBIT))
        except NoNetwork as error:
            pytest.skip(str(error))
        addresses = {
            name: f"{network.address(place)}:{_PORT}" for place, name in ((1, "a"), (2, "b"))
        }
        write_config(folder / "devices.toml", addresses)
        for name, place in PLACES.items():
            part = folder / f"{name}.sti.safetensors"
            share(tiny_pack(), part, *LAYERS[name])
            worker = WorkerProcess(
                name,
                part,
                folder / "keys" / name,
                folder,
                address=addresses[name],
                within=lambda argv, place=place: network.command(place, argv),
            )
            closed.callback(worker.kill)
            worker.start()
        spec = Spec(
            str(tiny_pack()),
            str(profile),
            str(folder / "keys"),
            times=1.0,
            config=str(folder / "devices.toml"),
            texts=MANY,
        )
        argv = [sys.executable, "-m", "benchmarks.devices_faults_child", json.dumps(spec._asdict())]
        controller = network.run(0, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        closed.enter_context(controller)
        found = Lab(network, controller)
        found.opened()
        yield found
        assert controller.stdin is not None
        controller.stdin.close()
        assert controller.wait(60) == 0


def test_a_network_drops_to_a_tenth_and_goes_away_amid_runs(tmp_path: Path) -> None:
    with lab(tmp_path) as found:
        found.answer_of("a", "b")
        amid = threading.Timer(0.05, lambda: found.network.set_rate(MBIT / 10))
        amid.start()
        for _ in range(5):
            found.answer()
        amid.join()
        found.network.set_rate(MBIT)
        found.answer_of("a", "b")
        assert not [line for line in found.said if "is not used" in line]
        amid = threading.Timer(0.05, lambda: found.network.unplug(PLACES["b"]))
        amid.start()
        for _ in range(_MOST_ANSWERS):
            found.answer()
            if any("device b is not used: it was lost" in line for line in found.said):
                break
        amid.join()
        assert not [line for line in found.said if "device a is not used" in line]
        found.network.plug(PLACES["b"])
        found.answer_of("a", "b")
