"""The file of devices: what is wrong is named, with the file, the device and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sti import Engine
from sti.devices.config import DevicesConfig, load_devices
from sti.errors import ConfigError
from sti.planning.chain_search import MOST_DEVICES
from sti.planning.links import FLOAT16
from tests.support.packs import tiny_pack

A = '[devices.a]\naddress = "192.168.1.7:7311"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "devices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_devices_and_links_are_read(tmp_path: Path) -> None:
    text = A + '[devices."b-2.local"]\naddress = "[fe80::1]:1"\n[links]\nnumbers = "float16"\n'
    found = load_devices(written(tmp_path, text))
    addresses = {"a": "192.168.1.7:7311", "b-2.local": "[fe80::1]:1"}
    assert found == DevicesConfig(addresses, FLOAT16)


def device(name: str, address: object) -> str:
    return f"[devices.{name}]\naddress = {address}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"names no device; write \[devices.NAME\]"),
        ("[devices]", "names no device"),
        ("devices = 1", "devices must be a table"),
        ("[devices]\na = 1", r"\[devices.a\]: must be a table with an address"),
        ("[devices.a]", 'address must be "HOST:PORT"'),
        ("[device.a]\n" + A, "unknown key 'device'; allowed: devices, links"),
        (A + "port = 1", r"\[devices.a\]: unknown key 'port'; allowed: address"),
        (A + A, "not valid TOML"),
        (A + '[devices.b]\naddress = "192.168.1.7:7311"', "a and b have the same address"),
        (
            device("a", '"BOARD.local:1"') + device("b", '"board.local:1"'),
            "a and b have the same address",
        ),
        (device("a", 7311), "found 7311"),
        (device("a", '"192.168.1.7"'), "found '192.168.1.7'"),
        (device("a", '"192.168.1.7:0"'), "found '192.168.1.7:0'"),
        (device("a", '"192.168.1.7:65536"'), "found '192.168.1.7:65536'"),
        (device("a", '"http://a:1"'), 'must be "HOST:PORT"'),
        (device("a", '"a b:1"'), 'must be "HOST:PORT"'),
        (device("local", '"a:1"'), "is not 'local', which is this machine"),
        (device('"a b"', '"a:1"'), "a device's name has"),
        (device('"../a"', '"a:1"'), "a device's name has"),
        (device(f"a{'b' * 63}", '"a:1"'), "up to 63"),
        (A + "[links]\nnumbers = 8", "numbers must be one of float32, float16, int8; found 8"),
        (A + "[links]\nbits = 8", r"\[links\]: unknown key 'bits'"),
        ("links = 1\n" + A, "links must be a table"),
        ("a" * 70_000, "cannot be read|not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, why: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=why) as caught:
        load_devices(path)
    assert str(path) in str(caught.value)


def test_a_chain_has_so_many_devices_at_most(tmp_path: Path) -> None:
    text = "".join(device(f"d{number}", f'"10.0.0.{number}:1"') for number in range(MOST_DEVICES))
    with pytest.raises(ConfigError, match=f"at most {MOST_DEVICES - 1} beside this machine"):
        load_devices(written(tmp_path, text))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_devices(path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b'[devices.a]\naddress = "b\xe4:1"\n')
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_devices(path)


def test_an_engine_does_not_open_with_a_mistake(tmp_path: Path) -> None:
    path = written(tmp_path, A + device("b", '"192.168.1.7:7311"'))
    with pytest.raises(ConfigError, match="a and b have the same address"):
        Engine.open(tiny_pack(), fidelity=4, devices=path)
