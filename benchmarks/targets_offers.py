"""How close to what is possible targets are offered, and how they are kept there.

In: packs, labelled sentences. Out: the least latency that is offered over what the fastest plan
above the floor takes; how well plans predict the runs that follow; and the evaluation of the
intents pack's card on the real clock: five targets, three preload buffers, the 95th percentile.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from benchmarks import common
from benchmarks.common import Column, Table, median, p95
from benchmarks.targets_counting import Session, share_of, spread
from benchmarks.targets_runs import (
    LONGEST_WAIT_S,
    least_metric,
    least_offered,
    open_engine,
    run_session,
    tokens_of,
)
from benchmarks.targets_setting import Case, Found, Setting, text_of_words
from shard_tools.evaluation.timing import draw
from sti.engine.engine import Engine
from sti.errors import InfeasibleError
from sti.model.workload import Workload
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.uniform import uniform_plan

TOKENS = 32
CANDIDATES, TURNS = 8, 20
OVER_FASTEST = 1.25
CARD_TIMES = (1.25, 1.75, 2.5, 3.5, 5.0)
CARD_PRELOADS = ("0", "256KB", "1MB")
CARD_RUNS = 60
CELL_TARGETS_S = (0.02, 0.04, 0.1)
CELL_WORDS = (5, 12, 40, 90, 180, 300)
CELL_WARM_UP, CELL_RUNS = 3, 10
ERROR_MEDIAN, ERROR_P95 = 0.05, 0.15

_LEAST = (
    *(Column("pack"), Column("least offered ms", ".2f"), Column("fastest plan, as run", ".2f")),
    *(Column("offered over fastest", ".2f"), Column("fastest")),
    *(Column("plan at the least, as run", ".2f"), Column("p95", ".2f")),
)
_PREDICTED = (
    *(Column("pack"), Column("cells", ",d"), Column("error, median", ".1%")),
    *(Column("95th percentile", ".1%"), Column("spread of runs, median", ".2f")),
    *(Column("disturbed runs", ",d"),),
)
_CARD = (
    *(Column("target ms", ".2f"), Column("preload"), Column("median ms", ".2f")),
    *(Column("p95", ".2f"), Column("p95 inside"), Column("inside", ".1%")),
    *(Column("of runs", ",d"), Column("expected metric", ".3f")),
)


def least(setting: Setting) -> Found:
    """The least latency offered, against plans above the floor as they really run."""
    table, found = Table(f"Least latency offered, {TOKENS} tokens", _LEAST), Found()
    for pack in setting.packs:
        case = Case(pack)
        with open_engine(case, None) as engine:
            text, _ = common.text_of(engine.reader, TOKENS)
            least_s = least_offered(engine, TOKENS)
            plans = [engine.plan_for(tokens=TOKENS), *_fastest(engine)]
            times = _in_turns(engine, plans, text, setting.scaled(TURNS, least=3))
        middle = [median(item) for item in times]
        best = int(np.argmin(middle))
        ratio = least_s / middle[best]
        shown = (
            f"{plans[best].depth} x {plans[best].width}, {'offered' if best == 0 else 'uniform'}"
        )
        table.rows.append(
            (
                *(case.name, least_s * 1e3, middle[best] * 1e3, ratio, shown),
                *(middle[0] * 1e3, p95(times[0]) * 1e3),
            )
        )
        name = f"{case.name}: least latency offered over the fastest plan above the floor, as run"
        found.limits.append(common.at_most(name, ratio, OVER_FASTEST))
    found.tables.append(table)
    return found


def _fastest(engine: Engine) -> list[Plan]:
    """Uniform plans above the floor, those predicted to be the fastest."""
    manifest, profile, floor = engine.manifest, engine.profile, least_metric(engine.manifest)
    request = PlanRequest(manifest, engine.pack_id, Workload(1, TOKENS), Target())
    found: list[tuple[float, int, Plan]] = []
    for submodel, bits in product(manifest.submodels, manifest.ladder):
        plan = uniform_plan(
            request, bits=bits, profile=profile, depth=submodel.depth, width=submodel.width
        )
        assert plan.predicted is not None
        quality = plan.predicted.quality
        if quality is None or floor is None or quality.value >= floor:
            found.append((plan.predicted.total_s, len(found), plan))
    return [plan for _, _, plan in sorted(found)[:CANDIDATES]]


def _in_turns(engine: Engine, plans: list[Plan], text: str, turns: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in plans]
    for turn in range(turns + 1):
        for plan, taken in zip(plans, times, strict=True):
            engine.set_target(plan=replace(plan, target=plan.target._replace(latency_s=None)))
            engine.preloaded(LONGEST_WAIT_S)
            total_s = engine.run([text]).timing.total_s
            if turn:
                taken.append(total_s)
    return times


def predicted(setting: Setting) -> Found:
    """The prediction of one run against the ten that follow, for targets and lengths."""
    rng, found = setting.generator(5), Found()
    table = Table("Predicted against the median of ten runs", _PREDICTED)
    errors: dict[str, list[float]] = {}
    spreads: dict[str, list[float]] = {}
    disturbed: dict[str, int] = {}
    cells = list(product(map(Case, setting.packs), CELL_TARGETS_S, CELL_WORDS))
    for place in rng.permutation(len(cells)):
        if setting.budget.over():
            break
        case, target_s, words = cells[place]
        session = Session(case.name, target_s, "1MB")
        text = text_of_words(setting.sentences, words, rng)
        try:
            with open_engine(case, target_s, "1MB") as engine:
                run_session(session, engine, [text] * (CELL_WARM_UP + CELL_RUNS))
        except InfeasibleError:
            session.refused += 1
        found.sessions.append(session)
        counted = session.runs[CELL_WARM_UP:]
        times = [run.total_s for run in counted if not run.disturbed]
        if len(times) < CELL_RUNS // 2:
            continue
        error = abs(session.runs[CELL_WARM_UP - 1].predicted_s / median(times) - 1.0)
        errors.setdefault(case.name, []).append(error)
        spreads.setdefault(case.name, []).append(spread(times))
        disturbed[case.name] = disturbed.get(case.name, 0) + len(counted) - len(times)
    for name, values in errors.items():
        row = (name, len(values), median(values), p95(values))
        table.rows.append((*row, median(spreads[name]), disturbed[name]))
    found.tables.append(table)
    every = [error for values in errors.values() for error in values]
    if every:
        found.limits += [
            common.at_most("error of predictions, median", median(every), ERROR_MEDIAN),
            common.at_most("error of predictions, 95th percentile", p95(every), ERROR_P95),
        ]
    return found


def card(setting: Setting) -> Found:
    """Cells of an evaluation, the engine planning as it does in use."""
    case, rng, found = Case(setting.packs[0]), setting.generator(6), Found()
    with open_engine(case, None) as engine:
        sample = [str(text) for text in rng.choice(list(setting.sentences), size=400)]
        buckets = [tokens_of(engine, text) for text in sample]
        tokens = int(np.median(buckets))
        fitting = [text for text, size in zip(sample, buckets, strict=True) if size == tokens]
        least_s = least_offered(engine, tokens)
    texts = [str(text) for text in draw(fitting, setting.scaled(CARD_RUNS), seed=setting.seed)]
    table = Table(f"{case.name}: evaluation on the real clock, {tokens} tokens", _CARD)
    inside = cells = 0
    for times, preload in product(CARD_TIMES, CARD_PRELOADS):
        if setting.budget.over():
            break
        session = Session(case.name, times * least_s, preload)
        with open_engine(case, session.target_s, preload) as engine:
            run_session(session, engine, [texts[0], *texts])
        found.sessions.append(session)
        runs = [run for run in session.runs if not run.opening]
        if not runs:
            continue
        taken = [run.total_s * 1e3 for run in runs]
        kept = p95(taken) <= session.target_s * 1e3 and all(run.above_floor for run in runs)
        kept = kept and not session.withdrawn
        inside, cells = inside + kept, cells + 1
        table.rows.append(
            (
                *(session.target_s * 1e3, preload, median(taken), p95(taken)),
                *("yes" if kept else "no", share_of(runs).share, len(runs)),
                median([run.metric for run in runs if run.metric is not None] or [0.0]),
            )
        )
    found.tables.append(table)
    every = len(CARD_TIMES) * len(CARD_PRELOADS)
    found.limits.append(
        common.at_least(f"evaluation: cells of {every} with p95 inside", inside, every)
    )
    return found
