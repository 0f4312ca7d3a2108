"""Controllers that die, sleep and return, and several at once: workers serve whoever is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

import pytest

from benchmarks.devices_faults_child import Spec
from sti.devices.chain import Chains
from sti.devices.peers import Peers
from sti.engine.device_options import DeviceOptions
from sti.exchange.zeromq import dialed
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys
from sti.pipeline.trace import Recorder
from sti.planning.links import FLOAT32
from tests.devices.test_chain import cut, encodings, plan_of, strategy_of
from tests.support.commands import ENVIRONMENT
from tests.support.devices import Machine, facts_of, machine
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.processes import until
from tests.support.workers import Home, asking, workers

MANY = TEXTS * 300
_RUNS = 25


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Two workers, and keys of another controller."""
    with workers({"a": tiny_pack(), "b": tiny_pack()}, tmp_path_factory.mktemp("home"), "c") as at:
        yield at


class ControllerProcess:
    """An engine in a process of its own, that is asked the same again and again."""

    def __init__(self, home: Home, place: Path) -> None:
        self._out = place / "out"
        profile = place / "profile.json"
        profile.write_text(json.dumps(PROFILE.to_json()), encoding="utf-8")
        keys, config = str(home.keys), str(home.config)
        spec = Spec(str(tiny_pack()), str(profile), keys, 1.0, config=config, texts=MANY)
        asked = place / "asked"
        asked.write_text("\n" * 10_000, encoding="utf-8")
        with self._out.open("wb") as out, asked.open("rb") as given:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.devices_faults_child",
                    json.dumps(spec._asdict()),
                ],
                stdin=given,
                stdout=out,
                env={**os.environ, **ENVIRONMENT},
            )

    @property
    def answers(self) -> list[dict[str, object]]:
        """So far."""
        lines = self._out.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and '"digest"' in line]

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@contextmanager
def controller(home: Home, place: Path) -> Iterator[ControllerProcess]:
    made = ControllerProcess(home, place)
    try:
        until(lambda: len(made.answers) > 2)
        yield made
    finally:
        made.end()


def test_a_controller_sleeps_and_dies_and_another_one_comes(home: Home, tmp_path: Path) -> None:
    with controller(home, tmp_path) as first:
        assert any(answer["devices"] for answer in first.answers)
        first.process.send_signal(signal.SIGSTOP)
        until(lambda: home.workers["a"].said.count("controller controller is lost") == 1)
        first.process.send_signal(signal.SIGCONT)
        count = len(first.answers)
        until(lambda: any(answer["devices"] for answer in first.answers[count + 1 :]))
        digests = {answer["digest"] for answer in first.answers}
        assert len(digests) == 1
    said: list[str] = []
    options = DeviceOptions(home.config, keys=home.keys, strategy="chain")
    with asking(tiny_pack(), MANY, options, said.append) as asked:
        asked.until_by_others()
    assert not [line for line in said if "is not used" in line]


def test_the_same_keys_are_of_one_controller_at_a_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialed, "GIVES_WAY_S", 0.1)
    said: list[str] = []
    options = DeviceOptions(home.config, keys=home.keys, strategy="chain")
    with asking(tiny_pack(), TEXTS, options, said.append) as first:
        first.until_by_others()
        with asking(tiny_pack(), TEXTS, options, said.append) as second:
            second.until_by_others()
            until(lambda: not first.once().stages)
            for _ in range(3):
                assert not first.once().stages
                second.until_by_others()
        first.until_by_others()
    assert [line for line in said if "is not used" in line and "it connected anew" in line]


@contextmanager
def chains(keys: Keys, home: Home, here: Machine) -> Iterator[Chains]:
    """A controller with keys of its own."""
    exchange = ZmqExchange(keys.name, keys=keys, notify=lambda _: None)
    with ExitStack() as closed:
        closed.callback(exchange.close)
        peers = Peers(
            exchange,
            {name: worker.address for name, worker in home.workers.items()},
            facts_of(here.reader),
            connect=exchange.connect,
            notify=lambda _: None,
        )
        peers.meet()
        assert all(peer.is_ready for peer in peers.named.values())
        yield Chains(peers, here.runner, here.jobs, here.reader.manifest)


def test_chains_of_two_controllers_cross_each_other(home: Home) -> None:
    """One goes over a and then b, the other over b and then a: many times at once."""
    failed: list[BaseException] = []

    def run(keys: Keys, names: list[str]) -> None:
        try:
            with machine(tiny_pack()) as here, chains(keys, home, here) as found:
                plan, texts = plan_of(here.reader), encodings(here.reader)
                due = here.runner.run(
                    here.jobs(plan), plan, texts, mode="planned", recorder=Recorder(perf_counter())
                )
                for number in range(_RUNS):
                    for stages in cut(plan, names):
                        strategy = strategy_of(plan, stages, 1 + number % 3)
                        outcome = found.run(
                            strategy,
                            plan,
                            texts,
                            recorder=Recorder(perf_counter()),
                            link_type=FLOAT32,
                            within_s=30.0,
                        )
                        assert [row.tobytes() for row in outcome.outputs] == [
                            row.tobytes() for row in due.outputs
                        ]
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=(Keys.load(folder), names))
        for folder, names in ((home.keys, ["a", "b"]), (home.keys / "c", ["b", "a"]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
