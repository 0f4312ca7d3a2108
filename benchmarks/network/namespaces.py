"""Networks of emulated devices: a network namespace each, joined by a switch in user space.

    with Network(devices=2, mbit=125, delay_s=0.5e-3) as network:
        server = network.run(0, ["python", "server.py"])
        client = network.run(1, ["python", "client.py", network.address(0)])

In: how many devices, the rate and delay of their links. Out: processes that run inside namespaces
and reach each other, and nothing else, at that rate and delay. ``tunswitch.c`` beside this file is
the switch; it says how time passes on the links. Needs Linux, root, iproute2, a C compiler and
/dev/net/tun; what is missing is said. Knows nothing of what runs on the devices.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Self

from benchmarks.network.switch import DEVICE, SUBNET, NoNetwork, Switch, do

SPACES = Path("/var/run/netns")
"""Where iproute2 keeps the files of namespaces."""
PREFIX = "sti-net"
TUN = Path("/dev/net/tun")
MOST_DEVICES = 32

_NAME = re.compile(rf"{PREFIX}-(\d+)-(\d+)-\d+-\d+")
"""Process, when it started, number of the network, device."""
_END_S = 5.0
_AT_ONCE_S = 0.5e-3
"""On the wire, of what a device may send as one packet, which counts as all of its segments: as few
pieces of work as the rate allows, since the switch shares the processor with the devices."""
_FRAME = 1538
"""Bytes of a full frame on the wire."""
_MOST_SEGMENTS = 40
_CONGESTION = "cubic"
"""What phones and boards do about congestion, whatever this machine is set to."""
_NETWORKS = itertools.count()


class Network:
    """Devices joined by a switch; a context manager, and a network within it.

    Processes of a device that still run at the end are killed; namespaces, switch and files are
    removed, after errors and interrupts too. What runs left that were killed themselves is removed
    when the next network starts. Thread-safe.

    Args:
        devices: how many, at most ``MOST_DEVICES``.
        mbit: of 10**6 bits per second, of each device's link in either direction, or of the one
            medium; frames of Ethernet around packets count.
        delay_s: between sending and receiving, beyond what the rate takes.
        shared: one medium for all, crossed twice, as Wi-Fi with an access point; else each device
            has a link of its own.

    Raises:
        ValueError: figures that make no network.
        NoNetwork: on entering: something is missing here.
    """

    def __init__(
        self,
        devices: int = 2,
        *,
        mbit: float = 125.0,
        delay_s: float = 0.5e-3,
        shared: bool = False,
    ) -> None:
        if not 1 <= devices <= MOST_DEVICES:
            raise ValueError(f"devices must be 1 to {MOST_DEVICES}; found {devices}")
        if not 0.0 <= delay_s <= 10.0:
            raise ValueError(f"delay_s must be 0 to 10; found {delay_s}")
        self._mbit, self._delay_s, self._shared = _rate(mbit), delay_s, shared
        own = f"{PREFIX}-{os.getpid()}-{_started(os.getpid())}-{next(_NETWORKS)}"
        self._names = tuple(f"{own}-{device}" for device in range(devices))
        self._stack = ExitStack()
        self._lock = Lock()
        self._processes: list[subprocess.Popen[Any]] = []
        self._switch: Switch | None = None

    def __enter__(self) -> Self:
        _check()
        remove_leftovers()
        with ExitStack() as stack:
            for name in self._names:
                stack.callback(_remove, name)  # an interrupt may come right after it was made
                _ip("netns", "add", name)
            spaces = [SPACES / name for name in self._names]
            switch = Switch(spaces, mbit=self._mbit, delay_s=self._delay_s, shared=self._shared)
            stack.callback(switch.close)
            for device, name in enumerate(self._names):
                _ip("-n", name, "-batch", "-", told=self._settings(device))
            self._switch = switch
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def devices(self) -> range:
        """Their numbers."""
        return range(len(self._names))

    @property
    def about(self) -> str:
        """The network in words, for reports."""
        kind = "one medium, crossed twice" if self._shared else "a link each"
        said = self._entered().said
        return (
            f"{len(self._names)} devices, {kind}: {self._mbit:g} Mbit/s, "
            f"{self._delay_s * 1e3:g} ms one way{said and '; switch: '}{said}"
        )

    def address(self, device: int) -> str:
        """The IPv4 address of a device, numbered from 0."""
        return f"{SUBNET}.{self._checked(device) + 1}"

    def command(self, device: int, argv: Sequence[str]) -> list[str]:
        """The command that runs a command inside a device; it replaces itself by it."""
        return ["ip", "netns", "exec", self._names[self._checked(device)], *argv]

    def run(self, device: int, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a process inside a device.

        Args:
            popen: as ``subprocess.Popen`` takes them.
        """
        with self._lock:
            self._entered()
            process = subprocess.Popen(self.command(device, argv), **popen)
            self._processes.append(process)
        return process

    def set_rate(self, mbit: float, device: int | None = None) -> None:
        """Change the rate from now on.

        Args:
            mbit: the new rate.
            device: whose; None: of all.
        """
        chosen = self.devices if device is None else (self._checked(device),)
        for number in chosen:
            self._entered().tell(f"rate {number} {_rate(mbit)!r}")
            segments = f"gso_max_segs {segments_at_once(mbit)}"
            _ip("-n", self._names[number], "link", "set", DEVICE, *segments.split())

    def unplug(self, device: int) -> None:
        """Lose everything that a device sends, or that is on its way to it; nobody is told."""
        self._entered().tell(f"unplug {self._checked(device)}")

    def plug(self, device: int) -> None:
        """End what ``unplug`` began."""
        self._entered().tell(f"plug {self._checked(device)}")

    def _checked(self, device: int) -> int:
        if device not in self.devices:
            raise ValueError(f"device must be 0 to {len(self._names) - 1}; found {device}")
        return device

    def _settings(self, device: int) -> str:
        """What ``ip`` is told within a device's namespace."""
        return (
            "link set lo up\n"
            f"link set {DEVICE} mtu 1500 txqueuelen 10000 "
            f"gso_max_segs {segments_at_once(self._mbit)} up\n"
            f"addr add {self.address(device)}/24 dev {DEVICE} noprefixroute\n"
            f"route add {SUBNET}.0/24 dev {DEVICE} congctl {_CONGESTION}\n"
        )

    def _entered(self) -> Switch:
        if self._switch is None:
            raise NoNetwork("the network was not entered, or has ended")
        return self._switch

    def _end(self) -> None:
        """End what was started, and what that started itself."""
        with self._lock:
            self._switch = None
            processes, self._processes = self._processes, []
        for process in processes:
            if process.poll() is None:
                process.kill()
        for name in self._names:
            _kill_inside(name)
        for process in processes:
            process.wait(_END_S)


def segments_at_once(mbit: float) -> int:
    """Segments that a device may send as one packet."""
    return max(1, min(_MOST_SEGMENTS, int(_AT_ONCE_S * mbit * 1e6 / 8 / _FRAME)))


def remove_leftovers() -> None:
    """Remove the namespaces of processes that ended without doing so, and what runs in them."""
    for name in _spaces():
        found = _NAME.fullmatch(name)
        if found and _started(int(found[1])) != int(found[2]):
            _remove(name)


def _spaces() -> list[str]:
    return sorted(path.name for path in SPACES.iterdir()) if SPACES.is_dir() else []


def _remove(name: str) -> None:
    try:
        if (SPACES / name).exists():
            _kill_inside(name)
            _ip("netns", "del", name)
    except NoNetwork:
        if (SPACES / name).exists():  # else another process removed it as well
            raise


def _kill_inside(name: str) -> None:
    """Kill all processes of a namespace of ours."""
    end = time.monotonic() + _END_S
    while found := _ip("netns", "pids", name).split():
        for process in map(int, found):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            raise NoNetwork(f"processes of {name} cannot be killed: {', '.join(found)}")
        time.sleep(0.01)


def _rate(mbit: float) -> float:
    if not 1e-3 <= mbit <= 1e5:
        raise ValueError(f"mbit must be 0.001 to 100000; found {mbit}")
    return float(mbit)


def _started(process: int) -> int | None:
    """When a process started, in ticks since the machine did; None where it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *others = text.rpartition(")")[2].split()
    return None if state == "Z" else int(others[18])


def _check() -> None:
    """Say what is missing.

    Raises:
        NoNetwork: something is.
    """
    if os.geteuid() != 0:
        raise NoNetwork("emulated networks take namespaces, which only root may make: use sudo")
    if shutil.which("ip") is None:
        raise NoNetwork("emulated networks take the command ip: install iproute2")
    if not TUN.exists():
        raise NoNetwork(f"there is no {TUN}, which emulated networks take: modprobe tun")


def _ip(*arguments: str, told: str = "") -> str:
    return do(["ip", *arguments], told=told)
