"""Benchmarks made of rows: parts that can be chosen, measured one after the other.

In: rows, what they are measured with. Out: a report that grows with each row, saved as it does.
Knows nothing of what a row measures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from benchmarks import common
from benchmarks.common import Cell, Report, Table
from sti.errors import StiError
from sti.storage.atomic_file import write_file

S = TypeVar("S")


@dataclass(slots=True)
class Summary:
    """What a row found."""

    limits: list[tuple[Cell, ...]] = field(default_factory=list)
    """Rows of a table of limits; reported figures have no limit."""
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Row(NamedTuple, Generic[S]):
    """A part of a benchmark that can be chosen."""

    measure: Callable[[S], Iterator[Any]]
    """Gives what it found bit by bit: ``NamedTuple``s."""
    summarize: Callable[[Sequence[Any]], Summary]


class Measured(NamedTuple):
    """A row that was measured, and what became of it."""

    name: str
    summary: Summary
    ended_early: bool


def measure_rows(
    report: Report, rows: Mapping[str, Row[S]], setting: S, place: Path | None
) -> Iterator[Measured]:
    """Row after row; each is added to the report and saved as soon as it has ended.

    One that fails is told and the next one is measured; Ctrl-C ends the row at work, and the rest.

    Args:
        report: filled as the iterator goes on. Limits are in a table of its own, its first.
        rows: in the order in which they are run.
        setting: given to each row.
        place: the JSON file for the report and what each row measured; None: none is written.
    """
    limits = Table(report.title, common.LIMITS)
    report.tables.insert(0, limits)
    records: dict[str, list[Any]] = {}
    for name, row in rows.items():
        tell(f"{name} ...")
        found: list[Any] = records.setdefault(name, [])
        stopped, failed = False, ""
        try:
            with closing(row.measure(setting)) as items:
                found.extend(items)
        except KeyboardInterrupt:
            stopped = True
            report.notes.append(f"{name}: ended early, by the keyboard")
        except (OSError, RuntimeError, ValueError, StiError) as error:
            failed = f"failed: {error}"
            report.notes.append(f"{name}: {failed}")
        summary = row.summarize(found)
        if failed:
            summary.limits.append(("complete", None, "yes", "SHORT: failed"))
        _add(report, limits, name, summary)
        if place is not None:
            body = {**report.to_json(), "records": plain(records)}
            write_file(str(place), json.dumps(body, indent=1) + "\n")
        yield Measured(name, summary, stopped or bool(failed))
        if stopped:
            break
    left = [name for name in rows if name not in records]
    if left:
        report.notes.append(f"not measured: {', '.join(left)}")


def _add(report: Report, limits: Table, name: str, summary: Summary) -> None:
    for what, *others in summary.limits:
        limits.rows.append((f"{name}: {what}", *others))
        figure, wanted, verdict = others
        shown = f"{figure:.3f}" if isinstance(figure, float) else str(figure)
        tell(f"{name}: {what}: {shown}; wanted: {wanted}; {verdict}")
    report.tables += [table for table in summary.tables if table.rows]
    report.notes += [f"{name}: {note}" for note in summary.notes]


def reported(name: str, found: Cell) -> tuple[Cell, ...]:
    """A row of a table of limits without a limit."""
    return name, found, "reported", "-"


def plain(value: Any) -> Any:
    """As JSON: named tuples as objects."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def tell(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
