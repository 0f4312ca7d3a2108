"""Running texts within a target.

In: a pack, a target, texts. Out: sessions of counted runs; the least latency that an engine offers.
The only module of the benchmark of targets that reads an engine's results. Knows nothing of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.targets_counting import FLOOR, Run, Session
from benchmarks.targets_setting import Case
from sti.device import host
from sti.engine.engine import Engine
from sti.engine.lateness import describe_lateness
from sti.engine.results import Result
from sti.errors import InfeasibleError, StiWarning
from sti.model.manifest import Manifest
from sti.model.workload import bucket
from sti.pack.pack_reader import PackReader

LONGEST_WAIT_S = 5.0
"""For the preload buffer."""
_MISSED = "was missed by"
"""Words of a warning of too many misses; others speak of texts, planes or quality."""
_STEP, _MORE, _CLOSE = 1.5, 1.0005, 1.01
"""From one target to the next that may keep the floor; room for rounding; how near is enough."""
_STEAL = 8
"""Which number of the first line of ``/proc/stat`` is stolen time."""
_TICKS = 100.0
"""A second, as Linux counts for programs."""


def exact(seconds: float) -> timedelta:
    """A latency; rounded up to the microsecond."""
    return timedelta(microseconds=int(np.ceil(seconds * 1e6)))


def open_engine(
    case: Case,
    latency_s: float | None,
    preload: str = "0",
    *,
    refuse: bool = True,
    **options: Any,
) -> Engine:
    """An engine with a target.

    Args:
        refuse: whether it refuses what takes a plan below the floor, or answers and warns.
    """
    latency = None if latency_s is None else exact(latency_s)
    return Engine.open(
        case.path,
        latency=latency,
        preload=preload,
        floor=_floor(case.path) if refuse and latency is not None else None,
        comparable=case.comparable,
        **options,
    )


@cache
def _floor(path: Path) -> str | None:
    """The floor to ask for; None where the pack does not state its quality."""
    with PackReader.open(path) as reader:
        return None if reader.manifest.quality is None else f"{FLOOR:.0%}"


def aim(engine: Engine, latency_s: float, preload: str = "0") -> None:
    """Another target, as ``open_engine`` sets it."""
    floor = None if engine.manifest.quality is None else f"{FLOOR:.0%}"
    engine.set_target(latency=exact(latency_s), preload=preload, floor=floor)


def run_session(session: Session, engine: Engine, texts: Iterable[str]) -> Session:
    """Answer texts one after the other; the preload buffer is full before the first."""
    engine.preloaded(LONGEST_WAIT_S)
    seen: set[int] = {run.tokens for run in session.runs}
    for text in texts:
        run = answer(engine, session, text)
        tokens = tokens_of(engine, text)
        session.kept.append(run is not None and run.inside)
        if run is not None:
            opening = not session.runs
            session.runs.append(
                run._replace(tokens=tokens, first=tokens not in seen, opening=opening)
            )
            seen.add(tokens)
        elif tokens in seen:
            session.withdrawn += 1
        else:
            session.refused += 1
    if session.runs:
        health = engine.health()
        session.health = health.runs, health.inside or 0.0
    return session


def answer(engine: Engine, session: Session, text: str) -> Run | None:
    """Answer one text, and count what was warned of; None where it is refused."""
    stolen = stolen_s()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            start = perf_counter()
            result = engine.run([text])
            call_s = perf_counter() - start
        except InfeasibleError:
            return None
    stolen = stolen_s() - stolen
    session.warned += sum(
        issubclass(item.category, StiWarning) and _MISSED in str(item.message) for item in caught
    )
    return run_of(result, engine.manifest)._replace(stolen_s=stolen, call_s=call_s)


def run_of(result: Result, manifest: Manifest) -> Run:
    """What counts of a result; what the machine did meanwhile is not in it."""
    predicted, target_s = result.plan.predicted, result.plan.target.latency_s
    assert predicted is not None
    metric = None if result.quality is None else result.quality.value
    least = least_metric(manifest)
    return Run(
        tokens=result.plan.workload.tokens,
        first=False,
        target_s=float("inf") if target_s is None else target_s,
        total_s=result.timing.total_s,
        plan_s=result.timing.plan_s,
        predicted_s=predicted.total_s,
        met=result.met,
        late_s=result.late_s,
        line=describe_lateness(result),
        waited_s=waited_s(result),
        stolen_s=0.0,
        metric=metric,
        above_floor=metric is None or least is None or metric >= least,
        planned_bytes=predicted.bytes_read + sum(step.preload_bytes for step in result.plan.steps),
        downgrades=len(result.downgrades),
        call_s=result.timing.total_s,
    )


def waited_s(result: Result) -> float | None:
    """Seconds that other processes kept the run waiting for a core; None where nobody knows."""
    share = result.trace.waited_share
    return None if share is None else share * result.timing.total_s


def least_metric(manifest: Manifest) -> float | None:
    """The quality floor; None for packs that have not measured their quality."""
    return None if manifest.quality is None else FLOOR * manifest.quality.estimate(0.0).value


def tokens_of(engine: Engine, text: str) -> int:
    """The bucket of one text."""
    (encoded,) = engine.tokenize([text])
    return bucket(1, len(encoded.ids), most=engine.max_tokens).tokens


def least_offered(engine: Engine, tokens: int, preload: str = "0") -> float:
    """The least latency, in seconds, that the engine accepts for one text of so many tokens.

    It aims at that target from then on.
    """
    refused_s, offered_s = 1e-5, None
    for _ in range(80):
        refusal = _refusal(engine, refused_s, tokens, preload)
        if refusal is None:
            offered_s = refused_s
            break
        last_s, by_latency = refused_s, refusal.limit == "latency"
        refused_s *= _STEP  # a floor that is missed says nothing of the time to keep it
        if by_latency:
            refused_s = max(refusal.needed, last_s) * _MORE
    if offered_s is None:
        raise RuntimeError(f"refused {last_s * 1e3:.2f} ms, and all that was named as enough")
    while not by_latency and offered_s > last_s * _CLOSE:
        middle_s = (last_s * offered_s) ** 0.5
        if _refusal(engine, middle_s, tokens, preload) is None:
            offered_s = middle_s
        else:
            last_s = middle_s
    aim(engine, offered_s, preload)
    return offered_s


def _refusal(engine: Engine, latency_s: float, tokens: int, preload: str) -> InfeasibleError | None:
    """Why a target is refused; None where it is accepted.

    Raises:
        InfeasibleError: no latency would do.
    """
    try:
        aim(engine, latency_s, preload)
        engine.plan_for(tokens=tokens)
    except InfeasibleError as refused:
        if refused.limit not in ("latency", "quality"):
            raise
        return refused
    return None


def stolen_s() -> float:
    """Seconds that the host gave to other guests, on all cores; 0 where nothing says it."""
    try:
        with (host.ROOT / "proc/stat").open(encoding="ascii") as stat:
            return int(stat.readline().split()[_STEAL]) / _TICKS
    except (OSError, IndexError, ValueError):
        return 0.0
