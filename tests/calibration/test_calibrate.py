"""The device profile: measured once, cached, fitted, and what it predicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks import prediction
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration import calibrate
from sti.calibration.cache import Cache
from sti.calibration.calibrate import (
    best_threads,
    default_threads,
    load_or_measure,
    remember_threads,
)
from sti.calibration.fit_profile import fit_profile
from sti.calibration.observations import Observations, PipelinedRun, StepTime
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.profile import ComputeProfile, DecodeProfile, DeviceProfile, StorageProfile
from sti.errors import StiWarning
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest
from sti.planning.prediction import predict
from sti.planning.uniform import uniform_plan
from tests.support.checkpoints import Task
from tests.support.synthetic import MINILM, make_manifest

LADDER = (2, 4, 8)
TRUTH = DeviceProfile(
    device="made up",
    threads=1,
    decoders=1,
    lanes={
        STORAGE: StorageProfile(direct=True, request_s=1e-4, bytes_per_s=5e8, row_s=2e-6),
        DECODE: DecodeProfile(shard_s=2e-5, weight_s={2: 2e-10, 4: 5e-10, 8: 2e-9}),
        COMPUTE: ComputeProfile(
            {
                "embed": (5e-5, 0.0, 1e-6, 0.0, 0.0),
                "connect": (2e-5, 0.0, 3e-7, 0.0, 0.0),
                "head": (6e-5, 0.0, 1e-7, 0.0, 0.0),
                "attention": (4e-5, 1e-6, 2e-6, 1e-6, 2e-9),
                "ffn": (3e-5, 2e-6, 1e-6, 2e-6, 0.0),
            }
        ),
    },
    tokenize_s=3e-6,
    fixed_s=0.0,
    contention=1.0,
    jitter=1.0,
)


@pytest.fixture
def reader(tiny_pack: Path) -> Iterator[PackReader]:
    with PackReader.open(tiny_pack) as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure everything just once: what is tested is not how precise the figures are."""
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.1)


def cores(monkeypatch: pytest.MonkeyPatch, count: int, fast: int) -> None:
    monkeypatch.setattr(host, "core_count", lambda *_: count)
    monkeypatch.setattr(host, "fast_core_count", lambda: fast)


def test_a_profile_is_measured_once_and_then_found(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    backend, told = OrtBackend(reader, threads=1), list[str]()
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
        load_or_measure(reader, OrtBackend(reader, threads=1), threads=1, cache_dir=tmp_path)
    assert [(item.name, item.levelname) for item in caplog.records] == [("sti", "INFO")]
    assert "measuring this device" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_profile_covers_every_graph_and_fidelity_of_the_pack(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    profile = load_or_measure(reader, OrtBackend(reader, threads=1), threads=1, cache_dir=tmp_path)
    assert set(profile.compute.graphs) == {"embed", "connect", "head", "attention", "ffn"}
    assert tuple(profile.decode.weight_s) == reader.manifest.ladder
    for bits in reader.manifest.ladder:
        plan = uniform_plan(
            PlanRequest(reader.manifest, reader.pack_id, Workload(2, 32)),
            bits=bits,
            profile=profile,
        )
        assert plan.predicted is not None
        assert 0 < plan.predicted.total_s < 1
    assert 1 <= profile.jitter <= 1.5
    text = json.dumps(profile.to_json())
    assert DeviceProfile.from_json(json.loads(text), where="test") == profile


def test_forcing_measures_again(reader: PackReader, tmp_path: Path, quick: None) -> None:
    backend, told = OrtBackend(reader, threads=1), list[str]()
    for force in (False, True):
        load_or_measure(
            reader, backend, threads=1, force=force, cache_dir=tmp_path, notify=told.append
        )
    assert len(told) == 2


def test_profiles_are_kept_apart_by_threads_and_by_version_of_onnxruntime(
    reader: PackReader, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OrtBackend(reader, threads=1)
    load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    load_or_measure(reader, backend, threads=2, cache_dir=tmp_path)
    monkeypatch.setattr(calibrate, "ort_version", lambda: "99.0")
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
    backend = OrtBackend(reader, threads=1)
    first = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    assert (first.kernel, first.instructions) == (kernel_path(), instruction_set())
    remember_threads(reader, 1, cache_dir=tmp_path)
    monkeypatch.setattr(calibrate, name, lambda: other)
    second = load_or_measure(reader, backend, threads=1, cache_dir=tmp_path)
    assert other in (second.kernel, second.instructions)
    assert len(list(Cache(tmp_path).profiles())) == 2
    remember_threads(reader, 1, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("threads-*.json"))) == 2


def test_a_damaged_cache_is_told_and_measured_again(
    reader: PackReader, tmp_path: Path, quick: None
) -> None:
    backend = OrtBackend(reader, threads=1)
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
            reader, OrtBackend(reader, threads=1), threads=1, cache_dir=place / "sti"
        )
    assert any("cannot be kept" in str(item.message) for item in warned)
    assert profile.storage.bytes_per_s > 0


@pytest.mark.parametrize(
    ("count", "fast", "threads"), [(1, 1, 1), (2, 2, 1), (4, 4, 3), (8, 4, 3), (64, 64, 4)]
)
def test_one_fast_core_is_left_to_the_other_lanes(
    monkeypatch: pytest.MonkeyPatch, count: int, fast: int, threads: int
) -> None:
    cores(monkeypatch, count, fast)
    assert default_threads() == threads


def test_remembered_threads_win_over_the_rule_but_not_over_the_cores(
    reader: PackReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 4, 4)
    assert best_threads(reader, cache_dir=tmp_path) == 3
    remember_threads(reader, 2, cache_dir=tmp_path)
    assert best_threads(reader, cache_dir=tmp_path) == 2
    remember_threads(reader, 64, cache_dir=tmp_path)
    assert best_threads(reader, cache_dir=tmp_path) == 4


@pytest.mark.parametrize(("count", "threads", "decoders"), [(1, 1, 1), (3, 1, 2), (64, 1, 4)])
def test_the_cores_beside_compute_decode_but_no_more_than_four(
    reader: PackReader,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    threads: int,
    decoders: int,
) -> None:
    cores(monkeypatch, count, count)
    assert reader.manifest.dimensions.slices == 4
    backend = OrtBackend(reader, threads=threads)
    profile = load_or_measure(reader, backend, threads=threads, cache_dir=tmp_path)
    assert profile.decoders == decoders


def observations(noise: float, slower: float = 1.0, fixed_s: float = 0.0) -> Observations:
    """What a machine like ``TRUTH`` would have shown, each time off by up to ``noise``."""
    rng = Random(3)
    manifest = make_manifest(Random(1), layers=2, slices=12, ladder=LADDER, **SIZES)

    def about(seconds: float) -> float:
        return seconds * rng.uniform(1 - noise, 1 + noise)

    seen = Observations()
    seen.reads = [(s, about(TRUTH.storage.read_s(1, s))) for s in (65536, 262144, 1048576)] * 5
    seen.rows = [(n, about(n * TRUTH.storage.row_s)) for n in (16, 64)]
    seen.tokens = [(n, about(n * TRUTH.tokenize_s)) for n in (16, 64)]
    works = [Workload(b, t) for b, t in ((1, 16), (1, 32), (1, 64), (1, 128), (4, 16), (4, 64))]
    for work in works:
        for end in ("embed", "connect", "head"):
            seen.ends.append((end, work, about(TRUTH.compute_s(end, work, 12))))
        for group in manifest.groups[:2]:
            connect_s = TRUTH.compute_s("connect", work, 12)
            for bits in LADDER:
                for width in (6, 12):
                    weights = width * group.shard_weights
                    decode_s = width * TRUTH.decode.shard_s + weights * TRUTH.decode.weight_s[bits]
                    alone_s = TRUTH.compute_s(group.kind, work, width)
                    for connects in (False, True):
                        compute_s = about(alone_s + connects * connect_s)
                        seen.steps.append(
                            StepTime(
                                group.kind, bits, width, weights, about(decode_s), work, width,
                                compute_s, connects,
                            )
                        )  # fmt: skip
    plan = uniform_plan(PlanRequest(manifest, "x", Workload(1, 64)), bits=4)
    truth = dataclasses.replace(TRUTH, tokenize_s=0.0, contention=slower)
    predicted = predict(manifest, truth, plan)
    busy_s = {
        STORAGE: predicted.busy_s[STORAGE] - TRUTH.storage.row_s * plan.workload.tokens,
        DECODE: predicted.busy_s[DECODE],
        COMPUTE: sum(
            slower * TRUTH.compute_s(graph, plan.workload, 12)
            for step in plan.steps
            for graph in (step.kind, "connect")
        ),
    }
    run = PipelinedRun(predicted.total_s + fixed_s, busy_s)
    seen.pipelined_plan, seen.pipelined = plan, [run] * 20
    return seen


SIZES = {key: MINILM[key] for key in ("attention_weights", "ffn_weights")}


def fitted(seen: Observations) -> DeviceProfile:
    manifest = make_manifest(Random(1), layers=2, slices=12, ladder=LADDER, **SIZES)
    return fit_profile(seen, manifest, device="made up", threads=1, decoders=1, direct=True)


def worst_error(profile: DeviceProfile) -> float:
    """Largest relative error of any cost within the range that was observed."""
    errors = []
    for size in (65536, 500_000, 1048576):
        errors.append(profile.storage.read_s(1, size) / TRUTH.storage.read_s(1, size))
    for bits in LADDER:
        for weights in (SIZES["attention_weights"], SIZES["ffn_weights"]):
            one, other = (p.decode.shard_s + weights * p.decode.weight_s[bits]
                          for p in (profile, TRUTH))  # fmt: skip
            errors.append(one / other)
    for graph in TRUTH.compute.graphs:
        for work in (Workload(1, 16), Workload(1, 100), Workload(2, 64)):
            for width in (6, 12):
                one, other = (p.compute_s(graph, work, width) for p in (profile, TRUTH))
                errors.append(one / other)
    return float(np.abs(np.array(errors) - 1).max())


def test_costs_are_recovered_from_exact_times() -> None:
    assert worst_error(fitted(observations(0.0))) < 0.01


def test_costs_are_recovered_from_noisy_times() -> None:
    assert worst_error(fitted(observations(0.1))) < 0.12


def test_what_pipelined_runs_cost_beyond_their_lanes_is_contention_or_fixed() -> None:
    profile = fitted(observations(0.0, slower=1.3, fixed_s=2e-3))
    assert profile.contention == pytest.approx(1.3, rel=0.02)
    assert profile.fixed_s == pytest.approx(2e-3, rel=0.1)
    assert profile.jitter == 1.0


def test_jitter_is_the_95th_percentile_over_the_median_within_bounds() -> None:
    seen = observations(0.0)
    (run, *_) = seen.pipelined
    late = [dataclasses.replace(run, total_s=run.total_s * factor) for factor in (1.2, 9.0)]
    seen.pipelined = [run] * 37 + late[:1] * 2 + late[1:]
    assert fitted(seen).jitter == pytest.approx(1.2)
    seen.pipelined = [run] * 10 + late[1:] * 2
    assert fitted(seen).jitter == 1.5


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
