"""A diagonal of the fault matrix: every kind of fault, every stage, every way to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import sti
from benchmarks.security_matrix import Tried, specification, summarize, tried
from benchmarks.security_matrix_cells import (
    DOORS,
    ENDS,
    ERROR,
    GRAPH,
    SAME,
    STAGES,
    STREAMED,
    Cell,
    cells,
)
from benchmarks.security_matrix_trial import Trial
from sti.engine.results import Result
from tests.support.paths import ROOT

BUILDING = "graph building"


def diagonal() -> Iterator[Cell]:
    """One cell of each kind, of the stage that had its turn the fewest times, and so on."""
    turns = Counter[str]()
    for number, kind in enumerate(ENDS):
        mine = [cell for cell in cells() if cell.kind == kind and cell.lanes != GRAPH]
        stage = min((cell.stage for cell in mine), key=turns.__getitem__)
        turns[stage] += 1
        mine = [cell for cell in mine if cell.stage == stage]
        yield mine[number % len(mine)]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    place = tmp_path_factory.mktemp("matrix")
    return Trial(place, place / "cache")


@pytest.mark.parametrize("cell", [*diagonal()], ids=" / ".join)
def test_a_fault_ends_as_specified_and_the_engine_is_usable(trial: Trial, cell: Cell) -> None:
    ended = trial.try_cell(cell)
    assert (ended.found, ended.wrong) == (cell.expected, "")


def test_the_diagonal_meets_everything() -> None:
    picked = [*diagonal()]
    for found, wanted in zip(
        zip(*picked, strict=True), (ENDS, STAGES, STREAMED, DOORS), strict=True
    ):
        assert set(found) >= set(wanted) - {BUILDING}


def test_every_cell_is_specified_once() -> None:
    every = [*cells()]
    assert len(set(every)) == len(every) > 1000
    assert all(cell.expected for cell in every)
    assert {cell.lanes for cell in every if cell.stage == BUILDING} == {GRAPH}
    table = specification().markdown().partition("\n\n")[2]
    assert table in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("broken", "said"), [(sti.StiError, "names no file"), (ValueError, "ValueError")]
)
def test_another_end_is_seen(
    trial: Trial,
    monkeypatch: pytest.MonkeyPatch,
    broken: type[Exception],
    said: str,
) -> None:
    whole, errors = sti.Engine.run, [broken("an error of no file")]

    def fail(engine: sti.Engine, texts: Sequence[str]) -> Result:
        if errors:
            raise errors.pop()
        return whole(engine, texts)

    cell = Cell("EIO", "middle group", "shared", "reader")
    with monkeypatch.context() as patched:
        patched.setattr(sti.Engine, "run", fail)
        ended = trial.try_cell(cell)
    assert said in ended.found and ended.wrong
    assert not trial.try_cell(cell).wrong


def test_the_summary_counts_what_is_wrong() -> None:
    good = Tried(Cell("EIO", "header", "sequential", "file"), ERROR, ERROR, "", 0.1, 5)
    bad = good._replace(cell=good.cell._replace(stage="closing"), found=SAME, wrong="so")
    summary = summarize([good, bad])
    assert summary.limits[0][1] == 1 and "closing" in summary.notes[0]


def test_cells_are_tried_in_a_process_of_their_own(tmp_path: Path) -> None:
    cell = Cell("EIO", "first group", "shared", "file")
    (found,) = tried([cell], tmp_path)
    assert (found.found, found.wrong) == (ERROR, "") and found.anonymous_bytes > 0
    assert not list(tmp_path.iterdir())
