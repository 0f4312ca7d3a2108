"""Commands under ``mpiexec``: rank 0 carries them out, the other ranks are its workers.

In: parsed arguments, the same on every rank; how the command is carried out. Out: its answer, on
rank 0 alone. Ends MPI on every rank, also when the command fails.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sti.cli.program import notice
from sti.engine.serving import WorkerOptions, open_worker
from sti.errors import InputError
from sti.exchange.mpi import MpiExchange, finalize

_FIRST = "rank0"


def execute(args: argparse.Namespace, command: Callable[[argparse.Namespace], int | None]) -> int:
    """Carry a command out, or work for the rank that does.

    Raises:
        InputError: there is one rank alone, or there are options for other networks.
        RunError: there is no MPI library.
    """
    code: int | None = None
    with closing(MpiExchange(notify=notice)) as exchange:
        if not exchange.peers:
            raise InputError(
                "--engine mpi needs several ranks: `mpiexec -n 4 sti run PACK ... --engine mpi`"
            )
        if exchange.name == _FIRST:
            args.exchange = exchange
            code = command(args)
        else:
            options = WorkerOptions(threads=args.threads, notify=notice)
            with open_worker(Path(args.pack), exchange, lambda *_: None, options) as serving:
                serving.worker.serve(until_lost=_FIRST)
    finalize()
    return code or 0
