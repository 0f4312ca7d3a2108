"""One case of the row ``processes``, as a process of its own: ``KIND PACK SEED``.

Ends with 0 where all that the case promises holds; what does not is raised.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.security_amid_cases import close_amid, fork_amid, frozen, pool, run_amid
from benchmarks.security_end_cases import (
    exit_amid_opening,
    exit_daemons,
    exit_others,
    interrupted,
    tasks,
)
from benchmarks.security_fork_cases import fork, fork_amid_opening, started
from benchmarks.security_stuck_cases import no_threads, stuck_opening, stuck_read

CASES: dict[str, Callable[[Path, random.Random], None]] = {
    "fork": fork,
    "fork amid opening": fork_amid_opening,
    "multiprocessing": started,
    "end, daemons": exit_daemons,
    "end amid opening": exit_amid_opening,
    "end, others": exit_others,
    "asyncio": tasks,
    "no threads": no_threads,
    "stuck read": stuck_read,
    "stuck opening": stuck_opening,
    "interrupted": interrupted,
    "close in a handler": close_amid,
    "run in a handler": run_amid,
    "fork in a handler": fork_amid,
    "error in a pool": pool,
    "frozen amid reads": frozen,
}
"""By kind."""


if __name__ == "__main__":
    CASES[sys.argv[1]](Path(sys.argv[2]), random.Random(int(sys.argv[3])))
