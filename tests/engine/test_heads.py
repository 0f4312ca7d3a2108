"""Packs whose heads do more than pool or classify: their sizes, labels that each hold, sigmoids."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import sti
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.engine.merging import merge_results
from tests.support.checkpoints import write_checkpoint
from tests.support.packs import SHAPE

TEXTS = ["the dog runs under the table", "a cat"]


def packed(directory: Path) -> Path:
    build(directory / "checkpoint", directory / "pack", BuildOptions(), progress=False)
    return directory / "pack"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("labels")
    config = {"problem_type": "multi_label_classification"}
    write_checkpoint(place / "checkpoint", task="classification", shape=SHAPE, config=config)
    return packed(place)


@pytest.fixture(scope="module")
def engine(labels: Path) -> Iterator[sti.Engine]:
    with sti.Engine.open(labels, fidelity=8) as opened:
        opened.run(TEXTS)  # starts its threads
        yield opened


def test_each_label_has_a_probability_of_its_own(engine: sti.Engine) -> None:
    result = engine.run(TEXTS)
    assert result.task == "multi_label"
    for row, logits in zip(result.classes, result.logits.tolist(), strict=True):
        expected = dict(zip(engine.labels, logits, strict=True))
        assert {item.name for item in row} == set(engine.labels)
        assert sorted((item.score for item in row), reverse=True) == [item.score for item in row]
        for item in row:
            assert item.score == pytest.approx(1 / (1 + math.exp(-expected[item.name])), rel=1e-6)


@pytest.mark.parametrize("threshold", [0, 0.3, None, 1.0])
def test_the_labels_that_score_the_threshold_hold(
    engine: sti.Engine, threshold: float | None
) -> None:
    least = 0.5 if threshold is None else threshold
    result = engine.run(TEXTS, threshold=threshold)
    held = [[item for item in row if item.score >= least] for row in result.classes]
    assert [list(row) for row in result.labels] == held
    assert engine.classify(TEXTS, threshold=threshold) == held
    assert [
        list(row) for part in engine.stream(TEXTS, threshold=threshold) for row in part.labels
    ] == held
    found = result.to_json()
    assert (found["labels"], found["threshold"]) == (
        [[item.name for item in row] for row in held],
        least,
    )


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, True, "0.5"])
def test_a_threshold_beyond_its_bounds_is_refused(engine: sti.Engine, threshold: object) -> None:
    for call in (engine.run, engine.classify, engine.stream):
        with pytest.raises(sti.InputError, match="from 0 to 1"):
            call(TEXTS, threshold=threshold)  # type: ignore[operator]


def test_results_of_labels_are_joined_and_have_no_decisions(engine: sti.Engine) -> None:
    parts = [engine.run([text], threshold=0.2) for text in TEXTS]
    whole = merge_results(parts)
    assert whole.labels == tuple(row for part in parts for row in part.labels)
    assert whole.at(0.9).parts[0].threshold == 0.9
    with pytest.raises(sti.InputError, match="no `decisions`; use `labels`"):
        _ = whole.decisions


def test_a_cross_encoder_answers_through_a_sigmoid(tmp_path: Path) -> None:
    config = {"problem_type": None}
    write_checkpoint(tmp_path / "checkpoint", task="regression", shape=SHAPE, config=config)
    with sti.Engine.open(packed(tmp_path), fidelity=8) as engine:
        result = engine.run([("the dog", "a cat")])
        ((value,),) = result.values
    assert value.value == pytest.approx(1 / (1 + math.exp(-result.logits[0, 0])), rel=1e-6)


def test_an_embedding_may_be_of_another_size_than_hidden_states(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    write_checkpoint(place, shape=SHAPE)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [{"path": key, "type": f"sentence_transformers.models.{kinds[key]}"} for key in kinds]
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": SHAPE.hidden, "pooling_mode": ["max", "lasttoken"]})
    )
    dense = {"in_features": 2 * SHAPE.hidden, "out_features": 5, "bias": False}
    (place / "2_Dense").mkdir()
    (place / "2_Dense" / "config.json").write_text(json.dumps(dense))
    weights = np.random.default_rng(0).standard_normal((5, 2 * SHAPE.hidden)).astype(np.float32)
    save_file({"linear.weight": weights}, place / "2_Dense" / "model.safetensors")
    with sti.Engine.open(packed(tmp_path), fidelity=8) as engine:
        assert engine.dimension == 5
        together = engine.embed(TEXTS)
        assert together.shape == (2, 5) and np.abs(together).max() <= 1
        for text, row in zip(TEXTS, together, strict=True):
            assert engine.embed([text])[0] == pytest.approx(row, abs=1e-5)


def test_pairs_are_refused_where_their_texts_cannot_be_told_apart(tmp_path: Path) -> None:
    shape = replace(SHAPE, types=1)
    write_checkpoint(tmp_path / "checkpoint", shape=shape)
    with sti.Engine.open(packed(tmp_path), fidelity=8) as opened:
        assert len(opened.embed(["a cat"])) == 1
        with pytest.raises(sti.InputError, match="has but one type of tokens"):
            opened.embed([("a cat", "the dog")])
