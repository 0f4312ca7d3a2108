"""How an engine has kept its target: shares, percentiles, causes, and when to warn.

In: results, one after another. Out: ``Health``, for people and as JSON, and a warning where the
target is missed more often than its quantile allows. Keeps the last runs only. Not thread-safe.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sti.device.profile import MOST_DISTURBED
from sti.engine.lateness import cause_of_lateness
from sti.engine.results import Result
from sti.planning.plan import Target
from sti.units import exact_share, format_time

RUNS_KEPT = 1000
"""Runs that percentiles and shares are of, at most: the last ones."""
RUNS_JUDGED = 100
"""Runs by which it is judged whether the target is kept."""
_LEAST_RUNS = 10
_DOUBT = 0.01
"""A warning is due where so many misses, or more, have at most this chance with a kept target."""


@dataclass(frozen=True, slots=True)
class Health:
    """How runs went since the engine was opened, or since its target was changed. Seconds."""

    runs: int
    """Shares and percentiles are of the last ``RUNS_KEPT``, counts of all."""
    latency_s: float | None
    quantile: float
    inside: float | None
    """Share of the runs that kept the target; None without a latency, or without a run."""
    percentiles_s: dict[str, float]
    """``p50``, ``p95`` and ``p99`` of the runs' times."""
    longer: int
    """Further runs, of texts longer than their plan was made for."""
    replans: int
    """How often runs of a workload went over to another plan."""
    adapted: int
    """Runs that left out planes that were late or damaged."""
    disturbed: int
    """Runs in which threads waited for a core for more than 5 % of the time."""
    causes: dict[str, int]
    """What most made late runs late, and how many of them."""
    memory_short: bool = False
    """Whether memory is short now, so that runs are without a preload buffer."""
    memory_yields: int = 0
    """How often memory was given back because it was short, since the engine was opened."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        if not self.runs:
            return "; ".join(["no run yet", *self._memory_words()])
        times = ", ".join(f"{name} {format_time(at)}" for name, at in self.percentiles_s.items())
        parts = [f"{self.runs} run{'s' * (self.runs != 1)}: {times}"]
        if self.inside is not None and self.latency_s is not None:
            inside = math.floor(self.inside * 1000) / 10
            parts.insert(0, f"{inside:g} % within {format_time(self.latency_s)}")
        counted = {"plan changed": self.replans, "planes left out": self.adapted}
        if self.longer:
            parts.append(f"{self.longer} more of longer texts than planned for")
        counted |= {"waited for a core": self.disturbed}
        parts += [f"{what} {_times(count)}" for what, count in counted.items() if count]
        if self.causes:
            named = ", ".join(f"{cause} {count}" for cause, count in self.causes.items())
            parts.append(f"late by {named}")
        return "; ".join([*parts, *self._memory_words()])

    def _memory_words(self) -> list[str]:
        if not self.memory_yields and not self.memory_short:
            return []
        now = ", and is short now" if self.memory_short else ""
        return [f"gave memory back {_times(self.memory_yields)}{now}"]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class HealthLog:
    """Takes note of runs under one target."""

    def __init__(self, target: Target) -> None:
        self._latency_s, self._quantile = target.latency_s, target.quantile
        self._times: deque[float] = deque(maxlen=RUNS_KEPT)
        self._met: deque[bool] = deque(maxlen=RUNS_KEPT)
        self._longer = self._runs = self._adapted = self._disturbed = 0
        self._causes: Counter[str] = Counter()
        self._told_runs = 0

    def note(self, result: Result) -> str | None:
        """Take note of a run; the text of a warning where one is due.

        After one, another is due only when as many runs again were judged.
        """
        self._longer += result.outgrown
        if result.outgrown:
            return None  # its plan is for shorter texts, and says so
        self._runs += 1
        self._times.append(result.timing.total_s)
        self._met.append(result.met is not False)
        self._adapted += bool(result.downgrades)
        share = result.trace.waited_share
        self._disturbed += share is not None and share > MOST_DISTURBED
        if result.met is not False:
            return None
        self._causes[cause_of_lateness(result) or "unknown"] += 1
        return self._warning()

    def health(self, *, replans: int) -> Health:
        """What is known."""
        inside = sum(self._met) / len(self._met) if self._met else None
        return Health(
            runs=self._runs,
            latency_s=self._latency_s,
            quantile=self._quantile,
            inside=None if self._latency_s is None else inside,
            percentiles_s={
                name: percentile(self._times, share)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
                if self._times
            },
            longer=self._longer,
            replans=replans,
            adapted=self._adapted,
            disturbed=self._disturbed,
            causes=dict(self._causes.most_common()),
        )

    def _warning(self) -> str | None:
        judged = list(self._met)[-RUNS_JUDGED:]
        missed = judged.count(False)
        due = self._runs - self._told_runs >= max(_LEAST_RUNS, self._told_runs and RUNS_JUDGED)
        allowed = 1.0 - self._quantile
        if not due or at_least(missed, len(judged), allowed) > _DOUBT:
            return None
        self._told_runs = self._runs
        assert self._latency_s is not None, "only a latency can be missed"
        kept_s = percentile(list(self._times)[-RUNS_JUDGED:], self._quantile)
        cause = self._causes.most_common(1)[0][0]
        return (
            f"the latency of {format_time(self._latency_s)} was missed by {missed} of the last "
            f"{len(judged)} runs, and {exact_share(self._quantile)} of them are to keep it: most "
            f"often because of {cause}; {format_time(kept_s)} would have been kept"
        )


def percentile(values: Sequence[float] | deque[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def at_least(missed: int, runs: int, chance: float) -> float:
    """Probability of ``missed`` or more misses in ``runs`` independent runs, each of ``chance``."""
    fewer = sum(
        math.comb(runs, count) * chance**count * (1.0 - chance) ** (runs - count)
        for count in range(missed)
    )
    return max(0.0, 1.0 - fewer)
