"""How soon and how much memory ``Engine.release`` gives back.

In: packs. Out: seconds from the call to the least growth afterwards, and that growth beside what
opening alone takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import NamedTuple

from benchmarks.common import Column, Table, at_most, median
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import (
    HELD_S,
    MB,
    Pack,
    Setting,
    least_offered,
    open_and_run,
    whole_bytes,
)
from benchmarks.rows import Summary, reported, tell
from sti.device import host
from sti.units import exact_size

FIDELITY = 4
TOKENS = 128
TIMES = 5
WATCHED_S = 0.3
"""After the call: what comes later is not its doing."""
WANTED_S = 0.05
_SAME_BYTES = 100_000
"""Within so much of the least it is reached: the system counts pages late."""
_RUNS = 3


class Released(NamedTuple):
    """One call."""

    pack: str
    form: str
    taken_s: float
    """From the call to the least growth."""
    call_s: float
    before_bytes: int
    """Growth before the call, mapped weights included."""
    least_bytes: int
    """Growth afterwards."""
    mapped_bytes: int
    """Weights that are still mapped."""
    opened_bytes: int
    """What an engine takes that was opened and has not run."""


def measure(setting: Setting) -> Iterator[Released]:
    """Streamed with part of the weights held, and with the whole held as a graph."""
    for pack in setting.packs:
        target = {"fidelity": pack.nearest(FIDELITY)}
        tell(f"release: {pack.name}: how large budgets may be")
        whole = whole_bytes(pack, target, threads=host.core_count())
        least = least_offered(pack, target, TOKENS, threads=host.core_count())
        if least.needed_bytes is None:
            raise RuntimeError(f"{pack.name}: {least.said}")
        middle = round(sqrt(least.needed_bytes * whole))
        opened = opened_bytes(pack, target, whole)
        for memory in (middle, whole):
            yield from _with(pack, target, memory, opened)


def opened_bytes(pack: Pack, target: dict[str, int], memory: int) -> int:
    """What opening takes where nothing is held."""
    given = {**target, "memory": exact_size(memory), "preload": "0"}
    with MeasuredProcess([]) as process:
        threads = host.core_count()
        reply = process.ask("open", pack=str(pack.path), target=given, threads=threads)
        _check(pack, reply)
        time.sleep(WATCHED_S)
        return process.growth_bytes


def _with(pack: Pack, target: dict[str, int], memory: int, opened: int) -> Iterator[Released]:
    with MeasuredProcess([pack.texts(1, TOKENS)]) as process:
        reply = open_and_run(process, pack, target, memory, threads=host.core_count())
        for _ in range(TIMES):
            _check(pack, reply)
            form = reply["form"]
            before = process.growth_bytes + process.mapped_bytes()
            called = process.ask("release")
            _check(pack, called)
            time.sleep(WATCHED_S)
            sizes = process.growth_since(called["begun_s"])
            least = min(size for _, size in sizes)
            at_s = next(at for at, size in sizes if size <= least + _SAME_BYTES)
            found = Released(
                pack.name,
                form,
                at_s - called["begun_s"],
                called["ended_s"] - called["begun_s"],
                before,
                least,
                process.mapped_bytes(),
                opened,
            )
            tell(f"release: {pack.name}, {form}: {found.taken_s * 1e3:.1f} ms")
            yield found
            process.ask("run", texts=0, times=_RUNS)
            process.ask("wait", seconds=HELD_S)
            reply = process.ask("run", texts=0, times=_RUNS)


def _check(pack: Pack, reply: dict[str, object]) -> None:
    if "refused" in reply or "error" in reply:
        raise RuntimeError(f"{pack.name}: {reply.get('said') or reply.get('error')}")


def summarize(items: Sequence[Released]) -> Summary:
    """Of each pack and form the slowest call, and the most that stays."""
    found = Summary()
    columns = (Column("pack"), Column("held"), Column("times", ",d"), Column("ms, median", ".1f"))
    columns += (Column("ms, most", ".1f"), Column("call ms, most", ".1f"))
    columns += (Column("before MB", ".2f"), Column("after the first MB", ".2f"))
    columns += (Column("after, most MB", ".2f"), Column("mapped MB", ".2f"))
    table = Table("Release", (*columns, Column("opening MB", ".2f")))
    for pack, form in dict.fromkeys((item.pack, item.form) for item in items):
        mine = [item for item in items if (item.pack, item.form) == (pack, form)]
        taken = [item.taken_s * 1e3 for item in mine]
        after = max(item.least_bytes for item in mine)
        sizes = [max(item.before_bytes for item in mine), mine[0].least_bytes, after]
        sizes += [max(item.mapped_bytes for item in mine), mine[0].opened_bytes]
        times = (median(taken), max(taken), max(item.call_s for item in mine) * 1e3)
        table.rows.append((pack, form, len(mine), *times, *(size / MB for size in sizes)))
        name = f"{pack}, {form}"
        found.limits += [
            at_most(f"{name}: release to the least growth, ms, most", max(taken), WANTED_S * 1e3),
            reported(
                f"{name}: growth then, the most, over opening's",
                after / max(1, mine[0].opened_bytes),
            ),
        ]
    found.tables.append(table)
    return found
