"""Devices that are slow, busy, or come and go amid a run: nobody waits for them in vain."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from shard_tools.packing.share import share
from sti import Engine
from sti.devices import peers as peers_module
from sti.devices.commands import DROP, HIDDEN, PREPARE, REACH, RUN, run_key
from sti.devices.peer import AGAIN_S
from sti.devices.peers import Peers
from sti.errors import PeerLostError, StiWarning
from sti.exchange.interface import NOTHING, Exchange
from tests.support.devices import CONTROLLER, facts_of, machine
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.processes import until
from tests.support.raw_controllers import raw_controller, text_arrays
from tests.support.worker_threads import Gate, Threads, worker_threads
from tests.support.workers import SLOW, Hooked, asking

QUICK = PROFILE
"""Of devices that a run does not wait long for."""


def test_a_device_that_is_slow_is_late_and_used_again(tmp_path: Path) -> None:
    said: list[str] = []
    gate = Gate()
    with worker_threads(tiny_pack(), "a") as threads:
        threads.start("a", profile=QUICK, gate=gate)
        with asking(tiny_pack(), TEXTS, threads.options(tmp_path, "a"), said.append) as asked:
            asked.until_by_others()
            gate.shut()
            (notice,) = asked.once().notices
            assert "answered by this machine alone: a was late" in notice
            assert not asked.once().notices
            gate.open()
            asked.until_by_others()
    assert not [line for line in said if "is not used" in line]


def test_a_run_that_was_dropped_ends_between_two_steps() -> None:
    gate = Gate()
    with raw_controller(tiny_pack(), wrap=gate.wrap) as (controller, _):
        controller.is_well()
        whole = gate.steps
        gate.shut()
        run = controller.next_run()
        controller.send(run.to_json(), text_arrays(4), key=run_key(controller.session, run.number))
        assert gate.reached.wait(60)
        controller.send({"do": DROP, "number": run.number})
        gate.open()
        assert controller.ask({"do": "echo"})["is"] == "echo"
        assert whole <= gate.steps < 2 * whole
        controller.is_well()


def test_a_worker_amid_a_run_answers_what_takes_no_time() -> None:
    gate = Gate()
    with raw_controller(tiny_pack(), wrap=gate.wrap) as (controller, _):
        controller.is_well()
        gate.shut()
        run = controller.next_run()
        key = run_key(controller.session, run.number)
        controller.send(run.to_json(), text_arrays(4), key=key)
        assert gate.reached.wait(60)
        wanted = controller.wanted(part=5)
        prepared = controller.send(wanted.to_json(), wanted.plan_arrays)
        next_run = controller.next_run(part=5)
        behind = run_key(controller.session, next_run.number)
        controller.send(next_run.to_json(), text_arrays(4), key=behind)
        gate.open()
        assert controller.answer(prepared).head["is"] == PREPARE
        for number in (key, behind):  # which needs what was prepared before it
            assert controller.answer(number).head["is"] == "answer"


def test_a_busy_device_is_met_when_it_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "ANSWERS_WITHIN_S", 0.05)
    said: list[str] = []
    gate = Gate()
    with worker_threads(tiny_pack(), "ab") as threads, machine(tiny_pack()) as here:
        threads.start("a", gate=gate)
        threads.start("b")
        gate.shut()
        busy = threads.members["b"]  # another controller
        session = "00000000000000ff"
        hello = {"do": "hello", "facts": facts_of(here.reader).to_json()}
        with raw_controller(tiny_pack()) as (controller, _):
            wanted = controller.wanted()
        threads.members["b"].send("a", f"{session} ask 0", hello)
        busy.send("a", f"{session} ask 1", wanted.to_json(), wanted.plan_arrays)
        run = controller.next_run()
        busy.send("a", run_key(session, run.number), run.to_json(), text_arrays(4))
        assert gate.reached.wait(60)
        found = Peers(
            threads.controller,
            {"a": "127.0.0.1:1", "b": "127.0.0.1:2"},
            facts_of(here.reader),
            connect=lambda *_: None,
            notify=said.append,
        )
        found.meet()
        assert found.named["b"].is_ready and not found.named["a"].is_ready
        assert "device a is not used: it has not said yet what it is; it may be busy" in said
        begun = time.monotonic()
        found.catch_up()
        assert time.monotonic() - begun < 30.0
        gate.open()
        until(lambda: found.catch_up() is None and found.named["a"].is_ready)


def test_a_device_that_comes_amid_a_run_changes_nothing_of_it(tmp_path: Path) -> None:
    said: list[str] = []
    with worker_threads(tiny_pack(), "ab") as threads:
        for name in "ab":
            threads.start(name)
        with asking(tiny_pack(), TEXTS, threads.options(tmp_path, "ab"), said.append) as asked:
            threads.members["a"].kill()
            asked.until_by("b")
            said.clear()
            threads.controller.once("b", RUN, lambda: threads.again("a"))
            result = asked.once()
            assert {stage.device for stage in result.stages} == {"b"}
            assert not result.notices
            until(lambda: bool(asked.once()) and any("device a is here" in line for line in said))


def test_a_device_that_is_started_anew_amid_a_run_has_forgotten_it(tmp_path: Path) -> None:
    """It is there again before anybody looks: waiting for it would be in vain."""
    said: list[str] = []
    with worker_threads(tiny_pack(), "a") as threads:
        threads.start("a")
        with asking(tiny_pack(), TEXTS, threads.options(tmp_path, "a"), said.append) as asked:
            asked.until_by_others()
            threads.controller.once("a", RUN, lambda: threads.again("a"))
            (notice,) = asked.once().notices
            assert "a: it was lost: it was killed" in notice
            asked.until_by_others()


class _Cut(Hooked):
    """An exchange over which hidden states do not reach a peer, until it is healed."""

    def __init__(self, inner: Exchange, peer: str) -> None:
        super().__init__(inner)
        self._peer = peer
        self.is_cut = False

    def send(
        self,
        peer: str,
        key: str,
        head: Mapping[str, Any] = NOTHING,
        arrays: Sequence[NDArray[Any]] = (),
    ) -> None:
        if self.is_cut and peer == self._peer and head.get("is") == HIDDEN:
            raise PeerLostError(f"{peer}: was lost: a moth", peer=peer)
        super().send(peer, key, head, arrays)


def test_workers_that_lose_each_other_are_joined_anew(tmp_path: Path) -> None:
    said: list[str] = []
    reached: list[str] = []
    with worker_threads(tiny_pack(), "ab") as threads:
        cuts: list[_Cut] = []

        def wrap(exchange: Exchange) -> Exchange:
            cuts.append(_Cut(exchange, "b" if exchange.name == "a" else "a"))
            return cuts[-1]

        parts = {name: tmp_path / f"{name}.sti.safetensors" for name in "ab"}
        share(tiny_pack(), parts["a"], 0, 0)
        share(tiny_pack(), parts["b"], 1, 2)
        for name, part in parts.items():
            threads.start(name, pack=part, wrap=wrap)
        options = threads.options(tmp_path, "ab")
        with asking(tiny_pack(), TEXTS, options, said.append) as asked:
            asked.until_by("a", "b")
            for cut in cuts:
                cut.is_cut = True
            threads.controller.hook = lambda peer, head: (
                reached.append(peer) if head.get("do") == REACH else None
            )
            (notice,) = asked.once().notices
            assert "was lost: a moth" in notice
            assert len(reached) == 1
            assert not [line for line in said if "is not used" in line]
            for cut in cuts:
                cut.is_cut = False
            asked.until_by("a", "b")


def test_a_device_that_fails_is_left_alone_for_a_while(tmp_path: Path) -> None:
    with worker_threads(tiny_pack(), "a") as threads, machine(tiny_pack()) as here:
        threads.start("a")
        facts = facts_of(here.reader)
        with asking(tiny_pack(), TEXTS, threads.options(tmp_path, "a"), str) as asked:
            asked.until_by_others()
            # Another life of the controller: the worker has forgotten this one.
            hello = {"do": "hello", "facts": facts.to_json()}
            threads.members[CONTROLLER].send("a", "00000000000000ff ask 1", hello)
            (notice,) = asked.once().notices
            assert "a: controller: says hello first in a session of its own" in notice
            assert not asked.once().stages


def test_a_device_that_failed_is_asked_again_less_and_less_often() -> None:
    said: list[str] = []
    with worker_threads(tiny_pack(), "a") as threads, machine(tiny_pack()) as here:
        threads.start("a")
        addresses, facts = {"a": "127.0.0.1:1"}, facts_of(here.reader)
        found = Peers(
            threads.controller, addresses, facts, connect=lambda *_: None, notify=said.append
        )
        found.meet()
        peer = found.named["a"]
        found.fail("a", "a moth")
        assert peer.pause_s == 2 * AGAIN_S
        found.catch_up()
        assert not peer.is_ready and peer.why == "a moth"
        peer.again_s = 0.0
        until(lambda: found.catch_up() is None and peer.is_ready)
        assert [line for line in said if "a moth" in line] == ["device a is not used: a moth"]
        found.fail("a", "a moth")
        assert peer.pause_s == 4 * AGAIN_S


@contextmanager
def two_peers() -> Iterator[tuple[Peers, Threads]]:
    """Devices a and b as their controller knows them."""
    with worker_threads(tiny_pack(), "ab") as threads, machine(tiny_pack()) as here:
        for name in "ab":
            threads.start(name)
        addresses, facts = {"a": "127.0.0.1:1", "b": "127.0.0.1:2"}, facts_of(here.reader)
        found = Peers(threads.controller, addresses, facts, connect=lambda *_: None, notify=str)
        found.meet()
        yield found, threads


def test_who_was_late_because_of_a_lost_device_is_forgiven() -> None:
    with two_peers() as (found, threads):
        peer = found.named["b"]
        for _ in range(2):
            found.was_late("b")
        assert peer.factor == 4.0
        threads.members["a"].kill()
        until(lambda: found.catch_up() is None and not found.named["a"].is_ready)
        assert peer.factor == 1.0 and peer.is_ready


def test_a_device_that_was_slow_is_tried_again_unless_it_is_in_use() -> None:
    with two_peers() as (found, _):
        for peer in found.named.values():
            peer.factor, peer.link_factor = 4.0, 3.0
        found.measure_again({"b"})
        until(lambda: found.catch_up() is None and found.named["a"].link_factor == 1.0)
        assert (found.named["a"].factor, found.named["b"].factor) == (2.0, 4.0)
        assert found.named["b"].link_factor == 3.0


def test_an_exchange_that_is_closed_is_as_good_as_none(tmp_path: Path) -> None:
    said: list[str] = []
    with worker_threads(tiny_pack(), "a") as threads:
        threads.start("a")
        with asking(tiny_pack(), TEXTS, threads.options(tmp_path, "a"), said.append) as asked:
            asked.until_by_others()
            threads.controller.once("a", RUN, threads.controller.close)
            (notice,) = asked.once().notices
            assert "this exchange was closed" in notice
            for _ in range(2):
                assert not asked.once().stages
            assert len([line for line in said if "device a is not used" in line]) == 1


def test_who_waits_is_warned_where_the_answer_is_asked_for(tmp_path: Path) -> None:
    with worker_threads(tiny_pack(), "a") as threads:
        threads.start("a")
        options = threads.options(tmp_path, "a")
        with Engine.open(
            tiny_pack(), fidelity=4, threads=1, profile=SLOW, devices=options
        ) as engine:
            threads.members["a"].kill()
            with pytest.warns(StiWarning, match="a: it was lost: it was killed"):
                engine.embed(TEXTS)
