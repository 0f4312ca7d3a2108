"""Systems within memory limits: cold and warm, each process in a memory cgroup of its own.

In: systems, limits. Out: what each took, or how it failed. The page cache counts: a mapped model
that does not fit is read again and again. Systems run one after the other, as the page cache of
files that two of them share would be charged to the first. Interpreter and libraries are in the
group as well, as far as they are not in the page cache already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.cgroups import NoGroups, memory_group
from benchmarks.common import Column, Table
from sti.benchmark.comparison import Figures, Progress, compare
from sti.benchmark.system_child import System
from sti.report.tables import megabytes

ANSWER_S = 15.0
"""A process that is silent for so long has not answered."""
SLOWER = 1.2
"""What fits takes at most so many times what it takes without a limit."""
_MB = 1_000_000
_COLUMNS = (
    *(Column("system"), Column("threads"), Column("limit"), Column("cold ms", ".0f")),
    *(Column("warm ms", ".0f"), Column("read cold"), Column("read warm"), Column("failed")),
)


@dataclass(slots=True)
class Limited:
    """What systems took within limits."""

    found: dict[tuple[str, int | None], Figures] = field(default_factory=dict)
    """By a system's name and the limit in MB; None: without one."""
    missing: str = ""
    """Why there are no figures with a limit."""

    def figure(self, name: str, limit_mb: int | None, what: str) -> float | None:
        """``cold_ms`` or ``warm_ms`` of a system; None where it gave no answer."""
        item = self.found.get((name, limit_mb))
        value = None if item is None else item.to_json()[what]
        return None if value is None else float(value)

    def name_of(self, start: str) -> str | None:
        """The first system whose name begins so; it is there with some number of threads."""
        return next((name for name, _ in self.found if name.startswith(start)), None)

    def smallest(self, name: str) -> int | None:
        """The least limit in MB within which a system is not much slower, cold and warm."""
        return min((mb for mb in self._limits(name) if self._fits(name, mb)), default=None)

    def _limits(self, name: str) -> list[int]:
        return [mb for system, mb in self.found if system == name and mb is not None]

    def _fits(self, name: str, limit_mb: int) -> bool:
        for what in ("cold_ms", "warm_ms"):
            free, found = self.figure(name, None, what), self.figure(name, limit_mb, what)
            if free is None or found is None or found > SLOWER * free:
                return False
        return True

    def table(self, title: str) -> Table:
        """All figures."""
        table = Table(title, _COLUMNS)
        for (name, limit_mb), item in self.found.items():
            row = item.to_json()
            table.rows.append(
                (
                    name,
                    "default" if row["threads"] is None else str(row["threads"]),
                    "none" if limit_mb is None else f"{limit_mb} MB",
                    row["cold_ms"],
                    row["warm_ms"],
                    megabytes(row["cold_bytes_read"]),
                    megabytes(row["warm_bytes_read"]),
                    _reason(item.failed),
                )
            )
        return table


def measure_limited(
    systems: Sequence[tuple[System, Sequence[int]]], *, cold: int, warm: int, progress: Progress
) -> Limited:
    """Run every system without a limit and within each of its limits.

    Args:
        systems: each with its limits, in MB.
        cold: cold starts of each.
        warm: warm turns of each.
    """
    done = Limited()
    for system, sizes in systems:
        patient = replace(system, answer_s=ANSWER_S)
        for limit_mb in (None, *sorted(sizes, reverse=True)):
            progress(f"{system.name} within {'any' if limit_mb is None else limit_mb} MB")
            key = (system.name, limit_mb)
            if limit_mb is None:
                (done.found[key],) = compare([patient], cold=cold, warm=warm)
                continue
            try:
                with memory_group(limit_mb * _MB) as words:
                    inside = replace(patient, before=words)
                    (done.found[key],) = compare([inside], cold=cold, warm=warm)
            except NoGroups as error:
                return Limited(missing=str(error))
    return done


def _reason(failed: str) -> str | None:
    """Why a system gave no answer, without its name."""
    if not failed:
        return None
    if failed.endswith("exit code -9"):
        return "killed: out of memory"
    return failed.partition(": ")[2] or failed
