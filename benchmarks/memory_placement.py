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

from benchmarks.common import Column, Table, at_most, median
from benchmarks.memory_setting import MB, Pack, Setting
from benchmarks.rows import Summary, reported, tell
from sti.calibration.calibrate import best_threads
from sti.device.emulated_storage import SlowReader, parse_storage, with_storage
from sti.engine.engine import Engine
from sti.model.fidelity import groups_of
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.plan import Plan, PlanRequest, PlanStep, Target
from sti.planning.preload_placement import place, place_spread
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

PLACINGS: dict[str, Callable[..., tuple[PlanStep, ...]]] = {
    "leading": place,
    "spread": place_spread,
}
"""What places a budget in slice groups of which so many shards are read."""
SLOWER = 1.05
"""Times that runs may take of those with the leading bytes held, and count as no longer."""


class Placed(NamedTuple):
    """Runs under one placement."""

    pack: str
    tokens: int
    share: float
    held_bytes: int
    placing: str
    seconds: tuple[float, ...]
    stall_s: tuple[float, ...]
    planned: bool
    """Whether a plan for this preload holds the same."""


def groups_of_plan(manifest: Manifest, plan: Plan) -> tuple[SliceGroup, ...]:
    """The slice groups of a plan's steps."""
    submodel = manifest.submodel(plan.depth, plan.width)
    assert submodel is not None, "the plan fits the pack"
    return tuple(groups_of(manifest, submodel))


def read_bytes(groups: Sequence[SliceGroup], plan: Plan) -> int:
    """What a plan reads if nothing is held."""
    return sum(
        total_bytes(group_ranges(group, step.counts))
        for group, step in zip(groups, plan.steps, strict=True)
    )


def with_placing(plan: Plan, groups: Sequence[SliceGroup], budget: int, placing: str) -> Plan:
    """The plan with other bytes held."""
    placed = PLACINGS[placing](groups, [step.counts for step in plan.steps], budget)
    steps = tuple(
        step._replace(preload_bytes=other.preload_bytes)
        for step, other in zip(plan.steps, placed, strict=True)
    )
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
            bits = pack.nearest(FIDELITY)
            plan = uniform_plan(request, bits=bits, profile=profile)
            groups = groups_of_plan(manifest, plan)
            for share in SHARES:
                budget = round(share * read_bytes(groups, plan))
                tell(f"placement: {pack.name}, {tokens} tokens, {share:.0%} held")
                plans = {name: with_placing(plan, groups, budget, name) for name in PLACINGS}
                wanted = request._replace(target=Target(preload_bytes=budget))
                own = uniform_plan(wanted, bits=bits, profile=profile, threads=plan.threads)
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
                    held = [step.preload_bytes for step in plans[name].steps]
                    planned = held == [step.preload_bytes for step in own.steps]
                    yield Placed(
                        pack.name, tokens, share, sum(held), name, seconds, stalls, planned
                    )


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
    columns += (Column("p90 ms", ".2f"), Column("stalled ms, median", ".2f"), Column("planned"))
    table = Table(f"Placement of the preload at {STORAGE}", columns)
    cases: dict[tuple[str, int, float], dict[str, float]] = {}
    planned: dict[tuple[str, int, float], str] = {}
    for item in items:
        case, middle = (item.pack, item.tokens, item.share), median(item.seconds)
        cases.setdefault(case, {})[item.placing] = middle
        if item.planned:
            planned[case] = item.placing
        p90 = float(np.percentile(item.seconds, 90))
        times = (middle * 1e3, p90 * 1e3, median(item.stall_s) * 1e3)
        row = (*case, item.held_bytes / MB, item.placing, *times, "yes" if item.planned else "no")
        table.rows.append(row)
    found.tables.append(table)
    for case, medians in cases.items():
        if len(medians) < len(PLACINGS):
            continue
        pack, tokens, share = case
        name = f"{pack}, {tokens} tokens, {share:.0%} held"
        ratio = medians["spread"] / medians["leading"]
        found.limits.append(reported(f"{name}: spread over leading", ratio))
        if planned.get(case) == "spread":
            found.limits.append(at_most(f"{name}: spread, as planned, over leading", ratio, SLOWER))
    return found
