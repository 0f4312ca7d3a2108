"""Commands and the library under limits of the system: is there an answer, or one typed line?

In: a pack, a seed. Out: for each process what became of it. Limited are address space, data, stack,
descriptors, processes and memory; or homes are missing, standard descriptors closed, everything is
read-only, ``/proc`` and ``/sys`` are hidden. Limits under which Python itself does not start say
nothing of STI. What this machine does not let us set up is counted as left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.cgroups import NoGroups, memory_group
from benchmarks.common import ROOT, Column, Table, at_most
from benchmarks.security_setting import Setting, Summary

CASES = 160
ANSWERED, TYPED, UNTYPED, CRASH, HANG, NO_PYTHON, LEFT_OUT = (
    *("answered", "one typed line", "untyped", "crash", "hang"),
    *("Python does not start", "left out"),
)
BAD = (UNTYPED, CRASH, HANG)
_PATIENCE_S = 120.0
_JOBS = 2
_CODES = (1, 2)
"""Exit codes of failures (``sti.cli.program``)."""
_NOTICE = ": notice: "
_OF_LIBRARY = ("[W:onnxruntime:", "onnxruntime warning: ", "Error in cpuinfo: ")
"""In what ONNX Runtime writes as it is imported: nothing can keep it from that."""
_SAID = 300
_SOURCE = """
import sys
import sti
try:
    with sti.Engine.open(sys.argv[1]) as engine:
        engine.run(["hello world"])
        engine.run(["a longer text " * 20] * 4)
except (sti.StiError, MemoryError) as error:
    sys.exit(f"{type(error).__name__}: {error}".replace(chr(10), " "))
"""
_LIMIT = """
import os, resource, sys
kind, value = getattr(resource, "RLIMIT_" + sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (value, value))
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
_CLOSE = """
import os, sys
for descriptor in sys.argv[1]:
    os.close(int(descriptor))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
_MB = 1_000_000
_STEPS: Mapping[str, tuple[float, float]] = {
    "AS": (60 * _MB, 400 * _MB),
    "DATA": (10 * _MB, 250 * _MB),
    "STACK": (90_000, 2 * _MB),
}
"""Limits of ``resource``, from and to."""
_HOMES = ("", "relative/home", "/dev/null", "/proc")
_CLOSED = ("0", "1", "2", "02", "12", "012")
_READ_ONLY = 'mount -o remount,ro,bind / && exec "$@"'
_HIDDEN = {
    "proc": 'mount -t tmpfs none /proc && exec "$@"',
    "sys": 'mount -t tmpfs none /sys && exec "$@"',
    "proc and sys": 'mount -t tmpfs none /sys && mount -t tmpfs none /proc && exec "$@"',
}
_KINDS = (
    *("AS", "AS", "DATA", "STACK", "NOFILE", "threads", "memory"),
    *("home", "closed", "read-only", "hidden"),
)


class Case(NamedTuple):
    """One process."""

    kind: str
    value: str
    command: str


class Found(NamedTuple):
    """What became of it."""

    case: Case
    outcome: str
    said: str


def measure(setting: Setting) -> Iterator[Found]:
    """Every process as it ends."""
    pack = setting.packs[0].absolute()
    rng = Random(setting.seed)
    cases = [_draw(rng, number) for number in range(setting.count(CASES))]
    warm = setting.place / "cache"
    _run(_words("run", pack), _environment(warm))  # measures the machine
    with ThreadPoolExecutor(_JOBS, "limits") as pool:
        yield from pool.map(lambda case: _found(case, pack, warm, setting.place), cases)


def summarize(found: Sequence[Found]) -> Summary:
    """Counts by kind; what is bad by name."""
    summary = Summary()
    outcomes = (ANSWERED, TYPED, UNTYPED, CRASH, HANG, NO_PYTHON, LEFT_OUT)
    table = Table("Limits", (Column("limited"), *(Column(name, ",d") for name in outcomes)))
    for kind in dict.fromkeys(_KINDS):
        counts = Counter(item.outcome for item in found if item.case.kind == kind)
        if counts:
            table.rows.append((kind, *(counts[name] for name in outcomes)))
    summary.tables.append(table)
    bad = [item for item in found if item.outcome in BAD]
    summary.limits.append(
        at_most(f"processes that end untyped, crash or hang, of {len(found):,}", len(bad), 0)
    )
    summary.notes += [
        f"{item.outcome}: {item.case.command} with {item.case.kind} {item.case.value}: {item.said}"
        for item in bad
    ]
    left_out = {item.case.kind: item.said for item in found if item.outcome == LEFT_OUT}
    summary.notes += [f"left out: {kind}: {why}" for kind, why in left_out.items()]
    return summary


def _draw(rng: Random, number: int) -> Case:
    """Kinds in turn; a random value and command."""
    kind = _KINDS[number % len(_KINDS)]
    if kind in _STEPS:
        least, most = _STEPS[kind]
        value = str(round(least * (most / least) ** rng.random()))
    elif kind == "NOFILE":
        value = str(rng.randint(3, 24))
    elif kind == "threads":
        value = str(rng.randint(1, 6))
    elif kind == "memory":
        value = str(rng.choice((20, 30, 50, 80, 120)) * _MB)
    else:
        choices = {"home": _HOMES, "closed": _CLOSED, "hidden": tuple(_HIDDEN)}
        value = rng.choice(choices.get(kind, ("all",)))
    return Case(kind, value, rng.choice(("run", "memory", "plan", "doctor", "inspect", "library")))


def _words(command: str, pack: Path) -> list[str]:
    """What Python is to be started with."""
    return {
        "run": ["-m", "sti", "run", str(pack), "hello world"],
        "memory": ["-m", "sti", "run", str(pack), "hello world", "--memory", "60MB"],
        "plan": ["-m", "sti", "plan", str(pack), "--latency", "200ms"],
        "doctor": ["-m", "sti", "doctor", str(pack)],
        "inspect": ["-m", "shard_tools", "inspect", str(pack)],
        "library": ["-c", _SOURCE, str(pack)],
    }[command]


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}


def _found(case: Case, pack: Path, warm: Path, place: Path) -> Found:
    words, environment = _words(case.command, pack), _environment(warm)
    try:
        with ExitStack() as stack:
            before = stack.enter_context(_limited(case, environment, place))
            plain = _run(["-c", "import argparse, json, pathlib"], environment, before)
            if plain.returncode:
                said = plain.stderr.strip().rpartition("\n")[2][:_SAID]
                namespace = case.kind in ("read-only", "hidden")
                return Found(case, LEFT_OUT if namespace else NO_PYTHON, said)
            return _judged(case, _run(words, environment, before))
    except (NoGroups, OSError) as error:
        return Found(case, LEFT_OUT, str(error))
    except subprocess.TimeoutExpired as error:
        return Found(case, HANG, f"after {error.timeout:.0f} s")


def _judged(case: Case, ended: subprocess.CompletedProcess[str]) -> Found:
    lines = [
        line
        for line in ended.stderr.splitlines()
        if line and not any(words in line for words in (_NOTICE, *_OF_LIBRARY))
    ]
    said = " / ".join(lines[-2:])[:_SAID]
    code = ended.returncode
    if code == -9 and case.kind == "memory":  # by the system, as there is no more memory
        return Found(case, TYPED, "killed by the system")
    if code < 0:
        return Found(case, CRASH, f"signal {-code}; {said}")
    if "Traceback" in ended.stderr or code not in (0, *_CODES):
        return Found(case, UNTYPED, f"exit code {code}; {said}")
    if code == 0:
        return Found(case, ANSWERED, said)
    told = len(lines) == 1 or (case.kind == "closed" and "2" in case.value)
    return Found(case, TYPED if told else UNTYPED, said)


@contextmanager
def _limited(case: Case, environment: dict[str, str], place: Path) -> Iterator[tuple[str, ...]]:
    """Words to start Python with, so that it is limited; the environment is changed where needed.

    Raises:
        NoGroups, OSError: it cannot be done here.
    """
    kind, value = case.kind, case.value
    if kind in _STEPS or kind == "NOFILE":
        yield (sys.executable, "-c", _LIMIT, kind, value)
    elif kind == "memory":
        with memory_group(int(value)) as words:
            yield (*words, sys.executable)
    elif kind == "threads":
        with _few_threads(int(value)) as words:
            yield (*words, sys.executable)
    elif kind == "closed":
        yield (sys.executable, "-c", _CLOSE, value)
    elif kind == "home":
        del environment["XDG_CACHE_HOME"]
        environment["HOME"] = value
        yield (sys.executable,)
    elif kind == "read-only":
        environment["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=place)
        yield ("unshare", "-rm", "sh", "-c", _READ_ONLY, "sh", sys.executable)
    else:
        yield ("unshare", "-rmpf", "--kill-child", "sh", "-c", _HIDDEN[value], "sh", sys.executable)


@contextmanager
def _few_threads(count: int) -> Iterator[tuple[str, ...]]:
    """A group that may have so many processes and threads (cgroups of version 1 or 2).

    A limit of the user's processes would not bind the superuser.
    """
    group = _pids_group(count)
    try:
        yield ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group))
    finally:
        with suppress(OSError):  # processes that end late keep it
            group.rmdir()


def _pids_group(count: int) -> Path:
    for parent in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = parent / f"sti-{os.getpid()}-{os.urandom(4).hex()}"
        with suppress(OSError):
            group.mkdir()
            try:
                (group / "pids.max").write_text(str(count), encoding="ascii")
            except OSError:
                group.rmdir()
                raise
            return group
    raise NoGroups("no controller of processes in cgroups, or no right to make groups")


def _run(
    words: Sequence[str], environment: Mapping[str, str], before: Sequence[str] = (sys.executable,)
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PATIENCE_S,
        check=False,
    )
