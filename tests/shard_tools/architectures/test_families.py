"""Families of checkpoints: what transformers computes, by ``tests.tools.golden_families``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.float_reference import reference_states
from shard_tools.architectures.encoder.distances import buckets_by_distance
from shard_tools.architectures.registry import FAMILIES, open_model
from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError
from tests.support.family_checkpoints import write_family
from tests.support.paths import ROOT

CASES: dict[str, Any] = json.loads((ROOT / "tests" / "golden" / "families.json").read_text())
NARROW = "electra, narrow"


def written(directory: Path, name: str, **changes: object) -> Path:
    case = CASES[name]
    config = {key: value for key, value in (case["config"] | changes).items() if value is not None}
    return write_family(directory, config, case["tensors"])


@pytest.mark.parametrize("name", sorted(CASES.keys() - {NARROW}))
def test_the_reference_computes_what_transformers_does(tmp_path: Path, name: str) -> None:
    with Checkpoint(written(tmp_path, name)) as checkpoint:
        model = open_model(checkpoint)
        found = reference_states(model, CASES[name]["rows"])
        spec = model.graph_spec({kind.name: () for kind in model.kinds})
    expected = np.array(CASES[name]["states"], dtype=np.float32)
    assert expected.std() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert bool(spec.distances) == name.startswith("mpnet")


def test_every_family_is_compared() -> None:
    assert {case["config"]["model_type"] for case in CASES.values()} == set(FAMILIES)


def test_positions_begin_behind_the_padding_token(tmp_path: Path) -> None:
    counts = {}
    for name in ("bert", "roberta", "xlm-roberta", "mpnet, buckets"):
        with Checkpoint(written(tmp_path / name, name)) as checkpoint:
            model = open_model(checkpoint)
            counts[name] = model.positions
            assert len(model.residents(99)["embed.positions"]) == model.positions
            assert len(model.residents(8)["embed.types"]) == 2
    assert counts == {"bert": 40, "roberta": 38, "xlm-roberta": 39, "mpnet, buckets": 38}


def test_distilbert_understands_the_common_names_of_its_sizes(tmp_path: Path) -> None:
    """transformers lets them count before its own."""
    with Checkpoint(written(tmp_path, "distilbert", dim=None, hidden_size=16, n_heads=4)) as own:
        assert open_model(own).hidden == 16
        assert open_model(own).slices == 4
    common = written(
        tmp_path / "common", "distilbert", dim=32, hidden_size=16, num_attention_heads=4
    )
    with Checkpoint(common) as both:
        assert open_model(both).hidden == 16
        assert open_model(both).slices == 4


@pytest.mark.parametrize(
    ("name", "types", "pairs"),
    [("bert", 1, False), ("bert", 2, True), ("roberta", 1, True), ("distilbert", None, True)],
)
def test_pairs_are_for_models_that_tell_their_texts_apart_or_never_do(
    tmp_path: Path, name: str, types: int | None, pairs: bool
) -> None:
    case = CASES[name]
    config, tensors = dict(case["config"]), dict(case["tensors"])
    if types is not None:
        config["type_vocab_size"] = types
        for tensor in tensors:
            if "token_type" in tensor:
                tensors[tensor] = [types, config["hidden_size"]]
    with Checkpoint(write_family(tmp_path, config, tensors)) as checkpoint:
        model = open_model(checkpoint)
        assert model.pairs is pairs
        assert model.typed_pairs is (types == 2)
        assert len(model.residents(8)["embed.types"]) == 2


def test_a_family_is_found_by_the_class_where_no_model_type_is_named(tmp_path: Path) -> None:
    with Checkpoint(written(tmp_path, "roberta", model_type=None)) as checkpoint:
        model = open_model(checkpoint)
    assert model.architecture == "roberta"
    assert "model_type" in model.told[0]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (NARROW, {}, "token embeddings of 8 numbers for a model of 16 are not supported"),
        ("bert", {"model_type": "deberta-v2"}, "supported: bert, camembert, distilbert, electra"),
        ("mpnet", {"relative_attention_num_buckets": 31}, "an integer of at least 32"),
        ("roberta", {"pad_token_id": 38}, "'max_position_embeddings' must be at least 42"),
        ("distilbert", {"dim": None}, "'dim' must be an integer"),
        ("roberta", {"is_decoder": True}, "decoders are not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    written(tmp_path, name, **changes)
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(CheckpointError) as caught,
    ):
        open_model(checkpoint)
    assert message in str(caught.value)


def test_distances_beyond_the_last_told_apart_are_in_its_bucket() -> None:
    found = buckets_by_distance(32, 128)
    assert len(found) % 2 == 1 and (found[0], found[-1]) == (15, 31)
    assert found[1] != found[0] and found[-2] != found[-1]
    middle = len(found) // 2
    assert found[middle - 3 : middle + 4].tolist() == [3, 2, 1, 0, 17, 18, 19]
