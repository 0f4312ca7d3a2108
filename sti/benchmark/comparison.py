"""Compares systems on the same model and texts, cold and warm, in turns, each in its own processes.

In: ``System``s: how each one's process is started, and which files it reads. Out: ``Figures``.
Cold: a fresh process, its files dropped from the page cache, opening and the first answer. Warm:
one process per system stays open and they take turns, so that other load on the machine affects all
of them alike; the others sleep meanwhile. The first answer of a turn, after that sleep, is counted
separately from those that follow it in a row. Knows nothing of what the systems are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sti.benchmark.runs import p95
from sti.benchmark.system_child import Child, System, started
from sti.errors import RunError

_ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
IN_A_ROW = 3
"""Answers of a turn after its first."""

Progress = Callable[[str], None]


@dataclass(slots=True)
class Figures:
    """What a system took. Lists hold one entry a sample: seconds, bytes, joules.

    Memory is growth since opening began; None where the system does not tell.
    """

    system: System
    open_s: list[float] = field(default_factory=list)
    cold_s: list[float] = field(default_factory=list)
    """Opening and the first answer."""
    cold_bytes: list[int] = field(default_factory=list)
    rested_s: list[float] = field(default_factory=list)
    """Answers after a wait, while the others had their turns."""
    warm_s: list[float] = field(default_factory=list)
    """Answers in a row."""
    warm_bytes: list[int] = field(default_factory=list)
    warm_joules: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    """Of each cold start."""
    steady_bytes: int | None = None
    answer: np.ndarray[Any, np.dtype[np.float64]] | None = None
    failed: str = ""
    """Why there are no figures, where the system could not be run."""

    def cosine(self, other: Figures) -> float | None:
        """Least cosine between the answers of two systems; None if they cannot be compared."""
        if self.answer is None or other.answer is None or self.answer.shape != other.answer.shape:
            return None
        one, two = (
            rows / np.linalg.norm(rows, axis=-1, keepdims=True)
            for rows in (self.answer, other.answer)
        )
        return float((one * two).sum(axis=-1).min())

    def to_json(self) -> dict[str, Any]:
        """A JSON object: times in milliseconds."""
        return {
            "system": self.system.name,
            "threads": self.system.spec.threads,
            "failed": self.failed or None,
            "open_ms": _ms(self.open_s, statistics.median),
            "cold_ms": _ms(self.cold_s, statistics.median),
            "cold_p95_ms": _ms(self.cold_s, p95),
            "rested_ms": _ms(self.rested_s, statistics.median),
            "warm_ms": _ms(self.warm_s, statistics.median),
            "warm_p95_ms": _ms(self.warm_s, p95),
            "cold_bytes_read": _middle(self.cold_bytes),
            "warm_bytes_read": _middle(self.warm_bytes),
            "warm_joules": _middle(self.warm_joules),
            "peak_growth_bytes": _middle(self.peak_bytes),
            "steady_growth_bytes": self.steady_bytes,
        }


def compare(
    systems: Sequence[System], *, cold: int, warm: int, progress: Progress = lambda _: None
) -> list[Figures]:
    """Measure all systems.

    Args:
        systems: in the order of the answer.
        cold: cold starts of each, at least one.
        warm: warm turns of each, after one answer that does not count.
        progress: told what happens next.

    A system that fails has no figures but the reason; the others go on.
    """
    figures = [Figures(system) for system in systems]
    for turn in range(cold):
        for found in _rotated(figures, turn):
            progress(f"cold start {turn + 1} of {cold}: {found.system.name}")
            with _noting(found), started(found.system) as process:
                _note_cold(found, process.ask("open"))
    if warm:
        with ExitStack() as stack:
            _run_warm([item for item in figures if not item.failed], stack, warm, progress)
    return figures


def try_system(system: System) -> None:
    """Open a system and let it answer once, in a process of its own; nothing is measured.

    Raises:
        RunError: it cannot; says why.
    """
    found = Figures(system)
    with _noting(found), started(system) as process:
        process.ask("open")
    if found.failed:
        raise RunError(found.failed)


def _run_warm(figures: Sequence[Figures], stack: ExitStack, warm: int, progress: Progress) -> None:
    processes: dict[int, Child] = {}
    for found in figures:
        with _noting(found):
            process = stack.enter_context(started(found.system))
            process.ask("open")
            process.ask("run")
            processes[id(found)] = process
    for turn in range(warm):
        progress(f"warm runs, turn {turn + 1} of {warm}")
        for found in _rotated([item for item in figures if not item.failed], turn):
            with _noting(found):
                found.rested_s.append(processes[id(found)].ask("run")["total_s"])
                for _ in range(IN_A_ROW):
                    _note_warm(found, processes[id(found)])
    for found in figures:
        if not found.failed:
            with _noting(found):
                reply = processes[id(found)].ask("end")
                found.steady_bytes = reply["steady_bytes"]


def _note_warm(found: Figures, process: Child) -> None:
    before = _joules()
    reply = process.ask("run")
    after = _joules()
    found.warm_s.append(reply["total_s"])
    _append(found.warm_bytes, reply["bytes_read"])
    if before is not None and after is not None and after >= before:
        found.warm_joules.append(after - before)


def _note_cold(found: Figures, reply: dict[str, Any]) -> None:
    found.open_s.append(reply["open_s"])
    found.cold_s.append(reply["total_s"])
    _append(found.cold_bytes, reply["bytes_read"])
    found.answer = np.asarray(reply["answer"], dtype=np.float64)
    _append(found.peak_bytes, reply["peak_bytes"])
    found.steady_bytes = reply["steady_bytes"]


@contextmanager
def _noting(found: Figures) -> Iterator[None]:
    """Let a system that fails keep the reason, so that the others are measured all the same."""
    try:
        yield
    except (RunError, OSError, ValueError, KeyError) as error:
        found.failed = str(error) or repr(error)


def _rotated(figures: Sequence[Figures], turn: int) -> list[Figures]:
    usable = [item for item in figures if not item.failed]
    first = turn % max(1, len(usable))
    return [*usable[first:], *usable[:first]]


def _append(samples: list[int], value: int | None) -> None:
    if value is not None:
        samples.append(value)


def _middle(samples: Sequence[float]) -> float | None:
    return statistics.median(samples) if samples else None


def _ms(samples: Sequence[float], figure: Callable[[Sequence[float]], float]) -> float | None:
    return round(figure(samples) * 1e3, 3) if samples else None


def _joules() -> float | None:
    """Energy the processor has used so far, where the operating system allows reading it."""
    try:
        return int(_ENERGY.read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None
