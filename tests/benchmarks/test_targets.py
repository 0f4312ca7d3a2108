"""The benchmark of targets: what is counted, on made-up runs; and that its rows run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    targets,
    targets_busy,
    targets_calibrations,
    targets_counting,
    targets_grid,
    targets_planning,
    targets_probe,
    targets_runs,
    targets_setting,
    targets_storage,
)
from benchmarks.targets_cache import own_cache
from benchmarks.targets_counting import (
    Run,
    Session,
    Share,
    at_least,
    lower_bound,
    runs_until,
    share_of,
    spread,
)
from benchmarks.targets_hindsight import hindsight, look_back, slowed
from benchmarks.targets_probe import Probed
from benchmarks.targets_setting import Budget, Case, Found, Setting
from sti.calibration.cache import cache_directory
from sti.device import host
from sti.engine.engine import Engine
from sti.errors import InfeasibleError, InputError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest, Target
from sti.planning.prediction import predict
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.reader import aligned_buffer
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.ranked_packs import ranked_pack

KEPT = Run(
    tokens=16,
    first=False,
    target_s=0.03,
    total_s=0.02,
    plan_s=0.0,
    predicted_s=0.02,
    met=True,
    late_s=0.0,
    line=None,
    waited_s=0.0,
    stolen_s=0.0,
    metric=0.96,
    above_floor=True,
    planned_bytes=1000,
    downgrades=0,
    call_s=0.02,
)
LATE = KEPT._replace(total_s=0.04, met=False, late_s=0.01, line="late by 10 ms", call_s=0.04)


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\tx\n" for text in TEXTS), "utf-8")
    return path


@pytest.fixture
def setting(sentences: Path) -> Setting:
    return Setting(
        packs=(ranked_pack(), tiny_pack("embedding")),
        sentences=targets_setting.sentences_of(sentences),
        data=sentences,
        runs=1,
        usual_runs=10,
        seed=0,
        budget=Budget(600.0),
    )


# ---- counting


@pytest.mark.parametrize(
    ("inside", "runs", "bound"),
    [
        (95, 100, 0.8977466),
        (10, 10, 0.7411344),
        (1940, 2000, 0.9629396),
        (0, 5, 0.0),
        (59, 59, 0.05 ** (1 / 59)),
        (0, 0, 0.0),
    ],
)
def test_lower_bounds_are_those_of_clopper_and_pearson(
    inside: int, runs: int, bound: float
) -> None:
    assert lower_bound(inside, runs) == pytest.approx(bound, abs=1e-6)
    assert Share(inside, runs).bound == lower_bound(inside, runs)


def test_a_bound_is_the_share_at_which_so_many_become_unlikely() -> None:
    for inside, runs in ((3, 20), (199, 200), (1500, 2000)):
        assert at_least(inside, runs, lower_bound(inside, runs)) == pytest.approx(0.05, abs=1e-6)
        stricter = lower_bound(inside, runs, confidence=0.999)
        assert stricter < lower_bound(inside, runs) < inside / runs


def test_probabilities_of_a_few_runs_are_exact() -> None:
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(3, 3, 0.1) == pytest.approx(0.001)
    assert at_least(0, 3, 0.0) == at_least(2, 3, 1.0) == 1.0
    assert at_least(1, 3, 0.0) == 0.0


@pytest.mark.parametrize(("inside", "runs"), [(3, 2), (-1, 2)])
def test_what_is_no_share_has_no_bound(inside: int, runs: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        lower_bound(inside, runs)


def test_a_run_below_the_floor_is_outside() -> None:
    below = KEPT._replace(above_floor=False)
    assert share_of([KEPT, LATE, below, KEPT]) == (2, 4)
    assert share_of([KEPT], withdrawn=1) == (1, 2)
    assert Share(2, 4).share == 0.5 and Share(0, 0).share == 0.0


@pytest.mark.parametrize(
    ("waited_s", "stolen_s", "disturbed"),
    [(None, 0.0, False), (0.0009, 0.0, False), (0.0011, 0.0, True), (0.0, 0.01, True)],
)
def test_a_twentieth_of_waiting_disturbs_a_run(
    waited_s: float | None, stolen_s: float, disturbed: bool
) -> None:
    assert KEPT._replace(waited_s=waited_s, stolen_s=stolen_s).disturbed is disturbed


def test_a_miss_is_told_only_if_all_of_it_is() -> None:
    assert LATE.told and KEPT.told
    for change in ({"met": True}, {"met": None}, {"late_s": 0.0}, {"line": None}, {"line": ""}):
        assert not LATE._replace(**change).told  # type: ignore[arg-type]
    assert not KEPT._replace(line="late by 1 ms").told


def test_a_session_misses_too_often_beyond_chance_only() -> None:
    def missing(missed: int, runs: int) -> bool:
        return Session("", 0.03, "0", [LATE] * missed + [KEPT] * (runs - missed)).misses_too_often

    assert missing(40, 40) and missing(8, 60)
    assert not missing(39, 39) and not missing(1, 40) and not missing(3, 60)


def test_the_engine_has_to_count_alike() -> None:
    session = Session("", 0.03, "0", [KEPT, KEPT, LATE], health=(3, 2 / 3))
    assert session.counted_alike
    session.health = (3, 1.0)
    assert not session.counted_alike
    session.health = None
    assert not session.counted_alike
    assert Session("", 0.03, "0").counted_alike


@pytest.mark.parametrize(
    ("fine", "runs"),
    [
        ("x" * 10, 0),
        ("..xxxxxxxxxx", 2),
        ("..x.xxxxxxxx..", 2),
        (".x..xxxxxxxxxx", 4),
        ("x.x.xxxxx", 2),
        ("......xxxx", None),
        ("." * 20, None),
        ("", None),
    ],
)
def test_runs_until_all_is_fine_again(fine: str, runs: int | None) -> None:
    assert runs_until([sign == "x" for sign in fine]) == runs


def test_spread_is_the_95th_percentile_over_the_median() -> None:
    assert spread([1.0] * 10) == 1.0
    assert spread(list(range(1, 102))) == pytest.approx(96 / 51)


# ---- texts and what is read of the system


def test_texts_have_as_many_words_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    for words in (1, 4, 50):
        assert len(targets_setting.text_of_words(TEXTS, words, rng).split()) == words
    lengths = [len(text.split()) for text in targets_grid.texts_of(TEXTS, 300, rng)]
    assert 4 <= min(lengths) < 8 and 300 < max(lengths) <= 400
    assert 30 < np.median(lengths) < 55


def test_pairs_are_no_sentences(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("sentence1\tsentence2\tlabel\na\tb\t0\n", encoding="utf-8")
    with pytest.raises(InputError, match="pairs"):
        targets_setting.sentences_of(path)


def test_stolen_time_is_read_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ROOT", tmp_path)
    assert targets_runs.stolen_s() == 0.0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1\n", encoding="ascii")
    assert targets_runs.stolen_s() == 2.5


# ---- hindsight


def test_a_slowed_machine_is_predicted_to_take_so_many_times_longer() -> None:
    with PackReader.open(tiny_pack("classification")) as reader:
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 16), Target(None, 2000))
        plan = uniform_plan(request, bits=4, profile=PROFILE)
        before, after = (
            predict(reader.manifest, profile, plan) for profile in (PROFILE, slowed(PROFILE, 3.0))
        )
    assert after.total_s == pytest.approx(3.0 * before.total_s)


def test_hindsight_knows_what_would_have_fitted() -> None:
    with Engine.open(ranked_pack(), latency="1s", profile=PROFILE, threads=1) as engine:
        plan = engine.plan_for(tokens=8)
        assert plan.predicted is not None and plan.predicted.quality is not None
        metric = plan.predicted.quality.value
        run = KEPT._replace(target_s=1.0, tokens=8, metric=metric)
        found = hindsight(engine, plan, [run._replace(total_s=0.5)] * 3)
        assert found.used == 0.5 and found.full_fits and not found.none_fits
        worse = [run._replace(total_s=0.5, metric=metric - 0.02)] * 3
        assert hindsight(engine, plan, worse).behind == pytest.approx(2.0, abs=0.5)
        late = hindsight(engine, plan, [run._replace(total_s=1.5)] * 3)
        assert not late.full_fits
        hopeless = hindsight(engine, plan, [run._replace(total_s=1e6)] * 3)
        assert hopeless.none_fits and hopeless.behind is None
        runs = [run] * 2 + [run._replace(tokens=16, waited_s=1.0)] * 9
        assert look_back(engine, Session("", 1.0, "0", runs)) == []
        assert len(look_back(engine, Session("", 1.0, "0", [*runs, run]))) == 1


# ---- storage, neighbours, processes


def test_switched_storage_reads_the_same_bytes_later(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(0).bytes(8 * SECTOR))
    storage = targets_storage.slowed_storage(PROFILE, 100.0)
    assert storage.bytes_per_s == PROFILE.storage.bytes_per_s / 100
    reader = targets_storage.SwitchedReader(path, storage)
    try:
        for slow in (False, True, False):
            reader.slow = slow
            out, rows = aligned_buffer(2 * SECTOR), np.zeros((2, 64), np.uint8)
            reader.read(ByteRange(SECTOR, 2 * SECTOR), out)
            assert out.tobytes() == path.read_bytes()[SECTOR : 3 * SECTOR]
            reader.read_rows(64, np.array([0, 5]), rows)
            assert rows[1].tobytes() == path.read_bytes()[64 * 6 : 64 * 7]
    finally:
        reader.close()
        reader.close()


def test_a_plan_is_back_when_it_is_as_good_and_reads_as_much() -> None:
    before = [KEPT] * 5
    runs = [KEPT._replace(metric=0.9), KEPT._replace(planned_bytes=800), KEPT, KEPT]
    assert targets_storage.is_back(runs, before) == [False, False, True, True]
    assert targets_storage.is_back(runs[:1], []) == [False]


def test_busy_processes_end_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_busy, "SPIN", "import time; time.sleep(1000)")
    monkeypatch.setattr(targets_busy, "SETTLE_S", 0.0)
    with pytest.raises(RuntimeError, match="stop"), targets_busy.busy(2):
        raise RuntimeError("stop")


def made_up(offers: Sequence[float], accepted: Sequence[Sequence[bool]]) -> Any:
    """A prober that answers in turn, whatever it is asked."""
    answers = iter(zip(offers, accepted, strict=True))

    def prober(pack: Path, cache: Path, accept_s: Sequence[float]) -> Probed:
        offer, taken = next(answers)
        assert not taken or len(taken) == len(accept_s)
        return Probed(offer, tuple(taken))

    return prober


def limits_of(found: Found) -> dict[Any, Any]:
    return {row[0]: (row[1], row[3]) for row in found.limits}


def test_calibrations_are_compared_by_what_they_offer(setting: Setting) -> None:
    setting.runs = 4  # so few calibrations of ten
    prober = made_up([0.010, 0.011, 0.0105, 0.012, 0.01, 0.02, 0.01, 0.01], [()] * 8)
    found = targets_calibrations.calibrations(setting, prober)
    ratios = list(limits_of(found).values())
    assert ratios == [(pytest.approx(1.2), "SHORT"), (pytest.approx(2.0), "SHORT")]
    setting.budget = Budget(0.0)
    found = targets_calibrations.calibrations(setting, made_up([0.01] * 4, [()] * 4))
    assert [row[1] for row in found.tables[0].rows] == [2, 2]


def test_a_disturbed_start_is_held_against_a_quiet_one(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets_calibrations, "neighbours", lambda: 0)
    setting.packs = setting.packs[:1]
    quiet, after = [True] * 5, [False, False, True, True, True]
    prober = made_up([0.01, 0.01, 0.03, 0.02], [(), quiet, (), after])
    found = targets_calibrations.disturbed_first(setting, prober)
    assert list(limits_of(found).values()) == [(3, "SHORT")]
    assert [row[3] for row in found.tables[0].rows] == ["refused"] * 2 + ["accepted"] * 3
    prober = made_up([0.01, 0.01, 0.03, 0.01], [(), after, (), quiet])
    found = targets_calibrations.disturbed_first(setting, prober)
    assert list(limits_of(found).values()) == [(5, "met")]


def test_a_probe_says_what_is_accepted_and_offered(capsys: pytest.CaptureFixture[str]) -> None:
    pack = str(tiny_pack("classification"))
    assert targets_probe.main([pack, "--tokens", "8", "--accept", "0.001", "10000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"] == [False, True]
    assert 0 < found["least_s"] < 10


@pytest.mark.parametrize(("floor_s", "found_s"), [(0.0, 0.004), (0.0105, 0.0105)])
def test_the_least_that_is_offered_keeps_the_floor(floor_s: float, found_s: float) -> None:
    class Strict:
        """Needs 4 ms for anything, and ``floor_s`` to keep its floor."""

        latency_s = 0.0
        manifest = SimpleNamespace(quality="known")

        def set_target(self, *, latency: timedelta, preload: str, floor: str) -> None:
            assert (preload, floor) == ("1MB", "95%")
            self.latency_s = latency.total_seconds()

        def plan_for(self, *, tokens: int) -> None:
            assert tokens == 32
            if self.latency_s < 0.004:
                raise InfeasibleError("slow", limit="latency", asked=0, needed=0.004)
            if self.latency_s < floor_s:
                raise InfeasibleError("bad", limit="quality", asked=0.95, needed=0.9)

    engine: Any = Strict()
    offered_s = targets_runs.least_offered(engine, 32, "1MB")
    assert offered_s == pytest.approx(found_s, rel=0.011)
    assert engine.latency_s >= max(0.004, floor_s)


@pytest.mark.parametrize(
    ("limit", "error"), [("latency", RuntimeError), ("memory", InfeasibleError)]
)
def test_what_is_never_offered_is_told(limit: str, error: type[Exception]) -> None:
    def refuse(**_: object) -> None:
        raise InfeasibleError("full", limit=limit, asked=0, needed=0.004)

    manifest = SimpleNamespace(quality=None)
    engine: Any = SimpleNamespace(set_target=refuse, manifest=manifest)
    with pytest.raises(error):
        targets_runs.least_offered(engine, 32)


def test_what_is_refused_and_what_is_withdrawn(setting: Setting) -> None:
    class Fading:
        """Answers short texts twice, then none; long ones never."""

        left = 2
        max_tokens = 48

        def preloaded(self, timeout_s: float) -> bool:
            return True

        def tokenize(self, texts: Sequence[str]) -> list[Any]:
            return [SimpleNamespace(ids=range(10 * len(text.split()))) for text in texts]

        def health(self) -> Any:
            return SimpleNamespace(runs=2, inside=1.0)

    engine: Any = Fading()

    def answer(_: object, session: Session, text: str) -> Run | None:
        engine.left -= " " not in text
        return None if " " in text or engine.left < 0 else KEPT

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets_runs, "answer", answer)
        session = Session("", 0.03, "0")
        targets_runs.run_session(session, engine, ["a", "a b c", "b", "c", "d"])
    assert (len(session.runs), session.refused, session.withdrawn) == (2, 1, 2)
    assert [run.first for run in session.runs] == [run.opening for run in session.runs]
    assert [run.tokens for run in session.runs] == [16, 16] and session.counted_alike
    assert session.kept == [True, False, True, False, False]


def test_a_cache_of_its_own_starts_as_a_copy_and_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "sti"
    start.mkdir()
    (start / "known").write_text("before", encoding="utf-8")
    for before in (str(tmp_path), None):
        if before is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", before)
        with own_cache(start) as place:
            assert cache_directory() == place / "sti" != start
            (place / "sti/known").write_text("after", encoding="utf-8")
        assert os.environ.get("XDG_CACHE_HOME") == before and not place.exists()
    assert (start / "known").read_text(encoding="utf-8") == "before"
    with own_cache(None) as place:
        assert not list(place.iterdir())


# ---- rows


def test_firsts_disturbed_runs_and_refusals_are_counted_apart(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = KEPT._replace(first=True)
    runs = [first._replace(opening=True), LATE._replace(first=True), KEPT, KEPT]
    runs.append(LATE._replace(waited_s=0.01))
    kept = targets_grid.Kept([Session("pack", 0.03, "0", runs, refused=2, withdrawn=1)], [], [])
    monkeypatch.setattr(targets_grid, "run_all", lambda _: kept)
    found = targets_grid.grid(setting)
    rows = {row[2]: row for row in found.tables[0].rows}
    assert rows["later"][3:6] == (2 / 3, lower_bound(2, 3), 3)
    assert rows["first of a bucket"][3:6] == (0.5, lower_bound(1, 2), 2)
    assert rows["first of an engine"][5] == 1 and rows["disturbed"][3:6] == (0.0, 0.0, 1)
    assert rows["later"][-3:] == (0.2, 2, 1)
    limits = limits_of(found)
    assert limits["inside: share of runs disturbed"] == (0.2, "SHORT")
    assert limits["inside, quiet, later runs, lower bound"][0] == lower_bound(2, 3)


def test_long_texts_of_comparable_embeddings_are_counted_apart(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [KEPT, KEPT._replace(tokens=128), LATE._replace(tokens=192)]
    kept = targets_grid.Kept([Session("pack, comparable", 0.03, "0", runs)], [], [])
    monkeypatch.setattr(targets_grid, "run_all", lambda _: kept)
    found = targets_grid.grid(setting)
    rows = {row[2]: row for row in found.tables[0].rows}
    assert rows["later"][3:6] == (1.0, lower_bound(2, 2), 2)
    assert rows["of more than 128 tokens"][3:6] == (0.0, 0.0, 1)
    assert all(name.startswith("comparable, up to 128 tokens") for name in limits_of(found))


def test_rows_run_and_are_saved_one_by_one(
    sentences: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(targets_grid, "TARGETS", 1)
    monkeypatch.setattr(targets_grid, "TIGHT", 1)
    monkeypatch.setattr(targets_grid, "PRELOADS", ("0", "1KB"))
    monkeypatch.setattr(targets_planning, "OPENINGS", 2)
    packs = [str(ranked_pack()), str(tiny_pack("embedding"))]
    place = tmp_path / "found.json"
    seen: list[int] = []

    def fail(setting: Setting) -> Found:
        seen.append(len(json.loads(place.read_text(encoding="utf-8"))["tables"]))
        raise RuntimeError("no storage")

    rows = dict(targets.ROWS)
    rows["slow-storage"] = rows["slow-storage"]._replace(measure=fail)
    monkeypatch.setattr(targets, "ROWS", rows)
    argv = [str(sentences), "--packs", *packs, "--rows", "grid,least,slow-storage,planning,opening"]
    code = targets.main([*argv, "--runs", "8", "--save", str(place), "--output", "json"])
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(place.read_text(encoding="utf-8"))
    titles = [table["title"] for table in report["tables"]]
    assert titles[:2] == ["Limits", "Inside the target, quiet"] and len(titles) == 6
    assert seen == [4]
    cases = {row["pack"] for row in report["tables"][1]["rows"]}
    assert len(cases) == 3
    assert "slow-storage: failed: no storage" in report["notes"]
    verdicts = {row["limit on"]: row["verdict"] for row in report["tables"][0]["rows"]}
    assert verdicts["slow-storage"] == "SHORT: failed"


def test_provoked_misses_are_told(setting: Setting) -> None:
    found = targets_busy.told(setting)
    (session,) = found.sessions
    assert sum(not run.inside for run in session.runs) > 40
    assert all(run.told for run in session.runs)
    assert session.misses_too_often and session.warned and session.counted_alike
    assert [verdict for _, verdict in limits_of(found).values()] == ["met", "met"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "grid,nonsense"], "'nonsense' is none of grid"),
        (["--runs", "0"], "--runs"),
        (["--save", "found.txt"], ".json or .md"),
    ],
)
def test_the_benchmark_refuses_what_it_cannot_do(
    sentences: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        targets.main([str(sentences), *options])
    assert said in capsys.readouterr().err


def test_a_report_is_saved_as_markdown_too(tmp_path: Path) -> None:
    report = targets.Report("Targets", ["a machine"])
    targets.save(report, tmp_path / "found.md")
    assert (tmp_path / "found.md").read_text(encoding="utf-8") == report.markdown()


def test_every_budget_together_is_below_12_minutes() -> None:
    assert sum(row.seconds for row in targets.ROWS.values()) < 720
    assert targets_counting.CONFIDENCE == 0.95
    assert Case(Path("a/pack.sti.safetensors"), comparable=True).name == "pack, comparable"
