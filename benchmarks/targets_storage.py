"""Storage that becomes ten times slower while runs go on, and fast again.

In: a classifier, sentences. Out: how many runs it takes until targets are met again, where a plan
above the floor could meet them; and until plans are as good as before once it is over. Slowness is
emulated: real reads, answered late (``sti.device.emulated_storage``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.common import Column, Table, median
from benchmarks.targets_counting import Run, Session, runs_until
from benchmarks.targets_hindsight import slowed_lane
from benchmarks.targets_runs import (
    least_metric,
    least_offered,
    open_engine,
    run_session,
)
from benchmarks.targets_setting import Case, Found, Setting
from sti.device.emulated_storage import SlowReader
from sti.device.lane_profiles import StorageProfile
from sti.device.lanes import STORAGE
from sti.device.profile import DeviceProfile
from sti.errors import InfeasibleError
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest, Target
from sti.planning.planner import make_plan
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.units import parse_size

SLOWER = 10.0
BEFORE, DURING, AFTER = 100, 60, 60
TIMES = (1.5, 2.5, 4.0)
"""Targets, in the least that is offered."""
NAMED_S = (0.03, 0.06)
PRELOADS = ("0", "1MB")
UNTIL_INSIDE, UNTIL_BACK = 5, 20
_SAME_METRIC, _SAME_BYTES = 0.001, 0.9
_TOKENS = 24
_COLUMNS = (
    *(Column("target ms", ".1f"), Column("preload"), Column("possible")),
    *(Column("inside before", ".1%"), Column("runs until inside"), Column("inside then", ".1%")),
    *(Column("late planes, runs", ",d"), Column("runs until back")),
    *(Column("metric before", ".3f"), Column("slow", ".3f"), Column("after", ".3f")),
    *(Column("refused", ",d"),),
)


class SwitchedReader:
    """A ``Reader`` of a file that answers like a slower device while ``slow`` is set.

    Args:
        path: the file.
        storage: the slower device.
    """

    def __init__(self, path: Path, storage: StorageProfile) -> None:
        self._fast = FileReader(path)
        self._slow = SlowReader(self._fast, storage)
        self.slow = False

    @property
    def direct(self) -> bool:
        """Whether reads bypass the page cache."""
        return self._fast.direct

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        """As ``Reader.read``."""
        (self._slow if self.slow else self._fast).read(item, out)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """As ``Reader.read_rows``."""
        (self._slow if self.slow else self._fast).read_rows(base, rows, out)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._fast.close()


def slowed_storage(profile: DeviceProfile, factor: float) -> StorageProfile:
    """A machine's storage, so many times slower."""
    found = slowed_lane(profile.storage, factor)
    assert isinstance(found, StorageProfile)
    return found


def slow_storage(setting: Setting) -> Found:
    """Several targets, each with storage that is slow for a while."""
    case, rng = Case(setting.packs[0]), setting.generator(4)
    with open_engine(case, None) as engine:
        profile, least_s = engine.profile, least_offered(engine, _TOKENS)
        manifest, pack_id = engine.manifest, engine.pack_id
    targets = sorted({*(times * least_s for times in TIMES), *NAMED_S})
    work = [(target_s, preload) for target_s in targets for preload in PRELOADS]
    table, found = Table(f"Storage {SLOWER:g} times slower from run {BEFORE} on", _COLUMNS), Found()
    until: list[int | None] = []
    back: list[int | None] = []
    for place in rng.permutation(len(work)):
        if setting.budget.over():
            break
        target_s, preload = work[place]
        request = PlanRequest(
            manifest, pack_id, Workload(1, _TOKENS), Target(target_s, parse_size(preload))
        )
        slow = slowed_storage(profile, SLOWER)
        possible = fits(request, profile.with_lanes({STORAGE: slow}), manifest)
        session = Session(case.name, target_s, preload)
        texts = [str(text) for text in rng.choice(list(setting.sentences), size=300)]
        reader = SwitchedReader(case.path, slow)
        with open_engine(
            case,
            target_s,
            preload,
            refuse=False,
            profile=profile,
            storage=reader,
            threads=profile.threads,
        ) as engine:
            parts: list[list[Run]] = []
            kept: list[list[bool]] = []
            for is_slow, count in ((False, BEFORE), (True, DURING), (False, AFTER)):
                reader.slow = is_slow
                begun, asked = len(session.runs), len(session.kept)
                run_session(session, engine, texts[asked : asked + setting.scaled(count, least=12)])
                parts.append(session.runs[begun:])
                kept.append(session.kept[asked:])
        found.sessions.append(session)
        row, inside_again, back_again = _row(session, parts, kept, possible=possible)
        table.rows.append(row)
        if possible:
            until.append(inside_again)
        back.append(back_again)
    found.tables.append(table)
    if until:
        name = "storage slower: runs until inside again, the most"
        found.limits.append(_at_most(name, until, UNTIL_INSIDE))
    if back:
        name = "storage fast again: runs until the plan is back, the most"
        found.limits.append(_at_most(name, back, UNTIL_BACK))
    found.notes.append(
        "possible: the exact planner finds a plan above the floor for the slower storage; until "
        "inside: from the run on that begins ten of which nine are inside; back: the metric to "
        f"expect, and at least {_SAME_BYTES:.0%} of the bytes"
    )
    return found


def fits(request: PlanRequest, profile: DeviceProfile, manifest: Manifest) -> bool:
    """Whether there is a plan above the floor that meets the target on such a machine."""
    try:
        predicted = make_plan(request, profile).predicted
    except InfeasibleError:
        return False
    least = least_metric(manifest)
    assert predicted is not None
    return predicted.quality is None or least is None or predicted.quality.value >= least


def is_back(runs: Sequence[Run], before: Sequence[Run]) -> list[bool]:
    """For each run whether its plan is as good as those before."""
    if not before:
        return [False] * len(runs)
    size = median([run.planned_bytes for run in before])
    metric = median([run.metric or 0.0 for run in before])
    return [
        run.planned_bytes >= _SAME_BYTES * size and (run.metric or 0.0) >= metric - _SAME_METRIC
        for run in runs
    ]


def _at_most(name: str, runs: Sequence[int | None], limit: int) -> tuple[common.Cell, ...]:
    """A limit on the most of them; None among them is never."""
    known = [count for count in runs if count is not None]
    if len(known) < len(runs):
        never = f"SHORT: {len(runs) - len(known)} of {len(runs)} never"
        return name, None, f"<= {limit}", never
    return common.at_most(name, max(known), limit)


def _row(
    session: Session,
    parts: Sequence[Sequence[Run]],
    kept: Sequence[Sequence[bool]],
    *,
    possible: bool,
) -> tuple[tuple[common.Cell, ...], int | None, int | None]:
    before, during, after = parts
    inside_again = runs_until(kept[1])
    back_again = runs_until(is_back(after, before[-20:]))
    metrics = [median([run.metric or 0.0 for run in part[-20:]] or [0.0]) for part in parts]
    row = (
        *(session.target_s * 1e3, session.preload, "yes" if possible else "no"),
        sum(kept[0]) / len(kept[0]),
        "never" if inside_again is None else inside_again,
        sum(kept[1][UNTIL_INSIDE:]) / len(kept[1][UNTIL_INSIDE:]),
        sum(run.downgrades > 0 for run in during),
        "never" if back_again is None else back_again,
        *metrics,
        session.refused + session.withdrawn,
    )
    return row, inside_again, back_again
