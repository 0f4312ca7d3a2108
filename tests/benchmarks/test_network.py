"""Emulated networks: rate, unplugging, isolation; and nothing is left of them, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.network import namespaces
from benchmarks.network.namespaces import Network, NoNetwork, remove_leftovers
from benchmarks.network.switch import SOURCE, Switch, compile_switch
from kernel_build.library import NoLibrary, host_compiler

PORT = 5000
SERVER = f"""
import socket, sys, time
with socket.create_server(("", {PORT})) as server:
    print("listening", flush=True)
    with server.accept()[0] as peer:
        start, wanted = time.monotonic(), int(sys.argv[1])
        while wanted > 0:
            wanted -= len(peer.recv(min(wanted, 1 << 16)))
        print(time.monotonic() - start)
        peer.send(b"!")
"""
CLIENT = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT})) as server:
    server.sendall(bytes(int(sys.argv[2])))
    server.recv(1)
"""
LISTENER = f"""
import socket
with socket.socket(type=socket.SOCK_DGRAM) as place:
    place.bind(("", {PORT}))
    print("listening", flush=True)
    print(place.recv(100).decode())
"""
SENDER = f"""
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as place:
    place.sendto(sys.argv[2].encode(), (sys.argv[1], {PORT}))
"""


def ours() -> list[str]:
    if not namespaces.SPACES.is_dir():
        return []
    own = f"{namespaces.PREFIX}-{os.getpid()}-"
    return [path.name for path in namespaces.SPACES.iterdir() if path.name.startswith(own)]


def python(network: Network, device: int, code: str, *arguments: object) -> subprocess.Popen[Any]:
    argv = [sys.executable, "-S", "-c", code, *map(str, arguments)]
    return network.run(device, argv, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[Any]) -> str:
    written, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return str(written).strip()


def listening(
    network: Network, device: int, code: str, *arguments: object
) -> subprocess.Popen[Any]:
    process = python(network, device, code, *arguments)
    assert process.stdout is not None and process.stdout.readline() == "listening\n"
    return process


def mbit_sent(network: Network, size: int) -> float:
    server = listening(network, 0, SERVER, size)
    ended(python(network, 1, CLIENT, network.address(0), size))
    return size * 8e-6 / float(ended(server))


@contextmanager
def opened(**options: Any) -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network(**options))
        except NoNetwork as error:
            assert not ours()
            pytest.skip(str(error))
        yield network


@pytest.fixture
def network() -> Iterator[Network]:
    with opened(devices=2, mbit=80) as found:
        yield found


@pytest.fixture
def one_medium() -> Iterator[Network]:
    with opened(devices=2, mbit=80, shared=True) as found:
        yield found


def test_bytes_take_as_long_as_their_rate_says(network: Network) -> None:
    assert 80 / 3 < mbit_sent(network, 2_000_000) < 80
    network.set_rate(8)
    assert 8 / 3 < mbit_sent(network, 200_000) < 8
    network.set_rate(80, device=1)  # the other one's link is as it was
    assert 8 / 3 < mbit_sent(network, 200_000) < 8


def test_a_shared_medium_is_crossed_twice(one_medium: Network) -> None:
    assert 40 / 3 < mbit_sent(one_medium, 1_000_000) < 40


def test_what_an_unplugged_device_sends_is_lost(network: Network) -> None:
    for device in network.devices:
        listener = listening(network, 0, LISTENER)
        network.unplug(device)
        ended(python(network, 1, SENDER, network.address(0), "while unplugged"))
        network.plug(device)
        ended(python(network, 1, SENDER, network.address(0), "when plugged in"))
        assert ended(listener) == "when plugged in"


def test_devices_reach_nothing_else(network: Network) -> None:
    code = "import os; print(sorted(os.listdir('/sys/class/net')))"
    assert ended(python(network, 0, code)) == "['lo', 'net0']"


def fail_amid_work(started: list[subprocess.Popen[Any]]) -> None:
    with opened(devices=2) as network:
        started += [network.run(0, ["sh", "-c", "sleep 600 & sleep 600"])]
        started += [network.run(1, ["sleep", "600"])]
        assert len(ours()) == 2
        raise KeyboardInterrupt


def test_nothing_is_left_of_a_network_with_processes_and_children() -> None:
    started = list[subprocess.Popen[Any]]()
    with pytest.raises(KeyboardInterrupt):
        fail_amid_work(started)
    assert [process.returncode for process in started] == [-9, -9]
    assert not ours()


def test_a_network_that_has_ended_runs_nothing() -> None:
    with opened(devices=1) as network:
        pass
    with pytest.raises(NoNetwork, match="has ended"):
        network.run(0, ["true"])


def test_leftovers_of_dead_runs_alone_are_removed(network: Network) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    left = f"{namespaces.PREFIX}-{dead.pid}-1-0-0"
    subprocess.run(["ip", "netns", "add", left], check=True)
    sleeper = subprocess.Popen(["ip", "netns", "exec", left, "sleep", "600"])
    try:
        remove_leftovers()
        assert not (namespaces.SPACES / left).exists()
        assert len(ours()) == 2
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_switch_refuses_what_it_cannot_do_and_goes_on(network: Network) -> None:
    name = f"{ours()[0]}-switch"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        spaces = [namespaces.SPACES / name]
        with closing(Switch(spaces, mbit=1.0, delay_s=0.0, shared=False)) as alone:
            for command in ("fly 0", "rate 1 10", "rate 0 nan", "rate 0 1 x", "plug -1", "unplug"):
                with pytest.raises(NoNetwork, match="failed: no"):
                    alone.tell(command)
            alone.tell("rate 0 10")
        with pytest.raises(NoNetwork, match="it ended"):
            alone.tell("rate 0 10")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_switch_that_cannot_start_says_why(tmp_path: Path) -> None:
    try:
        host_compiler()
    except NoLibrary as error:
        pytest.skip(str(error))
    with pytest.raises(NoNetwork, match=r"namespace .*space: No such file"):
        Switch([tmp_path / "space"], mbit=1.0, delay_s=0.0, shared=False)


@pytest.mark.parametrize("options", [{"devices": 0}, {"mbit": 0.0}, {"delay_s": -1.0}])
def test_figures_that_make_no_network_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Network(**options)


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="device must be 0 to 1; found 2"):
        Network(devices=2).address(2)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoNetwork, match="only root"), Network():
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "TUN", tmp_path / "tun")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        with pytest.raises(NoNetwork, match="install iproute2"), Network():
            pass
    ip = tmp_path / "ip"
    ip.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoNetwork, match="modprobe tun"), Network():
        pass


def test_without_a_compiler_there_is_no_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    with pytest.raises(NoNetwork, match="No such file"):
        compile_switch(tmp_path)
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoNetwork, match="no C compiler"):
        compile_switch(tmp_path)


def test_the_switch_compiles_without_warnings() -> None:
    try:
        compiler = host_compiler()
    except NoLibrary as error:
        pytest.skip(str(error))
    flags = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    subprocess.run([*compiler, *flags, str(SOURCE)], check=True)
