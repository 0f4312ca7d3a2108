"""Ranks of an MPI job: rank 0 runs texts through stages, the others are its workers.

    mpiexec -n 3 python -m benchmarks.devices.ranks ASKED

ASKED is the JSON of ``Asked``. Rank 0 writes a line with the bits of each text's answer, for each
list of stages and each number of units.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from benchmarks.devices.given_stages import GivenStages
from benchmarks.devices.packed import BITS
from sti.engine.serving import WorkerOptions, open_worker
from sti.exchange.mpi import MpiExchange, finalize, name_of
from sti.planning.links import FLOAT32


class Asked(NamedTuple):
    """What is to be run."""

    pack: str
    texts: list[str]
    stages: list[list[tuple[str, int, int]]]
    units: list[int]


def main() -> None:
    """Do what this rank has to do."""
    asked = Asked(**json.loads(sys.argv[1]))
    pack, first = Path(asked.pack), name_of(0)
    with closing(MpiExchange()) as exchange:
        if exchange.name != first:
            options = WorkerOptions(threads=1, notify=lambda _: None)
            with open_worker(pack, exchange, lambda *_: None, options) as serving:
                serving.worker.serve(until_lost=first)
        else:
            addresses = dict.fromkeys(exchange.peers, "nowhere:1")
            made = GivenStages(pack, exchange, addresses, lambda *_: None, BITS)
            with made as given:
                for stages in asked.stages:
                    for units in asked.units:
                        rows = given.run(asked.texts, stages, units=units, link_type=FLOAT32)
                        digests = [sha256(row.tobytes()).hexdigest() for row in rows]
                        print(json.dumps(digests), flush=True)
    finalize()


if __name__ == "__main__":
    main()
