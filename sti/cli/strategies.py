"""The strategies of ``sti plan --devices``: who could compute, how long it takes, why it loses.

In: strategies and the one that is taken. Out: a table, or JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sti.planning.strategies import Strategy, why_not
from sti.report.tables import aligned
from sti.units import format_size, format_time

_HEADER = ("strategy", "time", "units", "weights in memory", "read a unit", "sent", "")


def table(found: Sequence[Strategy], taken: Strategy) -> str:
    """One row a strategy."""
    rows = [
        [
            item.words,
            format_time(item.total_s),
            str(item.units),
            _each(item.memory_bytes),
            _each(item.read_bytes),
            format_size(item.sent_bytes) if item.sent_bytes else "-",
            (why_not(item, taken) or "taken") + _rounded(item),
        ]
        for item in found
    ]
    return aligned(_HEADER, rows)


def to_json(found: Sequence[Strategy], taken: Strategy) -> list[dict[str, Any]]:
    """One object a strategy."""
    return [
        {
            "strategy": item.name,
            "stages": [stage._asdict() for stage in item.stages],
            "units": item.units,
            "total_s": item.total_s,
            "memory_bytes": dict(item.memory_bytes),
            "read_bytes": dict(item.read_bytes),
            "sent_bytes": item.sent_bytes,
            "cosine": item.cosine,
            "taken": item is taken,
            "why_not": why_not(item, taken),
        }
        for item in found
    ]


def _rounded(item: Strategy) -> str:
    """How near answers are, where numbers on links are rounded."""
    return f"; cosine to exact answers about {item.cosine:.4f}" if item.cosine < 1.0 else ""


def _each(sizes: Mapping[str, int]) -> str:
    """Bytes of each device."""
    return ", ".join(f"{name} {format_size(size)}" for name, size in sizes.items())
