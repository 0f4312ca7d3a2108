"""Latency against memory: budgets from the least to the whole, all open at once and run in turns.

In: packs. Out: how long runs take with each budget, what is held, and how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Column, Table, at_most, median
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import (
    MB,
    Pack,
    Setting,
    least_offered,
    logarithmic,
    open_and_run,
    whole_bytes,
)
from benchmarks.rows import Summary, tell
from sti.benchmark.comparison import IN_A_ROW
from sti.device import host

FIDELITY = 4
TOKENS = (16, 128)
BUDGETS = 8
SLOWER = 1.05
"""Times that a larger budget's runs may take of the fastest with less, and count as no longer."""


class Point(NamedTuple):
    """Runs with one budget."""

    pack: str
    tokens: int
    memory_bytes: int
    seconds: tuple[float, ...]
    held_bytes: int
    """Compressed."""
    mapped_bytes: int
    """Weights of a graph."""
    growth_bytes: int
    threads: str
    form: str


def measure(setting: Setting) -> Iterator[Point]:
    """Length after length."""
    for pack in setting.packs:
        target = {"fidelity": pack.nearest(FIDELITY)}
        tell(f"latency: {pack.name}: how large budgets may be")
        whole = whole_bytes(pack, target, threads=host.core_count())
        for tokens in setting.lengths(pack, TOKENS):
            least = least_offered(pack, target, tokens, threads=host.core_count())
            if least.needed_bytes is None:
                tell(f"latency: {pack.name}, {tokens} tokens: {least.said}")
                continue
            budgets = logarithmic(least.needed_bytes, whole, BUDGETS)
            yield from _in_turns(setting, pack, target, tokens, budgets)


def _in_turns(
    setting: Setting, pack: Pack, target: dict[str, Any], tokens: int, budgets: Sequence[int]
) -> Iterator[Point]:
    texts = [pack.texts(1, tokens)]
    with ExitStack() as stack:
        running: dict[int, MeasuredProcess] = {}
        last: dict[int, dict[str, Any]] = {}
        for budget in budgets:
            tell(f"latency: {pack.name}, {tokens} tokens: opening with {budget / MB:.1f} MB")
            process = stack.enter_context(MeasuredProcess(texts))
            reply = open_and_run(process, pack, target, budget, threads=host.core_count())
            if "form" in reply:
                running[budget], last[budget] = process, reply
            else:
                tell(f"  {reply.get('said') or reply.get('error')}")
        seconds: dict[int, list[float]] = {budget: [] for budget in running}
        for turn in range(setting.turns):
            tell(f"latency: {pack.name}, {tokens} tokens: turn {turn + 1} of {setting.turns}")
            for budget, process in running.items():
                reply = process.ask("run", texts=0, times=1 + IN_A_ROW)
                if "form" in reply:
                    last[budget] = reply
                    seconds[budget] += reply["seconds"][1:]  # the first one follows a wait
        for budget, process in running.items():
            reply = last[budget]
            yield Point(
                pack.name,
                tokens,
                budget,
                tuple(seconds[budget]),
                reply["held_bytes"],
                process.mapped_bytes(),
                process.growth_bytes,
                reply["threads"],
                reply["form"],
            )


def worst_step(medians: Sequence[float]) -> float:
    """The most that runs with more memory take, in times of the fastest with less."""
    fastest, worst = medians[0], 1.0
    for found in medians[1:]:
        worst = max(worst, found / fastest)
        fastest = min(fastest, found)
    return worst


def summarize(points: Sequence[Point]) -> Summary:
    """Every budget, and whether more memory never takes longer."""
    found = Summary()
    columns = (Column("pack"), Column("tokens", ",d"), Column("budget MB", ".2f"))
    columns += (Column("median ms", ".2f"), Column("p90 ms", ".2f"), Column("held MB", ".2f"))
    columns += (Column("mapped MB", ".2f"), Column("grown MB", ".2f"), Column("threads"))
    table = Table(f"Latency against memory, {FIDELITY} bits", (*columns, Column("form")))
    cases: dict[tuple[str, int], list[float]] = {}
    for point in points:
        if not point.seconds:
            continue
        middle = median(point.seconds)
        cases.setdefault((point.pack, point.tokens), []).append(middle)
        p90 = float(np.percentile(point.seconds, 90))
        sizes = (point.held_bytes / MB, point.mapped_bytes / MB, point.growth_bytes / MB)
        times = (middle * 1e3, p90 * 1e3)
        row = (point.pack, point.tokens, point.memory_bytes / MB, *times, *sizes)
        table.rows.append((*row, point.threads, point.form))
    found.tables.append(table)
    for (pack, tokens), medians in cases.items():
        name = f"{pack}, {tokens} tokens: runs with more memory over the fastest with less"
        found.limits.append(at_most(name, worst_step(medians), SLOWER))
    return found
