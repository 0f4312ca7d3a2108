"""What checking everything costs an opening: another revision of STI and this one, in turns.

Row ``opening`` of ``benchmarks.security``. Each turn opens every pack once with either revision, in
two processes that stay, have everything imported, and find everything in the page cache. Knows
nothing of what opening does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.common import Column, Table
from benchmarks.rows import Summary
from benchmarks.security_setting import Setting

TURNS = 200
MOST_MORE_MS = 2.0
_CHILD = """
import json, sys
from time import perf_counter
import sti
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    start = perf_counter()
    with sti.Engine.open(json.loads(line), fidelity=4, threads=1):
        taken = perf_counter() - start
    print(json.dumps(taken), flush=True)
"""
"""Of either revision, so it uses nothing of the benchmarks."""


class Opening(NamedTuple):
    """One turn on one pack."""

    pack: str
    before_s: float
    after_s: float


class _Child:
    """A process that opens packs with the STI of one checkout."""

    def __init__(self, tree: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree)}
        command = [sys.executable, "-c", _CHILD]
        self._process = subprocess.Popen(
            command, env=environment, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._answer()

    def open(self, pack: Path) -> float:
        """Seconds of one opening."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(str(pack)).encode() + b"\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process that opens packs has ended; it says why above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def measure(setting: Setting) -> Iterator[Opening]:
    """Turns on each pack; none without another revision."""
    if setting.before is None:
        return
    with ExitStack() as last:
        before, after = _Child(setting.before), _Child(common.ROOT)
        last.callback(before.close)
        last.callback(after.close)
        for pack in setting.packs:
            before.open(pack), after.open(pack)  # reads it into the page cache
            for turn in range(setting.count(TURNS)):
                first, second = (before, after) if turn % 2 else (after, before)
                one, other = first.open(pack), second.open(pack)
                times = (one, other) if turn % 2 else (other, one)
                yield Opening(pack.name.partition(".")[0], *times)


def summarize(found: Sequence[Opening]) -> Summary:
    """The median of the differences of turns."""
    table = Table(
        "Opening, before and after",
        (
            Column("pack"),
            Column("before, ms", ".2f"),
            Column("now, ms", ".2f"),
            Column("more, ms", ".2f"),
            Column("turns"),
        ),
    )
    limits = []
    for pack in dict.fromkeys(item.pack for item in found):
        own = [item for item in found if item.pack == pack]
        before, after = (1e3 * median(times) for times in zip(*(i[1:] for i in own), strict=True))
        more = 1e3 * median(item.after_s - item.before_s for item in own)
        table.rows.append((pack, before, after, more, str(len(own))))
        limits.append(common.at_most(f"more of an opening, ms, {pack}", more, MOST_MORE_MS))
    notes = [] if found else ["needs --before, a checkout of another revision"]
    return Summary(limits, [table], notes)
