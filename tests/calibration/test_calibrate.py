"""The device profile: measured once, cached, fitted, and what it predicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
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
from sti.calibration.observations import Observations, StepTime, TimedRun
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE, shared
from sti.device.profile import (
    THREAD_NAMES,
    ComputeProfile,
    DecodeProfile,
    DeviceProfile,
    RunProfile,
    StorageProfile,
)
from sti.errors import StiWarning
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.cost_model import run_costs
from sti.planning.lane_threads import lane_choices, measured_choices
from sti.planning.plan import VARIANTS, Plan, PlanRequest
from sti.planning.prediction import simulate_run
from sti.planning.uniform import uniform_plan
from sti.planning.variants import graph_name
from tests.support.checkpoints import Task
from tests.support.synthetic import MINILM, make_manifest

LADDER = (2, 4, 8)
TRUTH = DeviceProfile(
    device="made up",
    threads=2,
    lanes={
        STORAGE: StorageProfile(direct=True, request_s=2e-5, bytes_per_s=4e9, row_s=2e-6),
        DECODE: DecodeProfile(shard_s=2e-5, weight_s={2: 2e-10, 4: 5e-10, 8: 2e-9}),
        COMPUTE: ComputeProfile(
            {
                "embed": (5e-5, 0.0, 1e-6, 0.0, 0.0),
                "connect": (2e-5, 0.0, 3e-7, 0.0, 0.0),
                "head": (6e-5, 0.0, 1e-7, 0.0, 0.0),
                "attention": (4e-5, 1e-6, 2e-6, 1e-6, 2e-9),
                "ffn": (3e-5, 2e-6, 1e-6, 2e-6, 0.0),
                "attention.narrow": (4e-5, 1e-6, 1e-6, 7e-7, 2e-9),
                "ffn.narrow": (3e-5, 1e-6, 1e-6, 1e-6, 0.0),
            }
        ),
    },
    runs={
        name: RunProfile(dict.fromkeys(LANES, 1.0), step_s=0.0, fixed_s=0.0, jitter=1.0)
        for name in THREAD_NAMES
    },
    tokenize_s=3e-6,
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
        assert 1 <= run.jitter <= 1.5
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
    backend = OrtBackend(reader, lanes=1)
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


def observations(noise: float, run: RunProfile | None = None) -> Observations:
    """What a machine like ``TRUTH`` would have shown, each time off by up to ``noise``.

    Args:
        run: what its whole runs add, under any threads.
    """
    rng = Random(3)

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
        for group, bits, width in product(MANIFEST.groups[:2], LADDER, (6, 12)):
            weights = width * group.shard_weights
            decode_s = width * TRUTH.decode.shard_s + weights * TRUTH.decode.weight_s[bits]
            for variant in VARIANTS:
                compute_s = TRUTH.compute_s(graph_name(group.kind, variant), work, width)
                seen.steps.append(
                    StepTime(
                        group.kind, bits, width, weights, about(decode_s), work, width,
                        variant, about(compute_s),
                    )
                )  # fmt: skip
    truth = replace(TRUTH, tokenize_s=0.0)
    if run is not None:
        truth = replace(truth, runs=dict.fromkeys(THREAD_NAMES, run))
    request = PlanRequest(MANIFEST, "x", Workload(1, 64))
    for threads, layers in product(lane_choices(2, cores=2), (1, 6)):
        plan = uniform_plan(request, bits=4, threads=threads, variants=VARIANTS)
        plan = replace(plan, steps=plan.steps[: 2 * layers])
        seen.runs += [timed(truth, plan)] * 20
    return seen


def timed(truth: DeviceProfile, plan: Plan) -> TimedRun:
    """A run of a plan on this machine; waking up is no work of any lane."""
    groups = [MANIFEST.group(step.layer, step.kind, step.group) for step in plan.steps]
    total_s, busy_s = 0.0, dict[str, float]()
    for waits in (False, True):
        run = truth.run(plan.threads)
        profile = truth
        if not waits:
            profile = replace(truth, runs={plan.threads.name: replace(run, step_s=0.0)})
        costs = run_costs(MANIFEST, profile, plan.workload, 12, threads=plan.threads)
        found = simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)
        if waits:
            total_s = found.total_s
        else:
            work = [i for i, step in enumerate(found.steps) if step.name in plan.work_names]
            busy_s = found.busy_s(work)
    return TimedRun(plan, total_s, busy_s)


SIZES = {key: MINILM[key] for key in ("attention_weights", "ffn_weights")}
MANIFEST = make_manifest(Random(1), layers=6, slices=12, ladder=LADDER, **SIZES)


def fitted(seen: Observations) -> DeviceProfile:
    return fit_profile(seen, MANIFEST, device="made up", threads=2, direct=True)


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


def test_what_whole_runs_cost_beyond_their_lanes_is_found_for_each_kind_of_threads() -> None:
    run = RunProfile({STORAGE: 1.1, DECODE: 1.2, COMPUTE: 1.3}, 3e-5, 2e-3, 1.0)
    profile = fitted(observations(0.0, run))
    assert set(profile.runs) == set(THREAD_NAMES)
    for found in profile.runs.values():
        assert found.contention == pytest.approx(run.contention, rel=0.02)
        assert found.fixed_s == pytest.approx(run.fixed_s, rel=0.05)
        assert found.step_s == pytest.approx(run.step_s, rel=0.1)
        assert found.jitter == 1.0


def test_predictions_of_the_runs_that_were_timed_come_true() -> None:
    seen = observations(0.0, RunProfile({STORAGE: 1.1, DECODE: 1.2, COMPUTE: 1.3}, 3e-5, 2e-3, 1.0))
    profile = replace(fitted(seen), tokenize_s=0.0)
    for run in seen.runs[::20]:
        groups = [MANIFEST.group(step.layer, step.kind, step.group) for step in run.plan.steps]
        costs = run_costs(MANIFEST, profile, run.plan.workload, 12, threads=run.plan.threads)
        found = simulate_run(costs, groups, run.plan.steps, read_ahead=run.plan.read_ahead)
        assert found.total_s == pytest.approx(run.total_s, rel=0.01)


def test_jitter_is_the_95th_percentile_over_the_median_within_bounds() -> None:
    seen = observations(0.0)
    run = seen.runs[-1]
    assert run.plan.threads == shared(2)
    others = [other for other in seen.runs if other.plan != run.plan]
    late = [replace(run, total_s=run.total_s * factor) for factor in (1.2, 9.0)]
    seen.runs = [*others, *[run] * 37, *late[:1] * 2, *late[1:]]
    jitters = {name: found.jitter for name, found in fitted(seen).runs.items()}
    assert jitters == pytest.approx({"sequential": 1.0, "pipelined": 1.0, "shared": 1.2})
    seen.runs = [*others, *[run] * 10, *late[1:] * 2]
    assert fitted(seen).runs["shared"].jitter == 1.5


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
