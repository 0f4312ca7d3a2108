"""The paper's scheme as a system under test: what it stores, plans and answers, not how fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import ort_models
from benchmarks.base_model import Planting, Shape, write_checkpoint
from benchmarks.common import ROOT
from benchmarks.paper import system as paper
from benchmarks.paper.codes import CODED, Tables, pack, packed_bytes
from benchmarks.paper.format import FULL, SHARDS, Index
from benchmarks.paper.model import main as write_paper_model
from benchmarks.paper.model import write_model
from benchmarks.paper.plan import Plan, Profile, budgets, plan, uniform
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from sti.benchmark.comparison import IN_A_ROW, compare
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Opened, Spec
from sti.storage.byte_ranges import SECTOR

TINY = Shape(layers=3, hidden=64, heads=4, inner=128, vocabulary=400, positions=64)
PROFILE = Profile(
    request_s=1e-4,
    byte_s=1e-8,
    layer_s=1e-3,
    shard_s=dict.fromkeys((*CODED, FULL), 1e-4),
    around_s=1e-4,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("paper") / "checkpoint"
    write_checkpoint(place, TINY, Planting(), seed=3)
    return place


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    place = checkpoint.parent / "model"
    write_model(checkpoint, place)
    return place


@pytest.fixture(scope="module")
def spec(model: Path) -> Spec:
    rng = np.random.default_rng(0)
    ids = tuple(tuple(rng.integers(0, TINY.vocabulary, n).tolist()) for n in (16, 5, 9))
    return Spec(str(model), ("",) * len(ids), ids, 1)


@pytest.fixture(scope="module")
def wanted(checkpoint: Path, spec: Spec) -> NDArray[np.float32]:
    with Checkpoint(checkpoint) as opened:
        bert = open_model(opened)
        return np.stack([ort_models.reference(bert, np.array(row)) for row in spec.ids])


@contextmanager
def opened(spec: Spec, **options: Any) -> Iterator[Opened]:
    with closing(paper.prepare(replace(spec, options=options))()) as system:
        yield system


@pytest.mark.parametrize("bits", CODED)
def test_codes_are_packed_densely_and_looked_up_in_order(bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, 8 * 37).astype(np.uint8)
    centroids = rng.standard_normal(1 << bits).astype(np.float32)
    packed = pack(codes, bits)
    assert packed.size == packed_bytes(codes.size, bits) == codes.size * bits // 8
    tables, out = Tables(codes.size), np.empty(codes.size, dtype=np.float32)
    tables.decode(packed, bits, tables.table(centroids, bits), out)
    assert (out == centroids[codes]).all()


def test_shards_lie_behind_one_another_and_files_end_at_a_sector(model: Path) -> None:
    index = Index.load(model)
    assert index.bits == (*CODED, FULL)
    end = 0
    for by_bits in index.shards:
        for bits in (FULL, *CODED):
            end = -(-end // SECTOR) * SECTOR
            for shard in by_bits[bits]:
                assert shard.offset == end
                end += shard.length
    assert (model / SHARDS).stat().st_size == -(-end // SECTOR) * SECTOR


def test_full_precision_is_the_float_model(spec: Spec, wanted: NDArray[np.float32]) -> None:
    for words in ("hold", "read"):
        with opened(spec, bits=FULL, words=words) as system:
            np.testing.assert_allclose(system.run(), wanted, atol=1e-4)


def test_more_bits_answer_better(spec: Spec, wanted: NDArray[np.float32]) -> None:
    errors = []
    for bits in (*CODED, FULL):
        with opened(spec, bits=bits) as system:
            answer = system.run()
        assert np.isfinite(answer).all()
        errors.append(float(np.abs(answer - wanted).max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.01


@pytest.mark.parametrize("bits", [2, FULL])
def test_what_is_kept_changes_no_answer(spec: Spec, bits: int) -> None:
    answers = []
    for preload in (0, 5000, 30_000, 10**9):
        with opened(spec, bits=bits, preload=preload) as system:
            assert isinstance(system, paper.Streamed)
            assert system.kept_bytes <= preload
            answers += [system.run() for _ in range(3)]
    assert all((answer == answers[0]).all() for answer in answers)


def test_plan_keeps_its_target_and_never_keeps_more_than_asked(model: Path) -> None:
    index = Index.load(model)
    most = 0
    for latency in (0.005, 0.0055, 0.006, 0.008, 0.02):
        for preload in (0, 3000, 20_000, 10**9):
            found = plan(index, PROFILE, latency=latency, preload=preload)
            flat = [shard for row in found.shards(index) for shard in row]
            assert sum(shard.length for shard in flat[: found.kept]) <= preload
            assert min(budgets(index, PROFILE, found, latency)) >= 0
            most = max(most, found.kept)
            if latency == 0.02:
                assert found == uniform(index, FULL, preload)
    assert most == TINY.layers * TINY.heads


def test_plan_uses_the_time_it_has(model: Path) -> None:
    index = Index.load(model)
    found = plan(index, PROFILE, latency=0.005, preload=0)
    flat = [bits for row in found.bits for bits in row]
    assert len(set(flat)) > 1
    # No shard could be raised by one step more.
    for line, row in enumerate(found.bits):
        for number, bits in enumerate(row):
            if bits != FULL:
                higher = index.bits[index.bits.index(bits) + 1]
                rows = [list(other) for other in found.bits]
                rows[line][number] = higher
                raised = Plan(found.layers, tuple(map(tuple, rows)), 0)
                assert min(budgets(index, PROFILE, raised, 0.005)) < 0


def test_important_shards_are_raised_first(model: Path) -> None:
    index = Index.load(model)
    importance = np.zeros((TINY.layers, TINY.heads))
    importance[0, 3] = 1.0
    plain = plan(index, PROFILE, latency=0.0052, preload=0)
    found = plan(index, PROFILE, latency=0.0052, preload=0, importance=importance.tolist())
    assert found.bits[0][3] > plain.bits[0][3]
    assert found.bits[0][3] == max(found.bits[0])


def test_tight_target_leaves_out_layers_unless_they_are_asked_for(model: Path) -> None:
    index = Index.load(model)
    assert plan(index, PROFILE, latency=0.003, preload=0).layers == (0, 1)
    late = plan(index, PROFILE, latency=0.003, preload=0, least_layers=3)
    assert late.layers == (0, 1, 2)
    assert {bits for row in late.bits for bits in row} == {2}


def test_child_process_answers_cold_and_warm(
    spec: Spec, model: Path, wanted: NDArray[np.float32]
) -> None:
    systems = [
        System(
            name,
            "benchmarks.paper.system",
            replace(spec, options=options),
            tuple(sorted(model.iterdir())),
            cwd=ROOT,
        )
        for name, options in (
            ("full", {"bits": FULL}),
            ("planned", {"latency": 10.0, "preload": 10_000}),
            ("wrong", {"bits": 7}),
        )
    ]
    full, planned, wrong = compare(systems, cold=1, warm=1)
    for found in (full, planned):
        assert not found.failed and found.answer is not None
        assert (len(found.cold_s), len(found.rested_s), len(found.warm_s)) == (1, 1, IN_A_ROW)
        np.testing.assert_allclose(found.answer, wanted.astype(np.float64), atol=1e-4)
    assert "bits 7: the model has 2, 3, 4, 5, 6, 32" in wrong.failed


def test_directory_without_a_model_says_how_to_write_one(tmp_path: Path, spec: Spec) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.paper\.model CHECKPOINT"):
        paper.prepare(replace(spec, file=str(tmp_path), options={"bits": 2}))


def test_options_name_bits_or_a_latency(spec: Spec) -> None:
    for options in ({}, {"bits": 2, "latency": 1.0}):
        with pytest.raises(ValueError, match="one of `bits` and `latency`"):
            paper.prepare(replace(spec, options=options))


def test_command_line_writes_the_fidelities_it_is_asked_for(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_paper_model([str(checkpoint), str(tmp_path), "--bits", "4", "2"]) == 0
    assert Index.load(tmp_path).bits == (2, 4, FULL)
    assert "bits (2, 4, 32)" in capsys.readouterr().out
