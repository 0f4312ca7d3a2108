"""The processes of ``benchmarks.devices_faults``: a worker, or an engine that is asked again.

    python -m benchmarks.devices_faults_child SPEC

SPEC is the JSON of ``Spec``. A worker writes a line when it listens, and serves until it is ended.
A controller writes a line when its engine is open, one for each thing that the engine tells, one
whenever a device is lost to the process, whatever the engine is at, and, for each line of standard
input, one with what an answer was like (``Answered``); it ends with its standard input. Times are
of the system's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from benchmarks.slow_device import emulated, slow_options, slowed
from sti.device.profile import DeviceProfile
from sti.devices.config import load_devices
from sti.engine.device_options import DeviceOptions
from sti.engine.engine import Engine
from sti.engine.serving import WorkerOptions, open_worker
from sti.engine.targets import TargetSpec
from sti.errors import ClosedError, DeadlineError, PeerError, PeerLostError
from sti.exchange.interface import Exchange
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys
from sti.pack.pack_reader import PackReader
from sti.planning.strategies import CHAIN

FIDELITY = 4
_LOCK = threading.Lock()
_NO_KEY = "nobody sends this"
_LOOK_S = 0.02


class Spec(NamedTuple):
    """What a process is to be."""

    pack: str
    profile: str
    """File of this machine's profile, with one compute thread."""
    keys: str
    times: float
    """How many times slower the device is than this machine."""
    listen: str = ""
    """A worker: ``ADDR:PORT``."""
    config: str = ""
    """A controller: the file of devices; empty for none."""
    texts: tuple[str, ...] = ()
    """A controller: what it is asked."""


class Answered(NamedTuple):
    """An answer, as the controller's process saw it."""

    begun_s: float
    ended_s: float
    digest: str
    """Of its bits."""
    devices: tuple[str, ...]
    """That computed it; none where the controller did it alone."""
    predicted_s: float
    notices: tuple[str, ...]


def main(argv: list[str]) -> None:
    """Be what is asked for."""
    spec = Spec(**json.loads(argv[0]))
    text = Path(spec.profile).read_text("utf-8")
    profile = DeviceProfile.from_json(json.loads(text), where=spec.profile)
    if spec.listen:
        _work(spec, profile)
    else:
        _control(spec, profile)


def _work(spec: Spec, profile: DeviceProfile) -> None:
    keys = Keys.load(Path(spec.keys))
    options = WorkerOptions(
        threads=1,
        memory_bytes=1 << 30,
        profile=emulated(profile, times=spec.times),
        wrap=lambda backend: slowed(backend, spec.times),
        notify=_say,
    )
    exchange = ZmqExchange(keys.name, listen=spec.listen, keys=keys, notify=_say)
    with (
        closing(exchange),
        open_worker(Path(spec.pack), exchange, exchange.connect, options) as serving,
    ):
        _write({"listens": exchange.address})
        serving.worker.serve()


def _control(spec: Spec, profile: DeviceProfile) -> None:
    pack, devices = Path(spec.pack), None
    if spec.config:
        keys, peers = Keys.load(Path(spec.keys)), load_devices(spec.config).addresses
        exchange = ZmqExchange(keys.name, peers=peers, keys=keys, notify=_say)
        for name in peers:
            threading.Thread(target=_watch, args=(exchange, name), daemon=True).start()
        devices = DeviceOptions(spec.config, strategy=CHAIN, exchange=exchange)
    options = slow_options(pack, profile, times=spec.times, devices=devices, notify=_say)
    with Engine(PackReader.open(pack), TargetSpec(fidelity=FIDELITY), options) as engine:
        _write({"opened": True})
        for _ in sys.stdin:
            _write(_answer(engine, spec.texts)._asdict())


def _watch(exchange: Exchange, name: str) -> None:
    """Tell whenever a device is lost."""
    there = False
    while True:
        try:
            exchange.receive(key=_NO_KEY, peer=name, deadline=time.monotonic() + _LOOK_S)
        except PeerLostError:
            if there:
                _write({"lost": name, "at_s": time.monotonic()})
            there = False
            time.sleep(_LOOK_S)
        except DeadlineError:
            there = True
        except (PeerError, ClosedError):
            return


def _answer(engine: Engine, texts: tuple[str, ...]) -> Answered:
    begun_s = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = engine.run(texts)
    ended_s = time.monotonic()
    predicted = result.plan.predicted
    return Answered(
        begun_s,
        ended_s,
        sha256(result.embeddings.tobytes()).hexdigest(),
        tuple(stage.device for stage in result.stages),
        0.0 if predicted is None else predicted.total_s,
        result.notices,
    )


def _say(line: str) -> None:
    _write({"said": line, "at_s": time.monotonic()})


def _write(fields: object) -> None:
    with _LOCK:
        print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
