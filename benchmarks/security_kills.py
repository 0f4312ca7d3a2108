"""Kills: commands and writers ended at random moments, and what is found afterwards.

In: a seed. Out: for each kill whether the output is the old or the new one as a whole, whether the
next run succeeds, and whether it leaves anything but its output. Kills (SIGKILL) hit processes
forked from one that has imported everything, at moments spread over the whole of the work and, for
a part of them, over its end; SIGTERM and SIGHUP hit programs as users start them. And two at once:
both go on, or the second is told. A hang is a failure.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import NamedTuple

from benchmarks.common import Column, Table, at_most
from benchmarks.rows import reported, tell
from benchmarks.security_kill_bench import LONGEST_S, Bench, Case, Forker, kill
from benchmarks.security_kill_jobs import COMMANDS, GRAPH, OUTPUT, WRITERS
from benchmarks.security_setting import Setting, Summary
from sti.storage.drafts import is_draft

KILLS = 300
SIGNAL_SHARE, TWO_SHARE = 0.15, 0.1
"""Of the cases, those that are ended by SIGTERM or SIGHUP, and those of two at once."""
_JOBS = 2
_END_SHARE, _END = 0.3, 0.85
"""Of the kills, those that are spread over the last part of the work, and where that begins."""
_LATEST = 1.1
"""The last moment of a kill, of what the work usually takes."""
_KILLED, _TWO, _TWO_KILLED = "SIGKILL", "two at once", "two, one killed"
_IN_USE = 2
_OFTEN = {"build": 4, "upgrade": 4, "cache": 4, "graph": 4}
"""Times that a kind comes in turn: what takes less is killed more often."""


class Outcome(NamedTuple):
    """What became of it."""

    case: Case
    ended: bool
    """Whether the kill came before the end."""
    broken: str
    """What is neither old nor new; empty for nothing."""
    at_once: tuple[str, ...]
    """Drafts that were left right after the kill."""
    left: tuple[str, ...]
    """What was left after the next run that should not be."""
    failed: str
    """How the next run failed, or another one beside it; empty if it did not."""


def measure(setting: Setting) -> Iterator[Outcome]:
    """Every outcome as it comes."""
    kinds = [kind for kind in (*COMMANDS, *WRITERS) if kind != "finetune" or _has_torch()]
    rng = Random(setting.seed)
    cases = [draw(rng, number, kinds) for number in range(setting.count(KILLS))]
    bench = Bench(setting.place)
    bench.prepare([kind for kind in kinds if any(case.kind == kind for case in cases)])
    forkers: SimpleQueue[Forker] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(2 * _JOBS):
            forker = Forker(bench.inputs)
            stack.callback(forker.close)
            forkers.put(forker)
        pool = stack.enter_context(ThreadPoolExecutor(_JOBS, "kill"))
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting = [pool.submit(run_case, bench, case, forkers) for case in cases]
        for future in as_completed(waiting):
            outcome = future.result()
            if outcome.broken or outcome.left or outcome.failed:
                tell(words(outcome))
            yield outcome


def draw(rng: Random, number: int, kinds: Sequence[str]) -> Case:
    """A random case; kinds come in turn."""
    often = [kind for kind in kinds for _ in range(_OFTEN.get(kind, 1))]
    kind, chance = often[number % len(often)], rng.random()
    how = _KILLED
    if chance < TWO_SHARE:
        how = rng.choice((_TWO, _TWO_KILLED))
    elif chance < TWO_SHARE + SIGNAL_SHARE and kind in COMMANDS:
        how = rng.choice(("SIGTERM", "SIGHUP"))
    first = _END if rng.random() < _END_SHARE else 0.0
    return Case(number, kind, how, rng.uniform(first, _LATEST), rng.random() < 0.5)


def run_case(bench: Bench, case: Case, forkers: SimpleQueue[Forker]) -> Outcome:
    """One kill, and the run after it."""
    place = bench.place / f"case-{case.number}"
    bench.lay_old(case, place)
    forker, other = forkers.get(), forkers.get()
    try:
        failed, ended = "", True
        if case.how in (_TWO, _TWO_KILLED):
            failed = _two(bench, case, place, forker, other)
        elif case.how == _KILLED:
            process = forker.begin(case.kind, place)
            time.sleep(case.share * bench.usual_s[case.kind])
            kill(process, signal.SIGKILL)
            ended = forker.end(process) == -signal.SIGKILL
        else:
            program = bench.program(case.kind, place)
            time.sleep(case.share * bench.program_s[case.kind])
            program.send_signal(signal.Signals[case.how])
            ended = _wait(program) not in (0, -signal.SIGKILL)
        at_once = tuple(path for path in _all(place) if is_draft(Path(path).name))
        broken = bench.broken(case, place)
        is_made = case.kind == "finetune" and (place / OUTPUT).exists()
        status = forker.run(case.kind, place)
        if status != (_IN_USE if is_made else 0):
            failed = failed or f"the next run ended with {status}"
        broken = broken or bench.broken(case, place, new=True)
        left = tuple(_left(case.kind, place))
    finally:
        forkers.put(forker)
        forkers.put(other)
    shutil.rmtree(place)
    return Outcome(case, ended, broken, at_once, left, failed)


def _two(bench: Bench, case: Case, place: Path, first: Forker, second: Forker) -> str:
    """Two at once, of which one may be killed; how one failed that should not have."""
    processes = first.begin(case.kind, place), second.begin(case.kind, place)
    if case.how == _TWO_KILLED:
        time.sleep(case.share * bench.usual_s[case.kind])
        kill(processes[0], signal.SIGKILL)
    statuses = [first.end(processes[0]), second.end(processes[1])]
    good = {0, *((-signal.SIGKILL,) if case.how == _TWO_KILLED else ())}
    if case.kind == "finetune":
        good.add(_IN_USE)  # one works there at a time
    if case.how == _TWO and 0 not in statuses:
        return f"neither of two succeeded: {statuses}"
    return "" if good.issuperset(statuses) else f"one of two failed: {statuses}"


def _left(kind: str, place: Path) -> Iterator[str]:
    """What should not be there after a run."""
    for path in _all(place):
        top, _, rest = path.partition("/")
        is_other = kind == "graph" and rest.partition("/")[0] not in ("", "lock", GRAPH)
        if top != OUTPUT or is_other or is_draft(Path(path).name):
            yield path


def _all(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def _wait(program: subprocess.Popen[bytes]) -> int:
    try:
        return program.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        program.kill()
        return program.wait()


def _has_torch() -> bool:
    try:
        import torch  # noqa: F401
    except ImportError:
        tell("kills: finetune is left out: there is no torch here")
        return False
    return True


def words(outcome: Outcome) -> str:
    """One line about it."""
    case = outcome.case
    told = [outcome.broken, outcome.failed, ", ".join(outcome.left)]
    return (
        f"case {case.number}: {case.kind}, {case.how} at {case.share:.2f}"
        f"{', over an old one' if case.over_old else ''}: {'; '.join(filter(None, told))}"
    )


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Counts by what was killed and how, and faults by name."""
    found = Summary()
    columns = [Column("killed"), Column("how")]
    columns += [Column(name, ",d") for name in ("cases", "before the end", "left at once")]
    columns += [Column(name, ",d") for name in ("broken", "next run failed", "leftovers")]
    table = Table("Kills", tuple(columns))
    tests: tuple[Callable[[Outcome], object], ...] = (
        lambda item: True,
        lambda item: item.ended,
        lambda item: item.at_once,
        lambda item: item.broken,
        lambda item: item.failed,
        lambda item: item.left,
    )
    for kind, how in sorted({(item.case.kind, item.case.how) for item in outcomes}):
        mine = [item for item in outcomes if (item.case.kind, item.case.how) == (kind, how)]
        table.rows.append((kind, how, *(sum(map(bool, map(test, mine))) for test in tests)))
    found.tables.append(table)
    asked = [item for item in outcomes if item.case.how.startswith(("SIGTERM", "SIGHUP"))]
    found.limits += [
        at_most(f"broken files, of {len(outcomes):,} kills", _count(outcomes, "broken"), 0),
        at_most("leftovers after the next run", _count(outcomes, "left"), 0),
        at_most("runs after a kill, or beside one, that failed", _count(outcomes, "failed"), 0),
        at_most(f"drafts left by {len(asked):,} SIGTERM and SIGHUP", _count(asked, "at_once"), 0),
        reported("drafts left by kills until the next run", _count(outcomes, "at_once")),
    ]
    faults = [item for item in outcomes if item.broken or item.left or item.failed]
    found.notes += [words(item) for item in faults]
    return found


def _count(outcomes: Sequence[Outcome], name: str) -> int:
    return sum(bool(getattr(item, name)) for item in outcomes)
