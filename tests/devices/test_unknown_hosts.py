"""A device whose host is not known is left out until it is; the others are used."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from sti import DeviceOptions, Engine, StiWarning
from sti.devices import unknown_hosts
from sti.devices.unknown_hosts import UnknownHosts
from sti.errors import InputError, PeerError, RunError
from tests.support.packs import TEXTS, tiny_pack
from tests.support.processes import until
from tests.support.workers import asking, workers, write_config


def test_a_host_that_is_not_known_keeps_no_answer_from_coming(tmp_path: Path) -> None:
    config, told = tmp_path / "devices.toml", []
    config.write_text('[devices.board]\naddress = "no-such-host.invalid:7311"\n', "utf-8")
    options = DeviceOptions(config, strategy="chain")
    with (
        Engine.open(tiny_pack(), fidelity=4, devices=options, notify=told.append) as engine,
        pytest.warns(StiWarning, match="board: no-such-host.invalid:7311: the host"),
    ):
        result = engine.run(TEXTS)
    assert len(result.embeddings) == len(TEXTS)
    assert any("device board is not used: no-such-host" in line for line in told)


def test_a_device_is_used_when_its_host_becomes_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_hosts, "AGAIN_S", 0.1)
    known, look_up = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host == "board.test":
            if not known.is_set():
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with workers({"board": tiny_pack()}, tmp_path) as home:
        port = home.workers["board"].address.rpartition(":")[2]
        write_config(home.config, {"board": f"board.test:{port}"})
        options = DeviceOptions(home.config, keys=home.keys)
        with asking(tiny_pack(), TEXTS, options, lambda _: None) as asked:
            for _ in range(3):
                assert not asked.once().stages
            known.set()
            asked.until_by_others()


def failing(*errors: Exception) -> UnknownHosts:
    """Hosts whose devices cannot be connected to, for these reasons; after them they can."""
    left = list(errors)

    def connect(name: str, address: str) -> None:
        if left:
            raise left.pop(0)

    hosts = UnknownHosts(connect)
    with pytest.raises(PeerError, match="not known"):
        hosts.connect("board", "board.test:7311")
    return hosts


def found_out(hosts: UnknownHosts) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    until(lambda: bool(found.update(hosts.look_again()) or found))
    return found


def test_a_host_that_turns_out_to_need_keys_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_hosts, "AGAIN_S", 0.0)
    hosts = failing(PeerError("not known"), InputError("needs keys"))
    assert found_out(hosts) == {"board": "needs keys"}
    assert hosts.look_again() == {}


def test_what_passes_does_not_end_the_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_hosts, "AGAIN_S", 0.0)
    passing = (RunError("no more threads"), PeerError("still not known"), OSError("no network"))
    assert found_out(failing(PeerError("not known"), *passing)) == {"board": None}


def test_nothing_is_looked_up_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_hosts, "AGAIN_S", 0.0)
    hosts = failing(PeerError("not known"))
    hosts.close()
    for _ in range(3):
        assert hosts.look_again() == {}
