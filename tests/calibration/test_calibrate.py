"""The device profile: measured once, cached, and kept apart by what it depends on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import prediction
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration import calibrate, parts
from sti.calibration.cache import Cache
from sti.calibration.calibrate import (
    best_threads,
    default_threads,
    load_or_measure,
    remember_threads,
)
from sti.calibration.disturbance import Watch
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set
from sti.device.profile import LEAST_JITTER, MOST_JITTER, DeviceProfile
from sti.errors import StiWarning
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import lane_choices, measured_choices
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from sti.planning.variants import graph_name
from tests.support.checkpoints import Task


@pytest.fixture
def reader(tiny_pack: Path) -> Iterator[PackReader]:
    with PackReader.open(tiny_pack) as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure everything just once, on a quiet machine: figures need not be precise here."""
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.1)
    monkeypatch.setattr(Watch, "share", lambda *_, **__: 0.0)


def cores(monkeypatch: pytest.MonkeyPatch, count: int, fast: int) -> None:
    monkeypatch.setattr(host, "core_count", lambda *_: count)
    monkeypatch.setattr(host, "fast_core_count", lambda: fast)


def test_a_profile_is_measured_once_and_then_found(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    backend, told = OrtBackend(reader, lanes=1), list[str]()
    first = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path, notify=told.append)
    assert told == ["measuring this device (once, about 2 s)"]
    again = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path, notify=told.append)
    assert again == first and len(told) == 1


def test_a_notice_is_logged_where_nobody_asked_for_it_and_nothing_is_printed(
    reader: PackReader,
    tmp_path: Path,
    quick: None,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", logger="sti"):
        load_or_measure(reader, OrtBackend(reader, lanes=1), threads=1, cache_dir=tmp_path)
    assert [(item.name, item.levelname) for item in caplog.records] == [("sti", "INFO")]
    assert "measuring this device" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_profile_covers_every_graph_and_fidelity_of_the_pack(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    backend = OrtBackend(reader, lanes=1)
    profile = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    graphs = {"embed", "connect", "head"} | {
        graph_name(kind, variant) for kind in ("attention", "ffn") for variant in backend.variants
    }
    assert set(profile.compute.graphs) == graphs
    assert tuple(profile.decode.weight_s) == reader.manifest.ladder
    for bits in reader.manifest.ladder:
        plan = uniform_plan(
            PlanRequest(reader.manifest, reader.pack_id, Workload(2, 32)),
            bits=bits,
            profile=profile,
        )
        assert plan.predicted is not None
        assert 0 < plan.predicted.total_s < 1
    for run in profile.runs.values():
        assert LEAST_JITTER <= run.jitter <= MOST_JITTER
        assert all(factor > 0 for factor in run.contention.values())
    text = json.dumps(profile.to_json())
    assert DeviceProfile.from_json(json.loads(text), where="test") == profile


def test_forcing_measures_again(reader: PackReader, tmp_path: Path, quick: None) -> None:
    backend, told = OrtBackend(reader, lanes=1), list[str]()
    for force in (False, True):
        load_or_measure(
            reader, backend, threads=1, force=force, cache_dir=tmp_path, notify=told.append
        )
    assert len(told) == 2


def test_profiles_are_kept_apart_by_threads_and_by_version_of_onnxruntime(
    reader: PackReader, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OrtBackend(reader, lanes=2)
    load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    load_or_measure(reader, backend, threads=2, cache_dir=tmp_path)
    monkeypatch.setattr(parts, "ort_version", lambda: "99.0")
    load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    assert len(list(Cache(tmp_path).profiles())) == 3


@pytest.mark.parametrize(("name", "other"), [("kernel_path", "ssse3"), ("instruction_set", "mmx")])
def test_a_profile_of_another_kernel_or_of_other_instructions_is_not_reused(
    reader: PackReader,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    other: str,
) -> None:
    backend = OrtBackend(reader, lanes=1)
    first = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    assert (first.kernel, first.instructions) == (kernel_path(), instruction_set())
    remember_threads(reader, 1, cache_dir=tmp_path)
    for module in (calibrate, parts):
        monkeypatch.setattr(module, name, lambda: other)
    second = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    assert other in (second.kernel, second.instructions)
    assert len(list(Cache(tmp_path).profiles())) == 2
    remember_threads(reader, 1, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("threads-*.json"))) == 2


def test_a_damaged_cache_is_told_and_measured_again(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    backend = OrtBackend(reader, lanes=1)
    load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    (path,) = tmp_path.glob("profile-*.json")
    path.write_text("{", encoding="utf-8")
    with pytest.warns(StiWarning, match="cannot be used, and is ignored"):
        load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    assert len(list(Cache(tmp_path).profiles())) == 1


def test_a_cache_that_cannot_be_written_costs_a_warning_and_nothing_else(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    place = tmp_path / "file"
    place.write_text("", encoding="utf-8")
    with pytest.warns(StiWarning) as warned:
        profile = load_or_measure(
            reader, OrtBackend(reader, lanes=1), threads=1, cache_dir=place / "sti"
        )
    assert any("cannot be kept" in str(item.message) for item in warned)
    assert profile.storage.bytes_per_s > 0


@pytest.mark.parametrize(
    ("count", "fast", "threads"), [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 3, 3), (64, 64, 4)]
)
def test_all_fast_cores_compute_but_no_more_than_four(
    monkeypatch: pytest.MonkeyPatch, count: int, fast: int, threads: int
) -> None:
    cores(monkeypatch, count, fast)
    assert default_threads() == threads


def test_remembered_threads_win_over_the_rule_but_not_over_the_cores(
    reader: PackReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 4, 4)
    assert best_threads(reader, cache_dir=tmp_path) == 4
    remember_threads(reader, 2, cache_dir=tmp_path)
    assert best_threads(reader, cache_dir=tmp_path) == 2
    remember_threads(reader, 64, cache_dir=tmp_path)
    assert best_threads(reader, cache_dir=tmp_path) == 4


@pytest.mark.parametrize(
    ("count", "threads", "names"),
    [
        (1, 1, {"sequential", "shared"}),
        (3, 1, {"sequential", "pipelined", "shared"}),
        (2, 2, {"sequential", "pipelined", "shared"}),
    ],
)
def test_runs_are_measured_under_all_threads_that_a_plan_may_choose(
    reader: PackReader,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    threads: int,
    names: set[str],
) -> None:
    cores(monkeypatch, count, count)
    backend = OrtBackend(reader, lanes=threads)
    profile = load_or_measure(reader, backend, threads=threads, cache_dir=tmp_path)
    assert (set(profile.runs), profile.threads) == (names, threads)
    assert measured_choices(profile) == lane_choices(threads, count)


def test_the_benchmark_compares_predicted_and_measured_runs(
    pack_for: Callable[[Task], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.1)
    options = ["--bits", "2", "8", "--tokens", "8", "--profiles", "2", "--repeats", "1"]
    assert prediction.main([str(pack_for("embedding")), *options, "--output", "json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert [len(table["rows"]) for table in tables] == [1, 2, 2]
    for row in tables[2]["rows"]:
        assert row["predicted / measured"] == pytest.approx(
            row["predicted ms"] / row["measured ms"]
        )
