"""What is killed, and what its output should be.

In: inputs, a case. Out: jobs that are begun, the output as it was before, and whether what is there
afterwards is the old or the new one. Decides nothing about when who is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import IO, NamedTuple

from benchmarks.common import ROOT
from benchmarks.rows import tell
from benchmarks.security_kill_jobs import (
    COMMANDS,
    OUTPUT,
    WRITERS,
    Inputs,
    arguments,
    cache_faults,
    graph_faults,
    make_inputs,
)
from sti.pack.verify import verify

LONGEST_S = 120.0
"""By when a job or a program has ended."""


class Case(NamedTuple):
    """One kill."""

    number: int
    kind: str
    how: str
    share: float
    """When, of what the work usually takes."""
    over_old: bool
    """Whether there is an output already."""


class Forker:
    """A process that forks those that are killed. Not thread-safe."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.security_kill_jobs"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                self._pipe(pipe).close()
        self._process.kill()
        self._process.wait()

    def begin(self, kind: str, place: Path) -> int:
        """Have a job begun; the number of its process."""
        task = {"kind": kind, "place": str(place), "inputs": self._inputs}
        self._say(json.dumps(task))
        return int(self._pipe(self._process.stdout).readline())

    def end(self, process: int) -> int:
        """Wait for it; its status, that of a kill where it took too long."""
        timer = Timer(LONGEST_S, kill, (process, signal.SIGKILL))
        timer.start()
        self._say("")
        status = int(self._pipe(self._process.stdout).readline())
        timer.cancel()
        return status

    def run(self, kind: str, place: Path) -> int:
        """Both."""
        return self.end(self.begin(kind, place))

    def _say(self, line: str) -> None:
        pipe = self._pipe(self._process.stdin)
        pipe.write(f"{line}\n")
        pipe.flush()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


class Bench:
    """Inputs, what comes of them, and how long that takes. Used by several threads."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "inputs").mkdir()
        self.inputs = make_inputs(place / "inputs")
        self.usual_s: dict[str, float] = {}
        self.program_s: dict[str, float] = {}
        self._new: dict[str, Path] = {}

    def prepare(self, kinds: Sequence[str]) -> None:
        """Do every job once, to know what comes of it and how long it takes."""
        forker = Forker(self.inputs)
        try:
            for kind in kinds:
                for name in ("first", kind):  # the first reads everything from storage
                    made = self.place / "new" / name
                    shutil.rmtree(made, ignore_errors=True)
                    made.mkdir(parents=True)
                    start = time.monotonic()
                    status = forker.run(kind, made)
                    self.usual_s[kind] = time.monotonic() - start
                    if status:
                        raise RuntimeError(f"{kind}: ended with {status} although nobody killed it")
                self._new[kind] = self.place / "new" / kind / OUTPUT
                if kind in COMMANDS:
                    other = self.place / "new" / f"{kind}-program"
                    other.mkdir()
                    start = time.monotonic()
                    self.program(kind, other).wait(LONGEST_S)
                    self.program_s[kind] = time.monotonic() - start
                tell(f"kills: {kind}: {self.usual_s[kind]:.2f} s")
        finally:
            forker.close()
        for kind in {"build", "rank", "upgrade"} & {*kinds}:
            if not verify(self._new[kind]).good:
                raise RuntimeError(f"{kind}: what it makes is damaged although nobody killed it")

    def program(self, kind: str, place: Path) -> subprocess.Popen[bytes]:
        """The program as users start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "shard_tools", *arguments(kind, self.inputs, place)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def lay_old(self, case: Case, place: Path) -> None:
        """What the output is before."""
        place.mkdir(parents=True)
        if not case.over_old or case.kind == "finetune":
            return
        if case.kind in WRITERS:
            shutil.copytree(self._new[case.kind], place / OUTPUT, copy_function=shutil.copy2)
            os.chmod(place / OUTPUT, 0o700)
        elif case.kind == "evaluate":
            (place / OUTPUT).write_text('{"old": true}')
        else:
            shutil.copyfile(self.inputs.old_format, place / OUTPUT)

    def broken(self, case: Case, place: Path, *, new: bool = False) -> str:
        """What is neither the old output nor the new one.

        Args:
            new: only the new one will do.
        """
        found, made = place / OUTPUT, self._new[case.kind]
        if case.kind in WRITERS:
            return "; ".join(cache_faults(place) if case.kind == "cache" else graph_faults(place))
        if not os.path.lexists(found):
            may_lack = not new and (not case.over_old or case.kind == "finetune")
            return "" if may_lack else f"{OUTPUT} is missing"
        if case.kind == "finetune":
            whole = _files(found) == _files(made)
        elif case.kind == "evaluate":
            whole = _is_json(found)
        else:
            old = [] if new or not case.over_old else [Path(self.inputs.old_format)]
            content = found.read_bytes()
            whole = any(content == path.read_bytes() for path in (made, *old))
        return "" if whole else f"{OUTPUT} is neither the old nor the new one"


def kill(process: int, number: int) -> None:
    """Send a process a signal, if it is there still."""
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _files(directory: Path) -> Mapping[str, bytes]:
    """All files of a checkpoint but the log, which tells of interruptions."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "training.jsonl"
    }
