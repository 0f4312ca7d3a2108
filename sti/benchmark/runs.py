"""Measuring whole runs: cold in fresh processes, warm in an open engine.

In: a pack, cases, a workload, repeats. Out: ``Measurement`` per case: medians and the 95th
percentile, the time of each kind of work, bytes and memory. Cold means: a fresh process, nothing of
the pack in the page cache, opening and the first run. Warm runs of all cases take turns, so that
what else the machine does falls on all of them alike. Knows nothing of tables.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sti.calibration.cache import HISTORY_VARIABLE, OFF
from sti.device.lanes import LANES, LaneThreads, by_work
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.errors import RunError
from sti.pipeline.runner import Mode
from sti.planning.plan import Plan
from sti.storage.file_reader import drop_cache

Kind = Literal["cold", "warm", "sequential"]


@dataclass(frozen=True, slots=True)
class BenchCase:
    """A way to run: a name for people, and what the engine is asked for."""

    name: str
    target: TargetSpec

    def options(self) -> list[str]:
        """The same as options of ``sti run``; a plan has to be a file."""
        asked = self.target
        given = {
            "--latency": asked.latency,
            "--preload": asked.preload,
            "--fidelity": asked.fidelity,
            "--plan": asked.plan,
        }
        pairs = ((name, str(value)) for name, value in given.items() if value is not None)
        return [part for pair in pairs for part in pair]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. Milliseconds and bytes; None where it does not apply."""

    total_ms: float
    open_ms: float | None
    run_ms: float
    work_ms: Mapping[str, float]
    """Of each kind of work, on all threads together."""
    threads: LaneThreads
    stall_ms: float
    bytes_read: int
    peak_bytes: int | None
    growth_bytes: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """All runs of one kind under one case. Figures are medians of the runs."""

    case: str
    kind: Kind
    samples: tuple[Sample, ...]
    plan: Plan | None = None
    """What warm runs followed."""

    def median(self, what: Callable[[Sample], float | None]) -> float | None:
        """Median of a figure; None where it does not apply."""
        values = [value for value in map(what, self.samples) if value is not None]
        return statistics.median(values) if values else None

    @property
    def p95_ms(self) -> float:
        """95th percentile of the total."""
        return p95([sample.total_ms for sample in self.samples])

    @property
    def threads(self) -> LaneThreads:
        """That the runs had."""
        return self.samples[0].threads

    @property
    def ideal_ms(self) -> float:
        """What the same work would take if no thread waited (``LaneThreads.ideal_s``)."""
        return statistics.median(sample.threads.ideal_s(sample.work_ms) for sample in self.samples)

    def work_ms(self, work: str) -> float:
        """Median time of one kind of work, on all threads together."""
        return statistics.median(sample.work_ms[work] for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; times in milliseconds."""
        body: dict[str, Any] = {
            "case": self.case,
            "kind": self.kind,
            "runs": len(self.samples),
            "total_ms": self.median(lambda sample: sample.total_ms),
            "p95_ms": self.p95_ms,
            "open_ms": self.median(lambda sample: sample.open_ms),
            "run_ms": self.median(lambda sample: sample.run_ms),
            "busy_ms": {work: round(self.work_ms(work), 3) for work in LANES},
            "stall_ms": self.median(lambda sample: sample.stall_ms),
            "ideal_ms": self.ideal_ms,
            "bytes_read": self.median(lambda sample: sample.bytes_read),
            "peak_bytes": self.median(lambda sample: sample.peak_bytes),
            "growth_bytes": self.median(lambda sample: sample.growth_bytes),
        }
        return {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in body.items()
        }


def p95(samples: Sequence[float]) -> float:
    """The 95th percentile, by the nearest rank."""
    ordered = sorted(samples)
    return ordered[-(-95 * len(ordered) // 100) - 1]


def measure_cold(
    pack: Path, case: BenchCase, texts: Sequence[str], *, threads: int | None, repeats: int
) -> Measurement:
    """Run ``sti run`` in fresh processes, the pack dropped from the page cache before each.

    Raises:
        RunError: a process failed; holds what it said.
    """
    command = [sys.executable, "-m", "sti", "run", str(pack), "--json", "--input", "-"]
    command += case.options()
    if threads is not None:
        command += ["--threads", str(threads)]
    samples = []
    for _ in range(repeats):
        drop_cache(pack)
        samples.append(_cold_sample(_answer(command, "\n".join(texts))))
    return Measurement(case.name, "cold", tuple(samples))


def measure_warm(
    engine: Engine, cases: Sequence[BenchCase], texts: Sequence[str], *, repeats: int
) -> list[Measurement]:
    """Run every case as planned and sequentially, in turns, after one run each to warm up.

    The engine is left with the last case as its target.
    """
    modes: dict[Kind, Mode] = {"warm": "planned", "sequential": "sequential"}
    plans: dict[tuple[str, Kind], Plan] = {}
    samples: dict[tuple[str, Kind], list[Sample]] = {
        (case.name, kind): [] for case in cases for kind in modes
    }
    for turn in range(repeats + 1):
        for case in cases:
            aim(engine, case.target)
            for kind, mode in modes.items():
                result = engine.run(texts, mode=mode)
                if not turn:
                    continue
                timing = result.timing
                sample = Sample(
                    total_ms=timing.total_s * 1e3,
                    open_ms=None,
                    run_ms=timing.total_s * 1e3,
                    work_ms=_work_ms(timing.busy_s),
                    threads=result.trace.threads,
                    stall_ms=timing.stall_s * 1e3,
                    bytes_read=result.bytes_read,
                    peak_bytes=None,
                    growth_bytes=None,
                )
                samples[case.name, kind].append(sample)
                plans[case.name, kind] = result.plan
    return [
        Measurement(name, kind, tuple(found), plans[name, kind])
        for (name, kind), found in samples.items()
    ]


def aim(engine: Engine, target: TargetSpec) -> None:
    """Set the engine's target and wait until its preload buffer is full."""
    engine.set_target(target)
    engine.preloaded()


def _answer(command: Sequence[str], text: str) -> dict[str, Any]:
    """The JSON document that a fresh process prints."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    ended = subprocess.run(
        command,
        input=text.encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, HISTORY_VARIABLE: OFF},
    )
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip() or f"exit code {ended.returncode}"
        raise RunError(f"a cold run failed: {said}")
    document = json.loads(ended.stdout)
    assert isinstance(document, dict)
    return document


def _work_ms(busy_s: Mapping[str, float]) -> dict[str, float]:
    return {work: seconds * 1e3 for work, seconds in by_work(busy_s).items()}


def _cold_sample(document: Mapping[str, Any]) -> Sample:
    timing, process = document["timing"], document["process"]
    peak, before = process["peak_rss_bytes"], process["rss_before_bytes"]
    return Sample(
        total_ms=process["open_ms"] + timing["total_s"] * 1e3,
        open_ms=process["open_ms"],
        run_ms=timing["total_s"] * 1e3,
        work_ms=_work_ms(timing["busy_s"]),
        threads=LaneThreads(**document["plan"]["threads"]),
        stall_ms=timing["stall_s"] * 1e3,
        bytes_read=document["bytes_read"],
        peak_bytes=peak,
        growth_bytes=None if peak is None or before is None else peak - before,
    )
