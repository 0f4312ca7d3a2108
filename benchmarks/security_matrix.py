"""The fault matrix: kinds of faults by stages by lanes, each cell of which ends as specified.

In: what all rows are measured with. Out: a record for each cell, and limits. The specification is
``security_matrix_cells``; cells are tried in a process of their own (``python -m
benchmarks.security_matrix``), so that one that hangs or crashes is counted and the rest goes on.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from itertools import cycle, groupby, islice
from pathlib import Path
from random import Random
from typing import IO, NamedTuple

from benchmarks.common import Column, Table, at_most
from benchmarks.rows import reported, tell
from benchmarks.security_matrix_cells import ENDS, STAGES, Cell, cells
from benchmarks.security_setting import Setting, Summary

HANGS_S = 60.0
"""A cell that takes longer is ended, with its process."""
START_S = 300.0
HUNG, DIED = "hangs", "ends the process"
_SHOWN = 20
_SETTLED = 200
"""Cells that say something about memory."""


class Tried(NamedTuple):
    """One cell, once."""

    cell: Cell
    expected: str
    found: str
    wrong: str
    took_s: float
    anonymous_bytes: int
    """Anonymous memory of the process afterwards."""


def measure(setting: Setting) -> Iterator[Tried]:
    """Every cell once; or as many as asked for, drawn at random, and again from the first one."""
    every = [*cells()]
    count = setting.count(len(every))
    if count < len(every):
        drawn = Random(setting.seed).sample(range(len(every)), count)
        every = [every[number] for number in sorted(drawn)]
    every = [*islice(cycle(every), count)]
    tell(f"matrix: {len(every)} cells")
    yield from tried(every, setting.place)


def tried(every: Sequence[Cell], place: Path) -> Iterator[Tried]:
    """Try cells, in as many processes as that takes."""
    first = 0
    while first < len(every):
        for item in _in_a_process(every[first:], place):
            yield item
            first += 1


def _in_a_process(every: Sequence[Cell], place: Path) -> Iterator[Tried]:
    """Try cells until one hangs or ends the process, which is the last one that is reported."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        command = [sys.executable, "-m", "benchmarks.security_matrix", directory]
        environment = {**os.environ, "TMPDIR": directory, "STI_HISTORY": "off"}
        environment["XDG_CACHE_HOME"] = str(Path(directory) / "cache")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            lines = _lines(process.stdout)
            try:
                for number, cell in enumerate(every):
                    process.stdin.write(json.dumps(cell) + "\n")
                    process.stdin.flush()
                    try:
                        line = lines.get(timeout=HANGS_S if number else START_S)
                    except queue.Empty:
                        yield Tried(cell, cell.expected, HUNG, HUNG, HANGS_S, 0)
                        return
                    if line is None:
                        yield Tried(cell, cell.expected, DIED, DIED, 0.0, 0)
                        return
                    yield Tried(cell, cell.expected, *json.loads(line))
            except BrokenPipeError:
                yield Tried(cell, cell.expected, DIED, DIED, 0.0, 0)
            finally:
                process.kill()


def _lines(stream: IO[str]) -> queue.SimpleQueue[str | None]:
    """The lines of a stream as they come; None at its end."""
    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            found.put(line)
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    return found


def specification() -> Table:
    """How each kind of fault has to end, by when it happens."""
    columns = ("fault", "opening", "preload fill, refill", "token rows", "slice groups")
    columns += ("between runs", "graph building", "closing")
    table = Table("How faults have to end", tuple(Column(name) for name in columns))
    for kind, ends in ENDS.items():
        table.rows.append((kind, *(end or "-" for end in ends)))
    return table


def summarize(found: Sequence[Tried]) -> Summary:
    """Cells by stage and lanes, and those that did not end as specified."""
    wrong = [item for item in found if item.wrong]
    columns = (Column("stage"), Column("lanes"), Column("cells", ",d"), Column("wrong", ",d"))
    table = Table("Fault matrix", (*columns, Column("slowest, ms", ".0f")))
    ordered = sorted(found, key=lambda item: (STAGES.index(item.cell.stage), item.cell.lanes))
    for (stage, lanes), group in groupby(ordered, lambda item: (item.cell.stage, item.cell.lanes)):
        mine = list(group)
        bad = sum(bool(item.wrong) for item in mine)
        slowest = max(item.took_s for item in mine) * 1e3
        table.rows.append((stage, lanes, len(mine), bad, slowest))
    summary = Summary()
    summary.tables += [specification(), table]
    summary.limits.append(at_most("cells of the fault matrix that end otherwise", len(wrong), 0))
    sizes = [item.anonymous_bytes for item in found if item.anonymous_bytes]
    half = sizes[len(sizes) // 2 :]
    if len(half) >= _SETTLED:
        growth = (half[-1] - half[0]) / (len(half) - 1)
        summary.limits.append(reported("growth of memory, bytes a cell, of the later half", growth))
    summary.notes += [
        f"{' / '.join(item.cell)}: {item.expected}; found {item.found}; {item.wrong}"
        for item in wrong[:_SHOWN]
    ]
    return summary


def work(place: Path) -> None:
    """Try the cells that come as lines of JSON; a line of JSON for each."""
    from benchmarks.security_matrix_trial import Trial
    from sti.calibration.cache import cache_directory
    from sti.device import host

    trial = Trial(place, cache_directory())
    for line in sys.stdin:
        ended = trial.try_cell(Cell(*json.loads(line)))
        size = host.anonymous_bytes() or 0
        print(json.dumps([ended.found, ended.wrong, ended.took_s, size]), flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
