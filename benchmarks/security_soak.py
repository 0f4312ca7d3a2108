"""A long soak: does memory grow, or do descriptors, threads or an answer change over many runs?

In: packs, of which the first is run. Out: samples of one process (``security_soak_child``), kept in
a file as they come, and the slope of its memory with a bound that holds though samples that follow
one another are alike.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import median
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.common import ROOT, Column, Table, at_most
from benchmarks.memory_setting import MB
from benchmarks.rows import reported, tell
from benchmarks.security_setting import Setting, Summary

RUNS = 100_000
EVERY = 500
"""Runs between samples, and between openings of the engine."""
LEAST_SAMPLES = 40
"""With fewer a slope is no figure."""
WARM = 0.25
"""Share of the samples before which memory still fills what it keeps."""
WANTED_BYTES = 1.0
_STEADY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 17),
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    "PYTHONMALLOC": "malloc",
}
"""So that what is freed is given back, and what is in use is counted, Python's objects included. As
they are, the C library raises the size from which blocks have pages of their own by what it sees
freed, and Python keeps a mebibyte for as long as one object lies in it: holes of megabytes, more or
fewer from sample to sample, in which no slope of a few bytes a run would be seen."""
_MEMORY = {
    "closed_used_bytes": "in use, closed",
    "closed_bytes": "resident, closed",
    "open_used_bytes": "in use, open",
    "open_bytes": "resident, open",
}
"""Fields of a sample to what they are called: memory that was asked for and not given back, and
that of the pages behind it."""
_LINE_S = 900.0
"""A sample that takes longer is a hang."""
_BATCHES = 10
_T95 = 1.833
"""One-sided 95 % point of Student's distribution, of ``_BATCHES - 1`` degrees of freedom."""


class Sample(NamedTuple):
    """The process after so many runs, with its engine and when that was closed."""

    runs: int
    seconds: float
    answer: str
    """A hash of the fixed text's."""
    open_bytes: int
    open_used_bytes: int | None
    open_threads: int
    open_descriptors: int
    closed_bytes: int
    closed_used_bytes: int | None
    closed_threads: int
    closed_descriptors: int
    did: dict[str, int]


class Slope(NamedTuple):
    """Growth, in bytes a run."""

    found: float
    bound: float
    """The upper one, of 95 %."""


def measure(setting: Setting) -> Iterator[Sample]:
    """One process; a sample each ``EVERY`` runs.

    Raises:
        RuntimeError: it ended early, or hung.
    """
    runs = setting.count(RUNS)
    every = max(1, min(EVERY, runs // 4))
    command = [sys.executable, "-m", "benchmarks.security_soak_child", str(setting.packs[0])]
    command += [str(runs), str(every), str(setting.seed)]
    with (
        (setting.place / "said").open("w+b") as said,
        (setting.place / "samples.jsonl").open("wb") as kept,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **_STEADY, "XDG_CACHE_HOME": str(setting.place)},
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in _lines(process.stdout):
                kept.write(line)
                kept.flush()
                sample = Sample(**json.loads(line))
                tell(
                    f"soak: {sample.runs:,} of {runs:,} runs, {sample.closed_bytes / MB:.2f} MB, "
                    f"{sample.seconds:.0f} s"
                )
                yield sample
        finally:
            process.kill()
        if sample.runs < runs:
            said.seek(0)
            last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            raise RuntimeError(f"the soak ended after {sample.runs} runs: {last}")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines as they come.

    Raises:
        RuntimeError: none did for too long.
    """
    rest = b""
    while True:
        if not select.select([stream], [], [], _LINE_S)[0]:
            raise RuntimeError(f"the soak told nothing for {_LINE_S:.0f} s")
        part = os.read(stream.fileno(), 1 << 16)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from (line + b"\n" for line in whole)


def slope_of(runs: ArrayLike, sizes: ArrayLike) -> Slope:
    """The median of the slopes between all pairs of samples (Theil and Sen), and its bound.

    Samples near one another are alike, so the error is not taken from them one by one: their
    differences from the line are averaged over a few batches in a row, and the error of a slope
    through those averages is taken.
    """
    x, y = np.asarray(runs, np.float64), np.asarray(sizes, np.float64)
    first, second = np.triu_indices(len(x), 1)
    found = float(np.median((y[second] - y[first]) / (x[second] - x[first])))
    left = y - found * x
    left -= np.median(left)
    batches = min(_BATCHES, len(x))
    means = np.array([part.mean() for part in np.array_split(left, batches)])
    middles = np.array([part.mean() for part in np.array_split(x, batches)])
    away = middles - middles.mean()
    error = sqrt(float(means.var(ddof=1)) / float((away**2).sum()))
    return Slope(found, found + _T95 * error)


def summarize(items: Sequence[Sample]) -> Summary:
    """Slopes after the warm-up; what else must stay the same, over all samples."""
    found = Summary()
    columns = [Column("runs", ",d"), Column("seconds", ".0f")]
    columns += [Column(f"{name}, MB", ".3f") for name in _MEMORY.values()]
    columns += [Column("threads", "d"), Column("descriptors", "d")]
    table = Table("Soak", tuple(columns))
    for item in items[:: max(1, len(items) // 10)]:
        fields = (getattr(item, field) for field in _MEMORY)
        sizes = [None if size is None else size / MB for size in fields]
        counts = (item.open_threads, item.open_descriptors)
        table.rows.append((item.runs, item.seconds, *sizes, *counts))
    found.tables.append(table)
    total = f"of {items[-1].runs:,} runs"
    for name in ("threads", "descriptors"):
        closed = [getattr(item, f"closed_{name}") for item in items]
        more = max(closed) - closed[0]
        found.limits.append(at_most(f"soak: more {name}, closed, {total}", more, 0))
        # While an engine is open they differ with the plan and with what threads are counted.
        counts = [getattr(item, f"open_{name}") for item in items]
        part = max(1, len(counts) // 4)
        more = median(counts[-part:]) - median(counts[:part])
        found.limits.append(at_most(f"soak: more {name}, open, last quarter to first", more, 0))
        found.limits.append(reported(f"soak: {name}, open, most", max(counts)))
    other = sum(item.answer != items[0].answer for item in items)
    found.limits.append(at_most(f"soak: other answers to one text {total}", other, 0))
    warm = items[int(WARM * len(items)) :]
    if len(warm) >= 3:
        for field, words in _MEMORY.items():
            sizes = [getattr(item, field) for item in warm]
            if None in sizes:
                found.notes.append(f"soak: the system does not tell memory that is {words}")
                continue
            slope = slope_of([item.runs for item in warm], sizes)
            name = f"soak: {words}, bytes a run"
            found.limits.append(reported(f"{name}: slope", slope.found))
            bound = f"{name}: upper 95 % bound"
            if len(items) >= LEAST_SAMPLES:
                found.limits.append(at_most(bound, slope.bound, WANTED_BYTES))
            else:
                found.limits.append(reported(bound, slope.bound))
    did = ", ".join(f"{what} {count:,}" for what, count in sorted(items[-1].did.items()))
    found.notes.append(f"soak: between the runs: {did}")
    return found


def main() -> int:
    """Read samples that were kept: ``python -m benchmarks.security_soak FILE``."""
    with open(sys.argv[1], "rb") as stream:
        found = summarize([Sample(**json.loads(line)) for line in stream])
    for table in found.tables:
        print(table.markdown())
    print(*found.limits, *found.notes, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
