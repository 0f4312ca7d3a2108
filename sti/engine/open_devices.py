"""Reaching the other devices of an engine, when it is opened.

In: what the caller says of devices, an open pack, this machine. Out: ``SeveralDevices``. What
carries messages is imported here, where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

from sti.devices.chain import Chains
from sti.devices.config import DevicesConfig, load_devices
from sti.devices.facts import own_facts
from sti.devices.peers import Peers
from sti.engine.device_options import MPI, DeviceOptions
from sti.engine.machine import Machine
from sti.engine.several_devices import SeveralDevices
from sti.exchange.interface import Exchange
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.planning.plan import Plan
from sti.planning.step_jobs import StepJob

_CONTROLLER = "controller"
"""What other devices call this one where there are no keys, with a number of its own behind it: two
controllers of one name would take workers from each other."""


def open_devices(
    options: DeviceOptions,
    reader: PackReader,
    runner: Runner,
    machine: Machine,
    jobs_of: Callable[[Plan], tuple[StepJob, ...]],
    *,
    notify: Notify,
) -> SeveralDevices:
    """Reach the devices that are there, and get to know them.

    Raises:
        ConfigError, InputError: the file of devices or the keys cannot be used.
        ModuleNotFoundError: the library that carries messages is not installed.
    """
    if options.config is not None:
        config = load_devices(options.config)
    else:
        config = DevicesConfig(dict.fromkeys(options.ranks, MPI))
    with ExitStack() as failed:
        exchange, connect = _exchange(options, config, notify)
        failed.callback(exchange.close)
        facts = own_facts(
            reader, machine.speeds.profile, threads=machine.threads, room_bytes=0, preload_bytes=0
        )
        peers = Peers(exchange, config.addresses, facts, connect=connect, notify=notify)
        peers.meet()
        chains = Chains(peers, runner, jobs_of, reader.manifest)
        failed.pop_all()
    return SeveralDevices(
        exchange, peers, chains, reader.manifest, machine, options, config.link_type
    )


def _exchange(
    options: DeviceOptions, config: DevicesConfig, notify: Notify
) -> tuple[Exchange, Callable[[str, str], None]]:
    """What reaches the devices, and what makes one more of them reachable."""
    if options.exchange is not None:
        return options.exchange, lambda name, address: None
    from sti.exchange.zeromq.exchange import ZmqExchange
    from sti.exchange.zeromq.keys import Keys

    keys = None if options.keys is None else Keys.load(Path(options.keys))
    name = f"{_CONTROLLER}-{token_hex(3)}" if keys is None else keys.name
    exchange = ZmqExchange(name, keys=keys, notify=notify)
    return exchange, exchange.connect
