"""The grid of targets: both packs, three preload buffers, texts of 4 to 400 words.

In: packs, sentences. Out: sessions, each an engine of its own with one target, and the shares of
runs inside; how well time is used where the full model does not fit, and how far the plans are
behind the best in hindsight. Runs that the machine disturbed are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.common import Cell, Column, Table
from benchmarks.targets_counting import Run, Session, share_of
from benchmarks.targets_hindsight import Hindsight, look_back
from benchmarks.targets_runs import (
    least_offered,
    open_engine,
    run_session,
)
from benchmarks.targets_setting import COMPARABLE, Case, Found, Setting, text_of_words
from sti.errors import InfeasibleError

LEAST_S, MOST_S, TARGETS = 0.02, 0.12, 20
PRELOADS = ("0", "1MB", "4MB")
WORDS = (4, 400)
STATED = 128
"""Tokens that comparable embeddings are planned for."""
TIGHT = 8
"""Further targets, from the least that is offered with room to spare to the first of the grid."""
ROOM = 1.25
LATER_BOUND, FIRST_BOUND = 0.97, 0.95
MOST_DISTURBED = 0.1
MEDIAN_USED, MOST_BEHIND = 0.7, 0.3

_SHARES = (
    *(Column("pack"), Column("targets"), Column("runs")),
    *(Column("inside", ".1%"), Column("bound", ".1%"), Column("of runs", ",d")),
    *(Column("by the caller's clock", ".1%"), Column("below floor", ",d")),
    *(Column("downgrades", ",d"), Column("disturbed", ".1%"), Column("refused", ",d")),
    *(Column("withdrawn", ",d"),),
)
_USE = (
    *(Column("pack"), Column("cells", ",d"), Column("measured over target", ".2f")),
    *(Column("behind, points", ".2f"), Column("largest", ".2f"), Column("none fits", ",d")),
)


class _Asked(NamedTuple):
    """A session to be run."""

    case: Case
    latency_s: float
    preload: str
    tight: bool


@dataclass(slots=True)
class Kept:
    """The sessions of the grid."""

    wide: list[Session]
    tight: list[Session]
    hindsight: list[tuple[str, Hindsight]]


def grid(setting: Setting) -> Found:
    """Everything of the grid."""
    kept = run_all(setting)
    found = Found(sessions=[*kept.wide, *kept.tight])
    table = Table("Inside the target, quiet", _SHARES)
    for title, sessions in (("20 to 120 ms", kept.wide), ("tighter", kept.tight)):
        for case in dict.fromkeys(session.case for session in sessions):
            mine = [session for session in sessions if session.case == case]
            table.rows.extend(_shares(case, title, mine))
    found.limits += _limits(kept.wide)
    found.tables += [table, _use(kept, found)]
    found.notes += [
        "first: the first text of a length bucket that an engine answers, the very first of each "
        "engine among them; later: all others; disturbed runs are in neither",
        "refused: texts of lengths for which a target was never accepted; withdrawn: of lengths "
        "that had been answered before, which count as outside",
        f"tighter: {TIGHT} targets for each pack, from {ROOM:g} times the least offered for 32 "
        "tokens to 20 ms",
    ]
    return found


def run_all(setting: Setting) -> Kept:
    """Sessions in a random order, so that what the budget cuts off is a fair part of them."""
    rng, kept = setting.generator(1), Kept([], [], [])
    asked = list(_asked(setting, rng))
    adaptive = sum(not item.case.comparable and not item.tight for item in asked)
    count = max(3, -(-setting.runs // max(1, adaptive)))
    for place in rng.permutation(len(asked)):
        item = asked[place]
        if setting.budget.over():
            break
        session = Session(item.case.name, item.latency_s, item.preload)
        (kept.tight if item.tight else kept.wide).append(session)
        texts = texts_of(setting.sentences, count, rng)
        try:
            with open_engine(item.case, item.latency_s, item.preload) as engine:
                run_session(session, engine, texts)
                if not setting.budget.over(0.9) and not item.case.comparable:
                    looked = look_back(engine, session)
                    kept.hindsight += [(item.case.name, one) for one in looked]
        except InfeasibleError:
            session.refused += len(texts)
    return kept


def _asked(setting: Setting, rng: np.random.Generator) -> Iterator[_Asked]:
    """All combinations; targets are drawn evenly on a scale of logarithms."""
    cases = cases_of(setting)
    for case in cases:
        for latency_s in _between(LEAST_S, MOST_S, TARGETS, rng):
            yield from (_Asked(case, latency_s, preload, tight=False) for preload in PRELOADS)
        if case.comparable:
            continue
        with open_engine(case, None) as engine:
            least_s = ROOM * least_offered(engine, 32)
        if least_s < LEAST_S:
            for latency_s in _between(least_s, LEAST_S, TIGHT, rng):
                yield from (_Asked(case, latency_s, preload, tight=True) for preload in PRELOADS)


def cases_of(setting: Setting) -> list[Case]:
    """Every pack planned for each length; embeddings once more as they are by default."""
    cases = [Case(path) for path in setting.packs]
    for path in setting.packs:
        with open_engine(Case(path), None) as engine:
            embeds = engine.task == "embedding"
        if embeds:
            cases.append(Case(path, comparable=True))
    return cases


def _between(least: float, most: float, count: int, rng: np.random.Generator) -> list[float]:
    places = (np.arange(count) + rng.random(count)) / count
    return [float(least * (most / least) ** place) for place in places]


def texts_of(sentences: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Texts of 4 to 400 words, as many of each doubling."""
    low, high = np.log(WORDS)
    lengths = np.exp(rng.uniform(low, high, size=count)).round().astype(int)
    return [text_of_words(sentences, int(length), rng) for length in lengths]


def _counted(session: Session) -> list[Run]:
    """Without runs of texts that are longer than a comparable plan is made for."""
    if not session.case.endswith(COMPARABLE):
        return session.runs
    return [run for run in session.runs if run.tokens <= STATED]


def _quiet(sessions: Sequence[Session], *, first: bool) -> list[Run]:
    return [
        run
        for session in sessions
        for run in _counted(session)
        if run.first is first and not run.disturbed
    ]


def _shares(case: str, title: str, sessions: Sequence[Session]) -> Iterator[tuple[Cell, ...]]:
    runs = [run for session in sessions for run in _counted(session)]
    disturbed = [run for run in runs if run.disturbed]
    first = _quiet(sessions, first=True)
    groups = {
        "later": _quiet(sessions, first=False),
        "first of a bucket": first,
        "first of an engine": [run for run in first if run.opening],
        "disturbed": disturbed,
    }
    if case.endswith(COMPARABLE):
        every = [run for session in sessions for run in session.runs]
        groups[f"of more than {STATED} tokens"] = [run for run in every if run.tokens > STATED]
    for name, members in groups.items():
        whole = name == "later"
        withdrawn = sum(session.withdrawn for session in sessions) if whole else 0
        share = share_of(members, withdrawn)
        yield (
            *(case, title, name, share.share, share.bound, share.runs),
            float(np.mean([run.call_s <= run.target_s for run in members])) if members else 0.0,
            sum(not run.above_floor for run in members),
            sum(run.downgrades > 0 for run in members),
            len(disturbed) / max(1, len(runs)) if whole else None,
            sum(session.refused for session in sessions) if whole else None,
            withdrawn if whole else None,
        )


def _limits(sessions: Sequence[Session]) -> Iterator[tuple[Cell, ...]]:
    for comparable in (False, True):
        mine = [item for item in sessions if item.case.endswith(COMPARABLE) is comparable]
        runs = [run for session in mine for run in _counted(session)]
        if not runs:
            continue
        what = f"comparable, up to {STATED} tokens: inside" if comparable else "inside"
        for first, limit in ((False, LATER_BOUND), (True, FIRST_BOUND)):
            name = f"{what}, quiet, {'first of a bucket' if first else 'later runs'}, lower bound"
            withdrawn = 0 if first else sum(session.withdrawn for session in mine)
            share = share_of(_quiet(mine, first=first), withdrawn)
            yield common.at_least(name, share.bound, limit)
        disturbed = sum(run.disturbed for run in runs) / len(runs)
        yield common.at_most(f"{what}: share of runs disturbed", disturbed, MOST_DISTURBED)


def _use(kept: Kept, found: Found) -> Table:
    table = Table("Where the full model at its highest fidelity does not fit", _USE)
    for case in dict.fromkeys(name for name, _ in kept.hindsight):
        cells = [item for name, item in kept.hindsight if name == case and not item.full_fits]
        if not cells:
            continue
        used = common.median([item.used for item in cells])
        behind = [item.behind for item in cells if item.behind is not None]
        points = float(np.mean(behind)) if behind else None
        table.rows.append(
            (
                *(case, len(cells), used, points, max(behind) if behind else None),
                sum(item.none_fits for item in cells),
            )
        )
        found.limits.append(common.at_least(f"{case}: measured over target", used, MEDIAN_USED))
        if points is not None:
            name = f"{case}: points behind the best plan in hindsight, mean"
            found.limits.append(common.at_most(name, points, MOST_BEHIND))
    return table
