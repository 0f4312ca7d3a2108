"""A controller of the benchmark: a child process with engines on one emulated device.

    python -m benchmarks.devices.controller ASKED

ASKED is the JSON of ``Asked``. Each line of standard input is a question, a JSON object with
``do``, and gets a line as an answer, ``{"error": ...}`` where it failed:

- ``open``: an engine of a strategy, or ``local`` without other devices: how long that took
- ``run``: texts through an engine (``Ran``)
- ``price``: every strategy of an engine for a size of batch (``Priced``)
- ``stages``: texts through given stages, whatever they cost (``sti.devices.chain``)
- ``counted``: what this device has read since (``Counted``)

It ends with its standard input. Knows nothing of networks but where devices are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.devices.given_stages import GivenStages
from benchmarks.devices.kinds import Counted, CountingReader, Kind, engine_options, loaded
from benchmarks.devices.packed import BITS
from sti.devices.config import load_devices
from sti.engine.device_options import DeviceOptions
from sti.engine.engine import Engine
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import StiError
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys
from sti.pack.pack_reader import PackReader
from sti.planning.plan import LOCAL
from sti.planning.strategies import Strategy


class Asked(NamedTuple):
    """What a controller is to be."""

    pack: str
    profile: str
    """File of the device's profile."""
    config: str
    """Names the devices."""
    times: float
    storage: str | None


class Ran(NamedTuple):
    """A run as its caller sees it."""

    total_s: float
    predicted_s: float
    stages: str
    """Empty where this device ran all layers."""
    bytes_read: int
    digest: str
    """Of the answer's bits."""
    notices: list[str]


class Priced(NamedTuple):
    """A strategy as it is planned."""

    name: str
    words: str
    taken: bool
    units: int
    total_s: float
    memory_bytes: Mapping[str, int]
    read_bytes: Mapping[str, int]
    sent_bytes: int


class Controller:
    """The engines of one device. Closed by ``opened``.

    Args:
        asked: what it is.
        opened: closes what it opens.
    """

    def __init__(self, asked: Asked, opened: ExitStack) -> None:
        self._asked, self._opened = asked, opened
        self._engines: dict[str, Engine] = {}
        self._readers: list[CountingReader] = []
        self._stages: GivenStages | None = None

    def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what a line asks for.

        Raises:
            StiError: why it cannot be done.
        """
        asked = dict(question)
        do: str = asked.pop("do")
        return dict(getattr(self, f"on_{do}")(**asked))

    def on_open(self, name: str, strategy: str, keys: str | None = None) -> Mapping[str, Any]:
        """Open an engine.

        Args:
            name: to be asked for.
            strategy: of ``DeviceOptions``; ``local``: without other devices.
            keys: folder; each engine that is open needs a name of its own.
        """
        start, asked = perf_counter(), self._asked
        devices = None if strategy == LOCAL else DeviceOptions(asked.config, keys, strategy)
        pack, kind = Path(asked.pack), Kind(asked.times, asked.storage)
        options = engine_options(pack, loaded(Path(asked.profile)), kind, devices, _notice)
        assert isinstance(options.storage, CountingReader), "made so"
        self._readers.append(options.storage)
        engine = Engine(PackReader.open(pack), TargetSpec(fidelity=BITS), options)
        self._engines[name] = self._opened.enter_context(engine)
        return {"seconds": perf_counter() - start}

    def on_run(self, name: str, texts: Sequence[str]) -> Mapping[str, Any]:
        """Run texts."""
        return ran(self._engines[name].run(texts))._asdict()

    def on_price(self, name: str, texts: int, tokens: int) -> Mapping[str, Any]:
        """Every strategy."""
        found, taken = self._engines[name].strategies(batch=texts, tokens=tokens)
        return {"strategies": [_priced(item, taken=item is taken)._asdict() for item in found]}

    def on_stages(
        self,
        keys: str,
        texts: Sequence[str],
        stages: Sequence[tuple[str, int, int]],
        units: int,
        link_type: str,
    ) -> Mapping[str, Any]:
        """Run texts through stages."""
        if self._stages is None:
            own, config = Keys.load(Path(keys)), load_devices(self._asked.config)
            exchange = ZmqExchange(own.name, keys=own, notify=_notice)
            made = GivenStages(
                Path(self._asked.pack), exchange, config.addresses, exchange.connect, BITS
            )
            self._stages = self._opened.enter_context(made)
        outputs = self._stages.run(texts, stages, units=units, link_type=link_type)
        return {"digests": [sha256(row.tobytes()).hexdigest() for row in outputs]}

    def on_digests(self, name: str, texts: Sequence[str]) -> Mapping[str, Any]:
        """The bits of each text's answer, run together."""
        rows = self._engines[name].run(texts).embeddings
        return {"digests": [sha256(row.tobytes()).hexdigest() for row in rows]}

    def on_counted(self) -> Mapping[str, Any]:
        """What all engines have read; begins anew."""
        found = [reader.counted for reader in self._readers]
        for reader in self._readers:
            reader.begin_anew()
        total = Counted(
            sum(item.read_bytes for item in found), sum(item.held_bytes for item in found)
        )
        return total._asdict()


def ran(result: Result) -> Ran:
    """What a benchmark keeps of a result."""
    plan = result.plan
    assert plan.predicted is not None, "the machine is known"
    stages = ", ".join(f"{item.device} {item.first}-{item.last}" for item in result.stages)
    return Ran(
        total_s=result.timing.total_s,
        predicted_s=plan.predicted.total_s,
        stages=stages,
        bytes_read=result.bytes_read,
        digest=sha256(result.embeddings.tobytes()).hexdigest(),
        notices=list(result.notices),
    )


def _priced(item: Strategy, *, taken: bool) -> Priced:
    return Priced(
        item.name,
        item.words,
        taken,
        item.units,
        item.total_s,
        dict(item.memory_bytes),
        dict(item.read_bytes),
        item.sent_bytes,
    )


def main() -> None:
    """Answer questions until there are no more."""
    asked = Asked(**json.loads(sys.argv[1]))
    with ExitStack() as opened:
        controller = Controller(asked, opened)
        print(json.dumps({"ready": "controller"}), flush=True)
        for line in sys.stdin:
            try:
                found: Mapping[str, Any] = controller.answer(json.loads(line))
            except (OSError, RuntimeError, ValueError, StiError) as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(found), flush=True)


def _notice(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
