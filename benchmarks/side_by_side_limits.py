"""What the side-by-side comparison is to reach: ratios of systems measured together, with verdicts.

In: the figures of a compare, and those within memory limits. Out: a table of limits for the shapes
that have any. Cold means that imports are off the clock. How fast int8 products are depends on
whether the processor adds up products of bytes in one instruction (VNNI; on ARM, dot products), so
some limits do, too. `sti.device.identity` says which kind it is; an ONNX Runtime whose products
saturate does not use those instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.common import Cell, Table
from benchmarks.memory_limits import Limited
from benchmarks.side_by_side_systems import (
    ALL,
    FP32,
    IN_TURN,
    INT8,
    PIPE,
    PREPACKED,
    STI,
    STORAGE_ALONE,
)
from sti.benchmark.comparison import Figures

DOT_PRODUCTS = ("amx", "vnni", "dotprod", "i8mm")
"""Parts of the names of instruction sets that have them."""
WARM_LIMIT = 1.10
SHORT_TEXT = (1, 16)
"""Texts and tokens at which STI is held against its reads alone."""
SHORT_LIMIT = 1.05
MEMORY_MB = (112, 160)
"""Limits in which STI is held against layers in a pipe."""
MEMORY_WARM, MEMORY_COLD, SMALLEST_MB = 2.0, 1.8, 64


class _ByKind(NamedTuple):
    """Limits that depend on the processor."""

    cold_int8: float
    cold_fp32: float
    one_thread: float


_PLAIN, _DOT = _ByKind(2.0, 7.0, 1.05), _ByKind(3.0, 11.0, 1.20)


class _Rows:
    """Figures by a system's name, with and without all cores."""

    def __init__(self, found: Sequence[Figures]) -> None:
        self._rows: Mapping[str, dict[str, Any]] = {
            item.system.name: item.to_json() for item in found if not item.failed
        }

    def one(self, name: str, figure: str) -> float:
        """A system's figure.

        Raises:
            LookupError: it has none.
        """
        value = self._rows[name][figure]
        if value is None:
            raise LookupError(name)
        return float(value)

    def best(self, name: str, figure: str) -> float:
        """The lower one of one thread's and all cores'."""
        return min(self.one(name + suffix, figure) for suffix in ("", ALL))

    def worst(self, name: str, figure: str) -> float:
        """The higher one."""
        return max(self.one(name + suffix, figure) for suffix in ("", ALL))

    def faster(self, name: str) -> float:
        """How many times faster STI is cold, each with the threads that it is fastest with."""
        return self.best(name, "cold_ms") / self.best(STI, "cold_ms")

    def growth(self, name: str) -> float:
        """STI's growth of memory, at its most, over another system's, at its least."""
        return self.worst(STI, "peak_growth_bytes") / self.best(name, "peak_growth_bytes")

    def warm(self) -> tuple[float, float]:
        """STI over resident int8, all cores each; and over the slower of it and the reads alone."""
        ours, int8 = self.one(STI + ALL, "warm_ms"), self.one(INT8 + ALL, "warm_ms")
        return ours / int8, ours / max(int8, self.one(STORAGE_ALONE, "warm_ms"))


def limits_of(
    name: str,
    found: Sequence[Figures],
    limited: Limited,
    instructions: str,
    short: Sequence[Figures] = (),
    *,
    saturates: bool = False,
) -> Table | None:
    """The limits of a model, with verdicts; None where it has none.

    Args:
        name: the model's.
        found: figures of all systems, for one text of 128 tokens.
        limited: figures within memory limits; may be empty.
        instructions: of this processor, as ``instruction_set`` names them.
        short: figures for ``SHORT_TEXT``; may be empty.
        saturates: whether ONNX Runtime's 8-bit products do.
    """
    has_dot = not saturates and any(part in instructions for part in DOT_PRODUCTS)
    rows = _Rows(found)
    makers = {"base": _base, "minilm": _minilm, "large": _large}
    if name not in makers:
        return None
    kind = "with" if has_dot else "without"
    title = f"Limits, {name}, 128 tokens, processor {kind} int8 dot products ({instructions})"
    table = Table(title, common.LIMITS)
    try:
        table.rows.extend(makers[name](rows, _DOT if has_dot else _PLAIN))
        if name == "base":
            table.rows.extend(_short(short))
            table.rows.extend(_memory(limited))
    except LookupError as missing:
        return Table(f"Limits, {name}: {missing} has no figures", common.LIMITS)
    return table


def _base(rows: _Rows, kind: _ByKind) -> list[tuple[Cell, ...]]:
    over_int8, over_slower = rows.warm()
    one_thread = rows.one(STI, "warm_ms") / rows.one(INT8, "warm_ms")
    rested = rows.one(STI + ALL, "rested_ms") / rows.one(INT8 + ALL, "rested_ms")
    return [
        common.at_most(
            "warm, all cores each, over the slower of ORT int8 and STI's storage lane alone",
            over_slower,
            WARM_LIMIT,
        ),
        ("warm, all cores each, over ORT int8", over_int8, None, None),
        ("the same, after a wait", rested, None, None),
        common.at_most("warm, one thread each, over ORT int8", one_thread, kind.one_thread),
        common.at_least("cold, times faster than ORT int8", rows.faster(INT8), kind.cold_int8),
        common.at_least("cold, times faster than ORT fp32", rows.faster(FP32), kind.cold_fp32),
        *_cold_mapped(rows, prepacked=1.6, pipe=1.4),
        common.at_most("growth of memory over ORT int8's", rows.growth(INT8), 1 / 5),
        common.at_most("growth of memory over ORT's layers in turn", rows.growth(IN_TURN), 0.9),
    ]


def _minilm(rows: _Rows, _: _ByKind) -> list[tuple[Cell, ...]]:
    return [
        common.at_most("warm, all cores each, over ORT int8", rows.warm()[0], 1.3),
        *_cold_mapped(rows, prepacked=1.2, pipe=1.15),
    ]


def _large(rows: _Rows, _: _ByKind) -> list[tuple[Cell, ...]]:
    return [common.at_most("growth of memory over ORT int8's", rows.growth(INT8), 1 / 8)]


def _cold_mapped(rows: _Rows, *, prepacked: float, pipe: float) -> list[tuple[Cell, ...]]:
    what = "cold, times faster than ORT int8 "
    return [
        common.at_least(f"{what}prepacked and mapped", rows.faster(PREPACKED), prepacked),
        common.at_least(f"{what}layers in a pipe", rows.faster(PIPE), pipe),
    ]


def _short(found: Sequence[Figures]) -> list[tuple[Cell, ...]]:
    """Of a short text, which storage limits; nothing where none was measured."""
    if not found:
        return []
    rows = _Rows(found)
    reads = rows.one(STORAGE_ALONE, "warm_ms")
    return [
        common.at_most(
            f"warm, {SHORT_TEXT[1]} tokens, {threads}, over STI's storage lane alone",
            rows.one(STI + suffix, "warm_ms") / reads,
            SHORT_LIMIT,
        )
        for suffix, threads in ((ALL, "all cores"), ("", "one thread"))
    ]


def _memory(limited: Limited) -> list[tuple[Cell, ...]]:
    """Within memory limits; nothing where none could be set."""
    ours, pipe = (limited.name_of(name) for name in (STI, PIPE))
    if ours is None or pipe is None:
        return []
    found: list[tuple[Cell, ...]] = []
    for limit_mb in MEMORY_MB:
        for what, least in (("warm", MEMORY_WARM), ("cold", MEMORY_COLD)):
            name = f"{what} within {limit_mb} MB, times faster than ORT's layers in a pipe"
            one, other = (limited.figure(who, limit_mb, f"{what}_ms") for who in (ours, pipe))
            if one is None:
                found.append((name, None, f">= {least:g}", "SHORT: no answer"))
            elif other is None:
                found.append((name, None, f">= {least:g}", "met: the other has no answer"))
            else:
                found.append(common.at_least(name, other / one, least))
    smallest = limited.smallest(ours)
    name = "smallest memory limit, in MB, in which STI is at most 1.2 times slower"
    if smallest is None:
        found.append((name, None, f"<= {SMALLEST_MB}", "SHORT"))
    else:
        found.append(common.at_most(name, smallest, SMALLEST_MB))
    return found
