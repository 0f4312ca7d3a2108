"""How packs from strangers end that mean harm.

In: sound packs. Out: for each kind of hostile pack, generated from a seed with good checksums, how
opening and running it ended: refused by an error of ours in one line, answered, or badly, and the
most time and memory that took. Each is opened in a process that is not this one, so that a crash or
a hang is counted and the rest goes on. Small packs of every task are made for most cases; some are
the packs that are given.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.common import ROOT, Column, Table, at_most
from benchmarks.memory_setting import MB
from benchmarks.rows import tell
from benchmarks.security_graphs import HOSTILE
from benchmarks.security_harms import EITHER, REFUSED, SAME, UNUSED
from benchmarks.security_hostile_files import FILES
from benchmarks.security_hostile_kinds import KINDS
from benchmarks.security_packs import PackParts, Tensor
from benchmarks.security_setting import Setting, Summary
from sti.text.control_characters import is_one_line
from tests.support.packs import PROFILE, tiny_pack
from tests.support.ranked_packs import ranked_pack

CASES = 200
"""Of each kind."""
MOST_S = 1.0
"""Beyond what the sound pack takes."""
MOST_BYTES = 100e6
_HANG_S = 30.0
_RENEWED_BYTES = 30e6
"""A process that holds so much more than at first is replaced by another one."""
_GIVEN_EVERY = 20
"""One case in so many is of a pack that was given."""
_LONGEST_LINE = 2000

REFUSED_WELL, ANSWERED, BAD = "refused", "answered", "bad"


class Found(NamedTuple):
    """One case."""

    kind: str
    number: int
    pack: str
    state: str
    """``refused``, ``answered``, or what was bad: ``crash``, ``hang``, ``untyped``, ..."""
    good: bool
    seconds: float
    beyond_s: float
    """What of these the sound pack does not take."""
    grown_bytes: int
    said: str


class Child:
    """A process of ``security_hostile_child``; replaced when it ends. A context manager."""

    def __init__(self, place: Path, warm: Sequence[Path]) -> None:
        self._place, self._warm = place, [str(path) for path in warm]
        self._process: subprocess.Popen[str] | None = None
        self._said: Any = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, path: Path) -> dict[str, Any]:
        """How a pack ended; ``state`` may be ``crash`` or ``hang``."""
        process = self._running()
        reply = self._exchange(process, str(path))
        if reply.get("held_bytes", 0) > _RENEWED_BYTES or reply["state"] in ("crash", "hang"):
            self.end()
        return reply

    def end(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._said.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None:
            return self._process
        self._said = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115
        environment = {**os.environ, "XDG_CACHE_HOME": str(self._place), "STI_HISTORY": "off"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.security_hostile_child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment,
        )
        setting = {"profile": PROFILE.to_json(), "packs": self._warm}
        reply = self._exchange(self._process, setting)
        if "ready" not in reply:
            raise RuntimeError(f"sound packs are not answered: {reply}")
        return self._process

    def _exchange(self, process: subprocess.Popen[str], body: object) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        bad = {"seconds": _HANG_S, "grown_bytes": 0}
        try:
            process.stdin.write(json.dumps(body) + "\n")
            process.stdin.flush()
        except OSError:
            return {"state": "crash", "said": self._last_words(process), **bad}
        ready, _, _ = select.select([process.stdout], [], [], _HANG_S)
        if not ready:
            return {"state": "hang", "said": f"nothing after {_HANG_S:g} s", **bad}
        line = process.stdout.readline()
        if not line:
            return {"state": "crash", "said": self._last_words(process), **bad, "seconds": 0.0}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        self._said.seek(0)
        said = self._said.read().strip().splitlines()
        return f"ended with {code}: {said[-1] if said else 'no word'}"


def kinds() -> dict[str, str]:
    """Every kind, and what must come of it."""
    found = {name: kind.due for name, kind in KINDS.items()}
    found |= dict.fromkeys(FILES, REFUSED)
    return found | {f"graph: {name}": UNUSED for name in HOSTILE}


def make(kind: str, sound: PackParts, rng: Random, path: Path) -> None:
    """Write a pack of a kind to a path where nothing is."""
    parts = sound.copy()
    if kind in FILES:
        FILES[kind](parts, rng, path)
        return
    if kind in KINDS:
        KINDS[kind].harm(parts, rng)
    else:
        tensor = parts.manifest["graphs"][rng.choice(list(parts.manifest["graphs"]))]
        raw = HOSTILE[kind.removeprefix("graph: ")](parts.residents[tensor].data, rng)
        parts.residents[tensor] = Tensor("U8", (len(raw),), raw)
    path.write_bytes(parts.sealed())


def measure(setting: Setting) -> Iterator[Found]:
    """Every case as it ends."""
    small = [ranked_pack(), tiny_pack(), tiny_pack("tagging"), tiny_pack("regression")]
    paths = [*small, *setting.packs]
    sound = {path: PackParts(path) for path in paths}
    count = setting.count(CASES)
    with Child(setting.place / "cache", paths) as child:
        answers = {path: child.ask(path) for path in paths}
        for kind, due in kinds().items():
            rng = Random(f"{setting.seed} {kind}")
            bad = 0
            for number in range(count):
                given = number % _GIVEN_EVERY == _GIVEN_EVERY - 1 and setting.packs
                start = rng.choice(setting.packs if given else small)
                path = setting.place / f"case-{number}"
                seed = rng.random()
                try:
                    make(kind, sound[start], Random(seed), path)
                    reply = child.ask(path)
                    if _beyond(
                        reply, answers[start]
                    ):  # of a busy machine, or of what was there before?
                        child.end()
                        again = child.ask(path)
                        reply = again if again["state"] == reply["state"] else reply
                finally:
                    _remove(path)
                found = _judged(kind, number, start, due, reply, answers[start])
                bad += not found.good
                yield found
            tell(f"hostile: {kind}: {count - bad} of {count} as they must be")


def _beyond(reply: Mapping[str, Any], sound: Mapping[str, Any]) -> bool:
    late = reply["seconds"] > MOST_S + sound["seconds"]
    return bool(late or reply["grown_bytes"] > MOST_BYTES)


def _remove(path: Path) -> None:
    if not path.is_symlink() and path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _judged(
    kind: str,
    number: int,
    start: Path,
    due: str,
    reply: Mapping[str, Any],
    sound: Mapping[str, Any],
) -> Found:
    state, said = reply["state"], reply["said"]
    if state == "refused" and (not is_one_line(said) or len(said) > _LONGEST_LINE):
        state = "refused in odd words"
    elif state == "answered" and due in (SAME, UNUSED) and said != sound["said"]:
        state = "another answer"
    both = ("refused", "answered")
    allowed = {REFUSED: both[:1], SAME: both[1:], EITHER: both, UNUSED: both}[due]
    if state in allowed and reply["seconds"] > MOST_S + sound["seconds"]:
        state = "slow"
    elif state in allowed and reply["grown_bytes"] > MOST_BYTES:
        state = "large"
    good = state in allowed
    name = start.name.partition(".")[0]
    seconds, grown = reply["seconds"], reply["grown_bytes"]
    beyond = max(0.0, seconds - sound["seconds"])
    return Found(kind, number, name, state, good, seconds, beyond, grown, said)


def summarize(items: Sequence[Found]) -> Summary:
    """By kind, with what is bad by name."""
    found = Summary()
    columns = (Column("kind"), Column("must be"), Column("packs", ",d"), Column("refused", ",d"))
    columns += (Column("answered", ",d"), Column("bad", ",d"))
    columns += (Column("most s", ".3f"), Column("most MB", ".1f"))
    table = Table("Hostile packs", columns)
    due = kinds()
    for kind in dict.fromkeys(item.kind for item in items):
        mine = [item for item in items if item.kind == kind]
        counts = [
            sum(item.good and item.state == state for item in mine)
            for state in (REFUSED_WELL, ANSWERED)
        ]
        most = max(item.seconds for item in mine), max(item.grown_bytes for item in mine) / MB
        table.rows.append((kind, due[kind], len(mine), *counts, len(mine) - sum(counts), *most))
    found.tables.append(table)
    bad = [item for item in items if not item.good]
    found.limits += [
        at_most(f"hostile packs that did not end as they must, of {len(items):,}", len(bad), 0),
        at_most(
            "seconds beyond those of sound packs, most",
            max(item.beyond_s for item in items),
            MOST_S,
        ),
        at_most("MB, most", max(item.grown_bytes for item in items) / MB, MOST_BYTES / MB),
    ]
    seen: dict[tuple[str, str], int] = {}
    for item in bad:
        key = item.kind, item.state
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 1:
            found.notes.append(
                f"{item.state}: {item.kind}, case {item.number} of {item.pack}: {item.said!a:.300}"
            )
    return found
