"""Damaged copies of a pack: what a run says of each.

    python -m benchmarks.corruption models/all-MiniLM-L6-v2.sti.safetensors --cases 2000

Every case damages a copy of the pack in one way, opens it, answers a text at a fidelity drawn at
random, and mends it again. What counts as good: an error of ours that says so, a warning with an
answer at a lower fidelity that a sound pack gives too under the plan of the result, or the answer
of the sound pack, where the damage is in bytes that the run does not use. Every other round of
cases is of engines as they are opened by default, where embeddings never answer with less. Cases
run in a process of their own, so that a crash is counted and the rest goes on. Knows nothing of how
damage is found.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

import sti
from benchmarks import common
from benchmarks.common import Column, Report, Table
from sti.arrays import Float32Array
from sti.engine.results import Result
from sti.pack.pack_reader import PackReader
from sti.storage.byte_ranges import SECTOR

TOKENS = 16
LONGEST_RUN = 65536
MOST_SECTORS = 16
SECONDS_A_CASE = 60
KINDS = ("bit", "run", "zeroed sectors", "swapped sectors", "repeated sector", "word row")
OUTCOMES = (
    "refused",
    "told",
    "same answer",
    "silent",
    "untyped",
    "not replayable",
    "not asked for",
    "crash",
)
BAD = OUTCOMES[3:]


class Patch(NamedTuple):
    """Bytes to put at an offset."""

    offset: int
    data: bytes


class Regions(NamedTuple):
    """Where parts of a pack lie."""

    size: int
    blocks: int
    """Where the first block starts; everything behind it is blocks."""
    words: int
    row_bytes: int
    used: tuple[int, ...]
    """Token embeddings that the text needs."""


def damage(kind: str, data: bytes, regions: Regions, rng: Random) -> list[Patch]:
    """One way to damage a pack, at a place drawn at random."""
    if kind == "word row":
        return _damaged_row(data, regions, rng)
    # One in three among the blocks alone: nearly all that is elsewhere is words not in use.
    start = rng.choice((0, 0, regions.blocks))
    at = rng.randrange(start, regions.size)
    if kind == "bit":
        return [Patch(at, bytes([data[at] ^ 1 << rng.randrange(8)]))]
    if kind == "run":
        length = min(int(LONGEST_RUN ** rng.random()), regions.size - at)
        return [Patch(at, rng.randbytes(length))]
    sectors = regions.size // SECTOR
    first = at // SECTOR * SECTOR
    if kind == "zeroed sectors":
        return [Patch(first, bytes(SECTOR * min(rng.randint(1, MOST_SECTORS), sectors)))]
    other = rng.randrange(sectors) * SECTOR
    here, there = data[first : first + SECTOR], data[other : other + SECTOR]
    if kind == "repeated sector":
        return [Patch(first, there)]
    return [Patch(first, there), Patch(other, here)]


def _damaged_row(data: bytes, regions: Regions, rng: Random) -> list[Patch]:
    """A token embedding that the text needs: a bit, zeros, or another one in its place."""
    at = regions.words + rng.choice(regions.used) * regions.row_bytes
    way = rng.randrange(3)
    if way == 0:
        place = at + rng.randrange(regions.row_bytes)
        return [Patch(place, bytes([data[place] ^ 1 << rng.randrange(8)]))]
    if way == 1:
        return [Patch(at, bytes(regions.row_bytes))]
    rows = (regions.blocks - regions.words) // regions.row_bytes
    other = regions.words + rng.randrange(rows) * regions.row_bytes
    return [Patch(at, data[other : other + regions.row_bytes])]


class Trial:
    """One pack under test, with the answers of the sound one."""

    def __init__(self, pack: Path, place: Path) -> None:
        self._sound, self._copy = pack, place / pack.name
        self._data = pack.read_bytes()
        self._copy.write_bytes(self._data)
        with PackReader.open(pack) as reader:
            self._text, ids = common.text_of(reader, TOKENS)
            first = min(reader.group_offset(group) for group in reader.manifest.groups)
            words = reader.manifest.embeddings
            used = tuple(sorted(set(ids.tolist())))
            self._ladder = reader.manifest.ladder
            self._regions = Regions(
                len(self._data), first, reader.embeddings_offset, words.row_bytes, used
            )
        self._expected = {bits: _answer(self._run(pack, bits)) for bits in self._ladder}

    def run(self, number: int, seed: int) -> tuple[str, str]:
        """Kind and outcome of a case."""
        rng = Random(f"{seed}-{number}")
        kind, bits = KINDS[number % len(KINDS)], rng.choice(self._ladder)
        patches = damage(kind, self._data, self._regions, rng)
        self._write(patches)
        try:
            outcome = self._outcome(bits, comparable=number // len(KINDS) % 2 == 0)
        finally:
            self._write(Patch(at, self._data[at : at + len(new)]) for at, new in patches)
        return kind, outcome

    def _outcome(self, bits: int, *, comparable: bool) -> str:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                result = self._run(self._copy, bits, comparable=comparable)
            except sti.StiError:
                return "refused"
            except Exception:
                return "untyped"
        found = _answer(result)
        if not result.downgrades:
            return "same answer" if np.array_equal(found, self._expected[bits]) else "silent"
        if comparable and result.task == "embedding":
            return "not asked for"
        if not any(issubclass(item.category, sti.StiWarning) for item in said):
            return "silent"
        with sti.Engine.open(self._sound, plan=result.plan, threads=1) as engine:
            again = _answer(engine.run([self._text]))
        return "told" if np.array_equal(found, again) else "not replayable"

    def _run(self, pack: Path, bits: int, *, comparable: bool = True) -> Result:
        with sti.Engine.open(pack, fidelity=bits, threads=1, comparable=comparable) as engine:
            return engine.run([self._text])

    def _write(self, patches: Iterator[Patch] | Sequence[Patch]) -> None:
        descriptor = os.open(self._copy, os.O_WRONLY)
        try:
            for at, data in patches:
                os.pwrite(descriptor, data[: self._regions.size - at], at)
        finally:
            os.close(descriptor)


def _answer(result: Result) -> Float32Array:
    if result.task == "embedding":
        return result.embeddings
    return np.concatenate(result.token_logits) if result.task == "tagging" else result.logits


def work(pack: Path, first: int, last: int, seed: int) -> None:
    """Run cases, one line of JSON each; for the process that ``measure`` starts."""
    with tempfile.TemporaryDirectory() as place:
        trial = Trial(pack, Path(place))
        for number in range(first, last):
            signal.alarm(SECONDS_A_CASE)  # a case that hangs ends the process: counted as a crash
            kind, outcome = trial.run(number, seed)
            print(json.dumps([number, kind, outcome]), flush=True)


def measure(packs: Sequence[Path], *, cases: int, seed: int) -> Report:
    """Damage every pack ``cases`` times."""
    columns = (Column("pack"), Column("damage"), *(Column(name) for name in OUTCOMES))
    table, bad = Table("What a run says", columns), Counter[str]()
    worst: list[str] = []
    for pack in packs:
        counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        for number, kind, outcome in _cases(pack, cases, seed):
            counts[kind][outcome] += 1
            if outcome in BAD:
                bad[outcome] += 1
                worst.append(f"{pack.name}: case {number}, {kind}: {outcome}")
        for kind, found in counts.items():
            row = (str(found[name]) if found[name] else "-" for name in OUTCOMES)
            table.rows.append((pack.name.partition(".")[0], kind, *row))
    limits = Table("Limits", common.LIMITS)
    limits.rows.extend(common.at_most(f"cases {name}", bad[name], 0) for name in BAD)
    about = [*common.about_machine(), f"{cases} damaged copies of each pack, seed {seed}"]
    return Report("Damaged packs", about, [table, limits], worst[:20])


def command_for(pack: Path, first: int, last: int, seed: int) -> list[str]:
    """The command of a process that runs some of the cases."""
    command = [sys.executable, "-m", "benchmarks.corruption", str(pack), "--seed", str(seed)]
    return [*command, "--range", str(first), str(last)]


def _cases(pack: Path, cases: int, seed: int) -> Iterator[tuple[int, str, str]]:
    """Cases from processes of their own; a process that dies costs the case it died at."""
    first = 0
    while first < cases:
        with subprocess.Popen(
            command_for(pack, first, cases, seed), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                number, kind, outcome = json.loads(line)
                yield number, kind, outcome
                first = number + 1
        if first < cases:
            yield first, KINDS[first % len(KINDS)], "crash"
            first += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("corruption", __doc__, "models/all-MiniLM-L6-v2.sti.safetensors")
    parser.add_argument("packs", nargs="+", type=Path, metavar="PACK")
    parser.add_argument("--cases", type=int, default=600, help="of each pack; default: 600")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    parser.add_argument("--range", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.range is not None:
        work(options.packs[0], *options.range, options.seed)
        return 0
    return common.print_report(
        parser, options, lambda: measure(options.packs, cases=options.cases, seed=options.seed)
    )


if __name__ == "__main__":
    sys.exit(main())
