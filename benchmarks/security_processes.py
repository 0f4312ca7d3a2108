"""What happens to processes that fork, end, get signals, cannot start threads, or read for ever.

In: a pack. Out: of each case whether it ended as specified. Each is a process of its own with a
time limit; what is left of it is looked for afterwards: other processes, files.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Column, Table, at_most
from benchmarks.security_process_case import CASES
from benchmarks.security_setting import Setting, Summary

COUNT = 1000
GOOD = "as specified"
LATE_S = 60.0
"""By when a case has ended, on a machine that does other work as well."""
_AT_ONCE = 2
_ORPHAN_S = 5.0
"""By when other processes have ended."""
_MARK = "STI_CASE"
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_PROGRAMS = {
    "sti run": ("sti", "run", "PACK", "a text", "--fidelity", "3"),
    "sti run, latency": ("sti", "run", "PACK", "a text", "--latency", "300ms"),
    "sti plan": ("sti", "plan", "PACK", "--latency", "300ms", "-o", "plan.json"),
    "sti report": ("sti", "report", "PACK", "--latency", "300ms", "-o", "page.html"),
    "sti calibrate": ("sti", "calibrate", "PACK", "--threads", "1"),
    "sti-shard verify": ("shard_tools", "verify", "PACK"),
}
"""Programs that get signals at any moment; the first word is the module."""
_LONGEST_S = {"sti calibrate": 4.0}
_OUTPUTS = {"plan.json", "page.html"}


class Case(NamedTuple):
    """One case."""

    kind: str
    seed: int
    found: str
    """``as specified``, or what went wrong in a word or two."""
    seconds: float
    said: str
    """The end of what it said, where something went wrong."""


def measure(setting: Setting) -> Iterator[Case]:
    """Kinds in turns, a few cases at once."""
    pack = setting.packs[0].resolve()
    kinds = [*CASES, *_PROGRAMS, "killed"]
    count = setting.count(COUNT)
    cache = setting.place / "cache"
    for words in _PROGRAMS.values():  # so that no case measures the machine, unless it is to
        _ended(_command(words, pack), setting.place, cache, "warm")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(
            lambda number: _case(
                kinds[number % len(kinds)], setting.seed + number, pack, setting.place, cache
            ),
            range(count),
        )


def _case(kind: str, seed: int, pack: Path, place: Path, cache: Path) -> Case:
    here, mark = place / f"case-{seed}", f"{os.getpid()}-{seed}"
    here.mkdir()
    pick, start = random.Random(seed), time.monotonic()
    try:
        if kind in CASES:
            words = ["-m", "benchmarks.security_process_case", kind, str(pack), str(seed)]
            found, said = _ended(words, here, cache, mark)
        else:
            found, said = _signalled(kind, pick, pack, here, cache, mark)
        seconds = time.monotonic() - start
        if found == GOOD:
            found = _left(here, cache, mark, killed=kind == "killed")
    finally:
        shutil.rmtree(here, ignore_errors=True)
    return Case(kind, seed, found, seconds, "" if found == GOOD else said[-400:])


def _command(words: Sequence[str], pack: Path) -> list[str]:
    return ["-m", *(str(pack) if word == "PACK" else word for word in words)]


def _begun(words: Sequence[str], here: Path, cache: Path, mark: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": root, "XDG_CACHE_HOME": str(cache), _MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _said(child: subprocess.Popen[str]) -> tuple[int | None, str]:
    """Exit status, None where it had to be ended, and what it said."""
    with child:
        try:
            said = child.communicate(timeout=LATE_S)[1]
        except subprocess.TimeoutExpired:
            child.kill()
            return None, child.communicate()[1]
    return child.returncode, said


def _ended(words: Sequence[str], here: Path, cache: Path, mark: str) -> tuple[str, str]:
    code, said = _said(_begun(words, here, cache, mark))
    if code is None or "TimeoutError" in said:
        return "hang", said
    if code < 0:
        return f"aborted by signal {-code}", said
    if "Traceback" in said or "Exception ignored" in said:
        return "traceback", said
    return (GOOD if code == 0 else f"exit code {code}"), said


def _signalled(
    kind: str, pick: random.Random, pack: Path, here: Path, cache: Path, mark: str
) -> tuple[str, str]:
    name = pick.choice(list(_PROGRAMS)) if kind == "killed" else kind
    number = signal.SIGKILL if kind == "killed" else pick.choice(list(_SIGNALS))
    child = _begun(_command(_PROGRAMS[name], pack), here, cache, mark)
    time.sleep(pick.uniform(0.0, _LONGEST_S.get(name, 1.5)))
    child.send_signal(number)
    if kind != "killed" and pick.random() < 0.3:
        time.sleep(pick.uniform(0.0, 0.02))
        child.send_signal(pick.choice([number, signal.SIGINT]))
    code, said = _said(child)
    if code is None:
        return "hang", said
    if kind == "killed":
        return GOOD, said
    if "Traceback" in said or "Exception ignored" in said:
        # Before Python has come to our first line, it says what it likes.
        ours = any(f"/{part}/" in said for part in ("sti", "shard_tools"))
        return ("traceback" if ours else GOOD), said
    good = {0, *_SIGNALS.values(), *(-number for number in _SIGNALS)}
    return (GOOD if code in good else f"exit code {code}"), said


def _left(here: Path, cache: Path, mark: str, *, killed: bool) -> str:
    """What a process left behind."""
    until = time.monotonic() + _ORPHAN_S
    while _alive(mark):
        if time.monotonic() > until:
            return "orphan process"
        time.sleep(0.05)
    if killed:
        return GOOD  # the next run removes its files; ``writers`` looks at that
    files = [path.name for path in here.iterdir() if path.name not in _OUTPUTS]
    return f"leftover file {files[0]}" if files else GOOD


def _alive(mark: str) -> bool:
    wanted = f"{_MARK}={mark}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def summarize(found: Sequence[Case]) -> Summary:
    """By kind, how many ended otherwise."""
    summary = Summary()
    columns = (Column("kind"), Column("cases", ",d"), Column("as specified", ",d"))
    table = Table("Processes", (*columns, Column("slowest s", ".1f"), Column("otherwise")))
    for kind in dict.fromkeys(item.kind for item in found):
        mine = [item for item in found if item.kind == kind]
        bad = Counter(item.found for item in mine if item.found != GOOD)
        others = ", ".join(f"{count} x {what}" for what, count in bad.items()) or "-"
        slowest = max(item.seconds for item in mine)
        table.rows.append((kind, len(mine), len(mine) - bad.total(), slowest, others))
    wrong = [item for item in found if item.found != GOOD]
    summary.limits.append(at_most("processes: cases not as specified", len(wrong), 0))
    summary.tables.append(table)
    summary.notes += [f"{item.kind}, seed {item.seed}: {item.found}" for item in wrong[:10]]
    return summary
