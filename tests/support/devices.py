"""Several devices in one process: workers as threads, which give a chain what it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sti.backend.interface import Backend
from sti.backend.onnxruntime.compute import OrtBackend
from sti.device.profile import DeviceProfile
from sti.devices.chain import Chains
from sti.devices.facts import Facts, own_facts
from sti.devices.peers import Peers
from sti.devices.worker import Worker
from sti.exchange.interface import Exchange
from sti.exchange.threads import ThreadExchange, thread_exchanges
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.planning.plan import Plan
from sti.planning.step_jobs import StepJob, prepare
from tests.support.synthetic import make_profile

CONTROLLER = "controller"


class Machine(NamedTuple):
    """A pack, open and ready to compute."""

    reader: PackReader
    backend: Backend
    runner: Runner

    def jobs(self, plan: Plan) -> tuple[StepJob, ...]:
        return prepare(plan, self.reader.manifest, self.reader.group_offset)


class Devices(NamedTuple):
    """A controller with its workers."""

    here: Machine
    exchanges: Mapping[str, Exchange]
    peers: Peers
    chains: Chains
    told: list[str]
    """By the controller and all workers."""


@contextmanager
def machine(
    pack: Path,
    *,
    lanes: int = 2,
    saturates: bool | None = None,
    wrap: Callable[[Backend], Backend] = lambda backend: backend,
) -> Iterator[Machine]:
    with ExitStack() as closed:
        reader = closed.enter_context(PackReader.open(pack))
        backend = wrap(OrtBackend(reader, lanes=lanes, saturates=saturates))
        runner = Runner(reader, backend)
        closed.callback(runner.close)
        yield Machine(reader, backend, runner)


def facts_of(reader: PackReader, profile: DeviceProfile | None = None) -> Facts:
    found = profile or make_profile(ladder=reader.manifest.ladder)
    return own_facts(reader, found, threads=2, room_bytes=1 << 30, preload_bytes=0)


@contextmanager
def serving(
    pack: Path,
    names: Sequence[str],
    parts: Mapping[str, Path] = MappingProxyType({}),
    *,
    saturates: Mapping[str, bool] = MappingProxyType({}),
    profile: DeviceProfile | None = None,
    notify: Notify = lambda _: None,
) -> Iterator[dict[str, ThreadExchange]]:
    """Workers of these names; the exchange of a controller among theirs.

    Args:
        parts, saturates: as of ``devices``.
        profile: what all of them say that they are.
    """
    with ExitStack() as closed:
        exchanges = thread_exchanges([CONTROLLER, *names])
        for name in names:
            place = parts.get(name, pack)
            at_work = closed.enter_context(machine(place, saturates=saturates.get(name)))
            worker = Worker(
                exchanges[name],
                at_work.reader,
                at_work.runner,
                at_work.backend,
                facts_of(at_work.reader, profile),
                connect=lambda *_: None,
                notify=notify,
            )
            thread = threading.Thread(target=worker.serve, name=f"worker {name}")
            thread.start()
            closed.callback(thread.join)
            closed.callback(exchanges[name].close)
        yield exchanges


@contextmanager
def devices(
    pack: Path,
    names: Sequence[str],
    parts: Mapping[str, Path] = MappingProxyType({}),
    *,
    saturates: Mapping[str, bool] = MappingProxyType({}),
) -> Iterator[Devices]:
    """Workers of these names, and a controller that has met them.

    Args:
        parts: of the pack, for those workers that have no more than that.
        saturates: what kind of processor to be, for those that are not to be as this machine is.
    """
    told: list[str] = []
    with ExitStack() as closed:
        exchanges = closed.enter_context(
            serving(pack, names, parts, saturates=saturates, notify=told.append)
        )
        here = closed.enter_context(machine(pack, saturates=saturates.get(CONTROLLER)))
        peers = Peers(
            exchanges[CONTROLLER],
            dict.fromkeys(names, "nowhere:1"),
            facts_of(here.reader),
            connect=lambda *_: None,
            notify=told.append,
        )
        closed.callback(exchanges[CONTROLLER].close)
        peers.meet()
        chains = Chains(peers, here.runner, here.jobs, here.reader.manifest)
        yield Devices(here, exchanges, peers, chains, told)
