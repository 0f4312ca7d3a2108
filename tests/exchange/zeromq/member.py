"""A member in a process of its own, which echoes.

    python -m tests.exchange.zeromq.member OPTIONS

Options are a JSON object: those of ``ZmqExchange``, with the name of a folder of keys. Writes lines
of JSON: its address, then who was found or lost, and when on the system's clock.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sti.exchange.interface import FOUND, LOST
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys


def main(options: dict[str, object]) -> None:
    folder = options.pop("keys", None)
    keys = None if folder is None else Keys.load(Path(str(folder)))
    exchange = ZmqExchange(keys=keys, **options)  # type: ignore[arg-type]
    say(address=exchange.address)
    while True:
        message = exchange.receive(deadline=None)
        if message.key in (FOUND, LOST):
            say(key=message.key, peer=message.peer, head=message.head, at_s=time.monotonic())
        elif message.key == "end":
            exchange.close()
            return
        else:
            exchange.send(message.peer, message.key, message.head, message.arrays)


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
