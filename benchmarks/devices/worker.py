"""A worker of the benchmark: a child process that serves a pack as an emulated device does.

    python -m benchmarks.devices.worker ASKED

ASKED is the JSON of ``Asked``. It writes a line when it listens, answers each line of standard
input with what it has counted since the last one (``Counted``), and ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.devices.kinds import CountingReader, Kind, loaded, worker_options
from sti.engine.serving import open_worker
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys


class Asked(NamedTuple):
    """What a worker is to be."""

    pack: str
    profile: str
    """File of the device's profile."""
    keys: str
    listen: str
    times: float
    storage: str | None
    preload_bytes: int = 0


def main() -> None:
    """Serve until standard input ends."""
    asked = Asked(**json.loads(sys.argv[1]))
    keys = Keys.load(Path(asked.keys))
    kind = Kind(asked.times, asked.storage)
    options, reader = worker_options(
        Path(asked.pack),
        loaded(Path(asked.profile)),
        kind,
        _notice,
        preload_bytes=asked.preload_bytes,
    )
    exchange = ZmqExchange(keys.name, listen=asked.listen, keys=keys, notify=_notice)
    with (
        closing(exchange),
        open_worker(Path(asked.pack), exchange, exchange.connect, options) as serving,
    ):
        questions = threading.Thread(target=_answer, args=(reader, exchange))
        questions.start()
        print(json.dumps({"ready": exchange.address}), flush=True)
        serving.worker.serve()
        questions.join()


def _answer(reader: CountingReader, exchange: ZmqExchange) -> None:
    """Tell what was counted, line by line; then let the worker end."""
    for _ in sys.stdin:
        counted = reader.counted
        reader.begin_anew()
        print(json.dumps(counted._asdict()), flush=True)
    exchange.close()


def _notice(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
