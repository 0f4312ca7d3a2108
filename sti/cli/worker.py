"""``sti worker``: let this device compute layers for others, until it is stopped.

In: parsed arguments. Out: a line, or a JSON document, once it listens; what happens then as notices
on standard error.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from sti.cli.program import notice, print_json, say
from sti.engine.serving import Serving, WorkerOptions, open_worker
from sti.errors import InputError
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys
from sti.planning.plan import LOCAL
from sti.units import format_size, parse_size


def execute(args: argparse.Namespace) -> None:
    """Serve a pack, or a part of one."""
    keys = None if args.keys is None else Keys.load(Path(args.keys))
    if keys is None and args.name is None:
        raise InputError(
            "a worker needs a name: that of its keys (--keys DIR), or --name NAME on this machine"
        )
    if keys is not None and args.name not in (None, keys.name):
        raise InputError(f"--name {args.name}: the keys are those of {keys.name}; leave it out")
    if args.name == LOCAL:
        raise InputError(f"--name {LOCAL}: controllers call themselves that; choose another name")
    options = WorkerOptions(
        threads=args.threads,
        memory_bytes=None if args.memory is None else parse_size(args.memory, name="--memory"),
        preload_bytes=0 if args.preload is None else parse_size(args.preload, name="--preload"),
        notify=notice,
    )
    name = args.name if keys is None else keys.name
    exchange = ZmqExchange(name, listen=args.listen, keys=keys, notify=notice)
    with (
        closing(exchange),
        open_worker(Path(args.pack), exchange, exchange.connect, options) as serving,
    ):
        _tell(args, exchange, serving)
        try:
            serving.worker.serve()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the worker has stopped") from None


def _tell(args: argparse.Namespace, exchange: ZmqExchange, serving: Serving) -> None:
    """Say that controllers may come."""
    facts = serving.facts
    if args.json:
        print_json(
            {
                "name": exchange.name,
                "address": exchange.address,
                "layers": [facts.first, facts.last],
                "room_bytes": facts.room_bytes,
                "preload_bytes": facts.preload_bytes,
                "threads": facts.threads,
                "device": facts.machine,
            }
        )
    else:
        print(
            f"{exchange.name} listens at {exchange.address}: layers {facts.first} to {facts.last}, "
            f"memory {format_size(facts.room_bytes)}"
        )
        say("Ctrl-C stops it")
    sys.stdout.flush()  # whoever started it waits for this line
