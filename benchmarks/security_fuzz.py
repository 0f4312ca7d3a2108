"""Fuzzing: readers of bytes from outside, given inputs that reach ever more of them.

In: seconds of processor time for all targets of ``tests.fuzz`` together. Out: for each target how
many inputs it was given, how much of its reader they reached, and what it did that it may not do:
an error that is none of STI's, more than a second, more than 100 MB, a broken promise. With atheris
coverage leads; without it inputs of the corpus are changed at random.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.common import ROOT, Column, Table, at_least, at_most
from benchmarks.rows import tell
from benchmarks.security_setting import Setting, Summary
from tests.fuzz.names import NAMES

_WITH_TORCH = "state"
"""Training states are made by torch: left out where that is not installed."""

SECONDS = 3600
"""Of processor time, for all targets together."""
MEASURED_S = 600
"""Less than that is a trial: how much was run is no figure then."""
_WAITS_S, _TIMES = 180, 8
"""A process may take so many times its processor time, and so much longer."""
_REPLAYED_S = 120
_EDGES = re.compile(rb"cov: (\d+)")
_FINDINGS = "findings"


class Fuzzed(NamedTuple):
    """What became of one target."""

    target: str
    runs: int
    """Inputs."""
    seconds: float
    """Of processor time."""
    edges: int
    """Places in the reader's code that were reached; 0 where that was not measured."""
    guided: bool
    findings: tuple[str, ...]
    """What went wrong, and the file with the input."""


def measure(setting: Setting) -> Iterator[Fuzzed]:
    """All targets, or as many as there are to be cases; as many at once as there are cores, but
    one.
    """
    seconds = SECONDS if setting.seconds is None else setting.seconds
    there = [name for name in NAMES if name != _WITH_TORCH or find_spec("torch") is not None]
    count = min(setting.count(len(there)), len(there))
    names = Random(setting.seed).sample(there, count)
    each = seconds / count
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1)) as pool:
        jobs = [pool.submit(fuzz, name, each, setting) for name in names]
        for job in as_completed(jobs):
            found = job.result()
            tell(f"fuzz: {found.target}: {found.runs:,} inputs, {len(found.findings)} findings")
            yield found


def fuzz(name: str, seconds: float, setting: Setting) -> Fuzzed:
    """One target, in a process of its own; one that hangs or dies is a finding."""
    place = setting.place / name
    place.mkdir(parents=True, exist_ok=True)
    given = ["--seconds", f"{seconds:.1f}", "--place", str(place), "--seed", str(setting.seed)]
    died, lines, edges = "", b"", 0
    with (place / "said").open("w+b") as said:
        try:
            ended = subprocess.run(
                _command(name, *given),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=said,
                timeout=_TIMES * seconds + _WAITS_S,
                check=False,
            )
            lines, died = ended.stdout, f"ended with {ended.returncode}" * bool(ended.returncode)
        except subprocess.TimeoutExpired as error:
            lines, died = error.stdout or b"", "did not end in time"
        said.seek(0)
        words = said.read()
    reached = _EDGES.findall(words)
    edges = int(reached[-1]) if reached else 0
    told = [json.loads(line) for line in lines.splitlines() if line.startswith(b"{")]
    findings = [_words(item["finding"]) for item in told if _holds(name, item.get("finding"))]
    if died:
        last = words.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
        inputs = sorted((place / _FINDINGS).glob(f"{name}-*-*"))
        findings.append(f"{died}: {last[0]:.200} {inputs[-1] if inputs else ''}".strip())
    ran = [item for item in told if "runs" in item]
    state: dict[str, Any] = ran[-1] if ran else {"runs": 0, "seconds": 0.0, "guided": False}
    return Fuzzed(name, state["runs"], state["seconds"], edges, state["guided"], tuple(findings))


def _holds(name: str, finding: dict[str, Any] | None) -> bool:
    """Whether it is one: what took long may have done so for being watched."""
    if finding is None or finding["said"]:
        return finding is not None
    try:
        ended = subprocess.run(
            _command(name, "--replay", finding["file"]),
            cwd=ROOT,
            capture_output=True,
            timeout=_REPLAYED_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    return bool(ended.returncode) or b'"finding"' in ended.stdout


def _words(finding: dict[str, Any]) -> str:
    said = finding["said"] or f"{finding['seconds']:.1f} s, {finding['grown_bytes'] / 1e6:.0f} MB"
    return f"{finding['kind']}: {said} ({Path(finding['file'])})"


def _command(*given: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz", *given]


def summarize(items: Sequence[Fuzzed]) -> Summary:
    """Of each target what was done; no finding is allowed."""
    found = Summary()
    columns = (Column("reader"), Column("inputs", ",d"), Column("CPU seconds", ".0f"))
    columns += (Column("edges reached", ",d"), Column("findings", "d"))
    table = Table("Fuzzing", columns)
    for item in sorted(items, key=lambda item: NAMES.index(item.target)):
        size = (item.runs, item.seconds, item.edges or None)
        table.rows.append((item.target, *size, len(item.findings)))
    found.tables.append(table)
    seconds = sum(item.seconds for item in items)
    count = sum(len(item.findings) for item in items)
    found.limits.append(at_most(f"fuzzing: findings in {seconds / 60:.0f} CPU minutes", count, 0))
    if seconds >= MEASURED_S:
        found.limits.append(at_least("fuzzing: CPU minutes", seconds / 60, 0.98 * SECONDS / 60))
    if not all(item.guided for item in items):
        found.notes.append("without atheris: inputs were changed at random")
    found.notes += [f"{item.target}: {said}" for item in items for said in item.findings]
    return found
