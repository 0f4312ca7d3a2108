"""Which bytes to hold: the leading ones, or whole groups spread over the run, at slow storage.

In: packs. Out: how long runs take under plans that differ in ``preload_bytes`` alone, in turns.
Slowness is emulated: real reads, answered late (``sti.device.emulated_storage``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from benchmarks.common import Column, Table, median
from benchmarks.memory_setting import MB, Pack, Setting, Summary, reported, tell
from sti.calibration.calibrate import best_threads
from sti.device.emulated_storage import SlowReader, parse_storage, with_storage
from sti.engine.engine import Engine
from sti.model.fidelity import groups_of
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.plan import Plan, PlanRequest, PlanStep
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import total_bytes
from sti.storage.file_reader import FileReader

STORAGE = "100MB/s:0.2ms"
FIDELITY = 4
TOKENS = (16, 128)
SHARES = (0.25, 0.5, 0.75)
"""Of the bytes that a run reads."""
IN_A_ROW = 3
_WAIT_S = 60.0

Placing = Callable[[Sequence[PlanStep], Sequence[int], int], tuple[PlanStep, ...]]
"""Steps with so many bytes held: of steps, the bytes that each reads, and a budget."""


def place_leading(
    steps: Sequence[PlanStep], sizes: Sequence[int], budget: int
) -> tuple[PlanStep, ...]:
    """The first bytes of all."""
    return _in_order(steps, sizes, range(len(steps)), budget)


def place_spread(
    steps: Sequence[PlanStep], sizes: Sequence[int], budget: int
) -> tuple[PlanStep, ...]:
    """Whole groups at even distances, the first one always; then leading ones with what is left."""
    count = len(steps)
    for number in range(count, 0, -1):
        even = [place * count // number for place in range(number)]
        if sum(sizes[place] for place in even) <= budget:
            others = [place for place in range(count) if place not in even]
            return _in_order(steps, sizes, [*even, *others], budget)
    return place_leading(steps, sizes, budget)


def _in_order(
    steps: Sequence[PlanStep], sizes: Sequence[int], order: Sequence[int], budget: int
) -> tuple[PlanStep, ...]:
    placed = [step._replace(preload_bytes=0) for step in steps]
    for place in order:
        held = min(budget, sizes[place])
        placed[place] = placed[place]._replace(preload_bytes=held)
        budget -= held
    return tuple(placed)


PLACINGS: dict[str, Placing] = {"leading": place_leading, "spread": place_spread}


class Placed(NamedTuple):
    """Runs under one placement."""

    pack: str
    tokens: int
    share: float
    held_bytes: int
    placing: str
    seconds: tuple[float, ...]
    stall_s: tuple[float, ...]


def sizes_of(manifest: Manifest, plan: Plan) -> list[int]:
    """The bytes that each step of a plan reads if nothing is held."""
    submodel = manifest.submodel(plan.depth, plan.width)
    assert submodel is not None, "the plan fits the pack"
    groups = groups_of(manifest, submodel)
    return [
        total_bytes(group_ranges(group, step.counts))
        for group, step in zip(groups, plan.steps, strict=True)
    ]


def with_placing(plan: Plan, sizes: Sequence[int], budget: int, placing: Placing) -> Plan:
    """The plan with other bytes held."""
    steps = placing(plan.steps, sizes, budget)
    target = plan.target._replace(preload_bytes=budget)
    return replace(plan, steps=steps, target=target, predicted=None)


def measure(setting: Setting) -> Iterator[Placed]:
    """Share after share, both placements in turns."""
    for pack in setting.packs:
        with Engine.open(pack.path, history=False) as engine:
            threads = best_threads(engine.reader)
        storage = parse_storage(STORAGE)
        with Engine.open(pack.path, history=False, threads=threads) as engine:
            profile = with_storage(engine.profile, storage)
            manifest, pack_id = engine.manifest, engine.pack_id
        for tokens in setting.lengths(pack, TOKENS):
            request = PlanRequest(manifest, pack_id, Workload(1, tokens))
            plan = uniform_plan(request, bits=pack.nearest(FIDELITY), profile=profile)
            sizes = sizes_of(manifest, plan)
            for share in SHARES:
                budget = round(share * sum(sizes))
                tell(f"placement: {pack.name}, {tokens} tokens, {share:.0%} held")
                plans = {
                    name: with_placing(plan, sizes, budget, placing)
                    for name, placing in PLACINGS.items()
                }
                with ExitStack() as stack:
                    engines = {
                        name: stack.enter_context(
                            Engine.open(
                                pack.path,
                                plan=placed,
                                threads=threads,
                                profile=profile,
                                storage=SlowReader(FileReader(pack.path), storage),
                                history=False,
                            )
                        )
                        for name, placed in plans.items()
                    }
                    found = _in_turns(engines, pack, tokens, setting.turns)
                for name, (seconds, stalls) in found.items():
                    held = sum(step.preload_bytes for step in plans[name].steps)
                    yield Placed(pack.name, tokens, share, held, name, seconds, stalls)


def _in_turns(
    engines: dict[str, Engine], pack: Pack, tokens: int, turns: int
) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    texts = pack.texts(1, tokens)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    stalls: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.run(texts)
        if not engine.preloaded(_WAIT_S):
            raise RuntimeError(f"{pack.name}: not preloaded within {_WAIT_S:g} s")
    for _ in range(turns):
        for name, engine in engines.items():
            engine.run(texts)  # follows a wait
            for _ in range(IN_A_ROW):
                timing = engine.run(texts).timing
                seconds[name].append(timing.total_s)
                stalls[name].append(timing.stall_s)
    return {name: (tuple(seconds[name]), tuple(stalls[name])) for name in engines}


def summarize(items: Sequence[Placed]) -> Summary:
    """Every placement, and spread over leading."""
    found = Summary()
    columns = (Column("pack"), Column("tokens", ",d"), Column("held", ".0%"))
    columns += (Column("held MB", ".2f"), Column("placement"), Column("median ms", ".2f"))
    columns += (Column("p90 ms", ".2f"), Column("stalled ms, median", ".2f"))
    table = Table(f"Placement of the preload at {STORAGE}", columns)
    medians = {}
    for item in items:
        middle = median(item.seconds)
        medians[item.pack, item.tokens, item.share, item.placing] = middle
        p90 = float(np.percentile(item.seconds, 90))
        row = (item.pack, item.tokens, item.share, item.held_bytes / MB, item.placing)
        table.rows.append((*row, middle * 1e3, p90 * 1e3, median(item.stall_s) * 1e3))
    found.tables.append(table)
    for (pack, tokens, share, placing), middle in medians.items():
        leading = medians.get((pack, tokens, share, "leading"))
        if placing == "spread" and leading is not None:
            name = f"{pack}, {tokens} tokens, {share:.0%} held: spread over leading"
            found.limits.append(reported(name, middle / leading))
    return found
