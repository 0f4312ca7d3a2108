"""Devices that do not belong together: refused when they meet, both named, and answered without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from shard_tools.packing.share import share
from sti.device.profile import DeviceProfile
from sti.devices import commands
from sti.devices.commands import HELLO
from sti.devices.facts import PROTOCOL, Facts
from sti.devices.peers import Peers
from sti.engine.device_options import DeviceOptions
from sti.exchange.threads import ThreadExchange
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import make_keys
from sti.version import __version__
from tests.support.devices import facts_of, machine
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.raw_controllers import WORKER, raw_controller
from tests.support.raw_workers import raw_worker
from tests.support.workers import Home, asking, workers, write_config

Changed = Callable[[Facts], Facts]


def asked_once(folder: Path, exchange: ThreadExchange, *said: str) -> str:
    """The notice of an answer that is to come without the only device; all that was told."""
    told: list[str] = []
    config = folder / "devices.toml"
    write_config(config, {WORKER: "127.0.0.1:7000"})
    options = DeviceOptions(config, strategy="chain", exchange=exchange)
    with asking(tiny_pack(), TEXTS, options, told.append) as asked:
        (notice,) = asked.once().notices
        assert "answered by this machine alone: no device can be used: a" in notice
        assert not asked.once().notices
    for words in said:
        assert words in notice
        (line,) = [line for line in told if line.startswith("device a is not used")]
        assert words in line
    return notice


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            lambda facts: facts._replace(sti="0.0.1"),
            ("a has STI 0.0.1, this machine has", __version__, "install the same release"),
        ),
        (
            lambda facts: facts._replace(onnxruntime="1.2.3"),
            ("a has ONNX Runtime 1.2.3, this machine has", "same to the bit"),
        ),
        (
            lambda facts: facts._replace(content="f" * 64),
            ("a has a pack of the content ffffffffffffffff, this machine has", "sti-shard share"),
        ),
        (
            lambda facts: facts._replace(pack="e" * 64),
            ("a has a pack of the ranking eeeeeeeeeeeeeeee, this machine has",),
        ),
    ],
    ids=["STI", "ONNX Runtime", "content", "ranking"],
)
@pytest.mark.parametrize("by", ["worker", "controller"])
def test_devices_that_differ_are_refused_by_both(
    tmp_path: Path, changed: Changed, said: tuple[str, ...], by: str
) -> None:
    """The worker refuses a controller that differs; a controller, a worker that does not."""
    with raw_controller(tiny_pack(), facts=changed) as (controller, _):
        if by == "worker":
            why = controller.refused({"do": HELLO, "facts": controller.facts.to_json()})
            assert all(words in why for words in said)
        else:
            asked_once(tmp_path, controller.exchange, *said)


def test_a_pack_of_other_weights_is_refused(tmp_path: Path) -> None:
    with raw_controller(tiny_pack(seed=1)) as (controller, _):
        asked_once(tmp_path, controller.exchange, "a has a pack of the content")


def test_a_part_of_another_pack_is_refused(tmp_path: Path) -> None:
    part = tmp_path / "part.sti.safetensors"
    share(tiny_pack(seed=1), part, 0, 0)
    with raw_controller(part) as (controller, _):
        asked_once(tmp_path, controller.exchange, "a has a pack of the content")


def test_another_protocol_is_refused_by_a_worker() -> None:
    with raw_controller(tiny_pack()) as (controller, _):
        facts = {**controller.facts.to_json(), "protocol": PROTOCOL + 1}
        why = controller.refused({"do": HELLO, "facts": facts})
        assert f"protocol version {PROTOCOL + 1}, from a newer STI" in why
        controller.is_well()


def changed_facts(**others: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Says other things of itself."""

    def answer(head: dict[str, Any]) -> dict[str, Any]:
        return {**head, "facts": {**head["facts"], **others}} if "facts" in head else head

    return answer


def no_reading_thread() -> DeviceProfile:
    runs = {name: run for name, run in PROFILE.runs.items() if name == "sequential"}
    assert runs
    return DeviceProfile(PROFILE.device, PROFILE.threads, PROFILE.lanes, runs, PROFILE.tokenize_s)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (changed_facts(protocol=PROTOCOL + 1), "from a newer STI"),
        (changed_facts(first="0"), "field 'first' must be an integer"),
        (changed_facts(more=1), "unknown field 'more'"),
        (changed_facts(profile={}), "profile"),
        (changed_facts(profile=no_reading_thread().to_json()), "with a thread that reads ahead"),
        (lambda head: {"is": commands.FAILED, "why": "a moth"}, "a moth"),
        (lambda head: {"is": commands.FAILED, "why": 1}, "field 'why' must be a string"),
        (lambda head: {}, "facts: expected an object"),
        (lambda head: head if "facts" in head else {"is": "moth"}, "does not answer echoes"),
    ],
)
def test_workers_that_say_what_none_says_are_not_used(
    tmp_path: Path, answer: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    with raw_worker(answer) as exchange:
        asked_once(tmp_path, exchange, said)


def test_devices_measured_with_too_little_are_not_used(tmp_path: Path) -> None:
    lacking = deepcopy(PROFILE.to_json())  # parts of which are the profile's own
    del lacking["lanes"]["compute"]["graphs"]["ffn"]
    with raw_worker(changed_facts(profile=lacking)) as exchange:
        asked_once(tmp_path, exchange, "no compute time for graph 'ffn'")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with workers({"a": tiny_pack()}, tmp_path_factory.mktemp("home")) as at:
        yield at


def test_a_controller_with_other_keys_finds_nobody(home: Home, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", ["a"])
    said: list[str] = []
    options = DeviceOptions(home.config, keys=tmp_path / "keys", strategy="chain")
    with asking(tiny_pack(), TEXTS, options, said.append) as asked:
        (notice,) = asked.once().notices
        assert "no device can be used: a: it was not found at 127.0.0.1" in notice
        assert "keys that `sti devices init` made together" in notice
        assert not asked.once().notices
    assert len([line for line in said if line.startswith("device a is not used")]) == 1


def test_a_controller_without_keys_finds_nobody(home: Home) -> None:
    said: list[str] = []
    with (
        closing(ZmqExchange("controller", notify=said.append)) as exchange,
        machine(tiny_pack()) as here,
    ):
        peers = Peers(
            exchange,
            {"a": home.workers["a"].address},
            facts_of(here.reader),
            connect=exchange.connect,
            notify=said.append,
        )
        peers.meet(within_s=0.3)
        assert not peers.named["a"].is_ready
    (line,) = [line for line in said if line.startswith("device a is not used")]
    assert "it was not found at 127.0.0.1" in line
    assert "only one of the two has keys" in line


def test_a_worker_goes_on_behind_strangers(home: Home) -> None:
    options = DeviceOptions(home.config, keys=home.keys, strategy="chain")
    with asking(tiny_pack(), TEXTS, options, lambda _: None) as asked:
        asked.until_by_others()
    assert "something connected that failed the handshake" in home.workers["a"].said
