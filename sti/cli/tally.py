"""What all answers of ``sti run`` cost together, in words.

In: the results of batches, one after another. Out: lines for people. Holds a few of the results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter

from sti.engine.health import Health
from sti.engine.result_warnings import describe_late, late_steps
from sti.engine.results import Result
from sti.report.wording import counted, describe_plan, show_metric
from sti.units import format_size, format_time

_MANY = 20
"""Batches whose percentiles say something."""


@dataclass(slots=True)
class Tally:
    """Sums over batches.

    Args:
        open_s: what opening the pack took.
    """

    open_s: float
    health: Health | None = None
    """How the target was kept, where that is known."""
    texts: int = 0
    batches: int = 0
    _start: float = field(default_factory=perf_counter)
    _late: int = 0
    _late_texts: int = 0
    _truncated: int = 0
    _late_steps: int = 0
    _steps: int = 0
    _bytes_read: int = 0
    _least: Result | None = None
    _alike: bool = True
    """Whether the same quality is expected of all."""
    _latest: Result | None = None

    def add(self, result: Result) -> None:
        """Count a batch."""
        self.texts += len(result.texts)
        self.batches += 1
        self._truncated += result.truncated
        self._bytes_read += result.bytes_read
        self._steps += sum(len(part.plan.steps) for part in result.parts)
        self._late_steps += late_steps(result)
        if result.late_s:
            self._late += 1
            self._late_texts += len(result.texts)
        if self._latest is None or result.late_s > self._latest.late_s:
            self._latest = result
        if self._least is None:
            self._least = result
        else:
            expected, least = _expected(result), _expected(self._least)
            self._alike &= round(expected, 3) == round(least, 3)
            if expected < least:
                self._least = result

    def words(self) -> str:
        """Lines on what it cost, which plan was followed, and what was late; "" for no batch."""
        if self._least is None or self._latest is None:
            return ""
        one = self.batches == 1
        lines = [_cost(self._least, self.open_s) if one else self._costs()]
        which = "plan" if self._alike else "plan that expects least"
        lines.append(f"{which}: {_plan(self._least)}")
        if self._least.stages:
            lines.append(_where(self._least))
        if self._late_steps:
            lines.append(describe_late(self._late_steps, self._steps, self._least.quality))
        if self._late:
            from sti.engine.lateness import describe_lateness  # most runs are in time

            told = str(describe_lateness(self._latest))
            many = f"{self._late} of {self.batches} batches were late, the latest "
            lines.append(told if one else many + told.removeprefix("late "))
        if self.health is not None and self.health.runs >= _MANY:
            lines.append(f"by batch: {self.health}")
        return "\n".join(lines)

    def _costs(self) -> str:
        """What several batches cost."""
        took_s = perf_counter() - self._start
        parts = [
            f"{self.texts} texts in {self.batches} batches: {format_time(took_s)} after opening in "
            f"{self.open_s * 1e3:.0f} ms, {self.texts / took_s:.0f} texts a second"
        ]
        assert self._least is not None, "there are batches"
        latency_s = self._least.plan.target.latency_s
        if latency_s is not None:
            inside = math.floor(1000 * (self.texts - self._late_texts) / self.texts) / 10
            parts.append(f"{inside:g} % within {format_time(latency_s)}")
        parts.append(f"read {format_size(self._bytes_read)}")
        if self._truncated:
            parts.append(f"{counted(self._truncated, 'text')} cut")
        return "; ".join(parts)


def _expected(result: Result) -> float:
    return 1.0 if result.quality is None else result.quality.value


def _cost(result: Result, open_s: float) -> str:
    """What one batch cost."""
    timing = result.timing
    parts = ", ".join(
        f"{name} {seconds * 1e3:.1f}"
        for name, seconds in (
            ("plan", timing.plan_s),
            *timing.busy_s.items(),
            ("stall", timing.stall_s),
        )
    )
    return (
        f"{timing.total_s * 1e3:.1f} ms ({parts}) "
        f"after opening in {open_s * 1e3:.0f} ms; read {format_size(result.bytes_read)}"
    )


def _where(result: Result) -> str:
    """Which layers ran on which device."""
    stages = (f"{item.words} on {item.device}" for item in result.stages)
    return f"ran: {', '.join(stages)}"


def _plan(result: Result) -> str:
    told, expected = describe_plan(result.plan, of=result.workload), result.quality
    if result.plan.predicted is None and expected is not None:
        # A pinned plan may lack a timeline; how good it is the pack knows all the same.
        told += f", expected {expected.metric} {show_metric(expected.metric, expected.value)}"
    return told
