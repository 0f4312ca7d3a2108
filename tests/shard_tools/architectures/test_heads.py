"""Which head a checkpoint has, by its configuration, its tensors and its module files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shard_tools.architectures.base import Model
from shard_tools.architectures.heads.head import Head
from shard_tools.architectures.heads.names import DISTILBERT, ELECTRA, ROBERTA, HeadNames
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.embed_head import HeadSpec, HeadStep
from shard_tools.packing.build import dry_run
from shard_tools.packing.options import BuildOptions
from sti.errors import CheckpointError, InputError
from tests.support.checkpoints import TINY, Task, write_checkpoint

HIDDEN = TINY.hidden
TANH = "torch.nn.modules.activation.Tanh"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


def opened(directory: Path) -> Model:
    with Checkpoint(directory) as checkpoint:
        return open_model(checkpoint)


def spec(directory: Path) -> HeadSpec:
    return opened(directory).graph_spec({"attention": (), "ffn": ()}).head


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def write_modules(directory: Path, *kinds: str, package: str = "sentence_transformers") -> None:
    paths = {"Pooling": "1_Pooling", "Transformer": ""}
    modules = [
        {"path": paths.get(kind, f"{number}_{kind}"), "type": f"{package}.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    write_json(directory / "modules.json", modules)


def write_dense(directory: Path, inputs: int, outputs: int, **changes: object) -> None:
    rng = np.random.default_rng(outputs)
    settings = {"in_features": inputs, "out_features": outputs, "bias": True}
    write_json(directory / "config.json", settings | {"activation_function": TANH} | changes)
    tensors = {
        "linear.weight": rng.standard_normal((outputs, inputs)).astype(np.float32),
        "linear.bias": rng.standard_normal(outputs).astype(np.float32),
    }
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True}, ("cls", "last")),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
        ({}, ("mean",)),
        ({"embedding_dimension": HIDDEN, "pooling_mode": "mean_sqrt_len_tokens"}, ("sqrt_len",)),
        ({"pooling_mode": ["weightedmean", "mean"]}, ("weighted_mean", "mean")),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",)),
    ],
)
def test_pooling_is_read_as_old_and_new_releases_write_it(
    tmp_path: Path, config: Mapping[str, object], expected: tuple[str, ...]
) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling")
    write_json(tmp_path / "1_Pooling" / "config.json", config)
    assert spec(tmp_path).poolings == expected
    assert opened(tmp_path).dimension == HIDDEN * len(expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode_topk": True}, "pooling 'pooling_mode_topk' is not supported"),
        ({"pooling_mode": "attention"}, "pooling 'attention' is not supported"),
        ({"pooling_mode": []}, "the name of a way of pooling"),
        ({"pooling_mode": ["mean"] * 9}, "pools in 9 ways"),
        ({"pooling_mode": "mean", "include_prompt": False}, "include_prompt false"),
        ({"word_embedding_dimension": 7}, "word_embedding_dimension.*hidden_size"),
    ],
)
def test_pooling_that_is_not_supported_is_named(
    tmp_path: Path, config: Mapping[str, object], message: str
) -> None:
    write_checkpoint(tmp_path)
    write_json(tmp_path / "1_Pooling" / "config.json", config)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("kinds", [("Transformer", "Pooling", "LSTM"), ("Transformer",), ()])
def test_unsupported_modules_are_named(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, *kinds)
    with pytest.raises(CheckpointError, match=r"modules\.json.*not supported; .*Dense, LayerNorm"):
        opened(tmp_path)


def test_modules_that_are_numbered_otherwise_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling")
    modules = json.loads((tmp_path / "modules.json").read_text())
    write_json(tmp_path / "modules.json", [item | {"idx": 1} for item in modules])
    with pytest.raises(CheckpointError, match="'idx' must be 0, its place in the list"):
        opened(tmp_path)


@pytest.mark.parametrize("folder", ["", ".", "/tmp", "a/../b"])
def test_modules_are_in_folders_of_their_own(tmp_path: Path, folder: str) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling")
    modules = json.loads((tmp_path / "modules.json").read_text())
    write_json(tmp_path / "modules.json", [modules[0], modules[1] | {"path": folder}])
    with pytest.raises(CheckpointError, match="Pooling module must be in a folder inside"):
        opened(tmp_path)


def test_modules_of_other_packages_are_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling", package="custom_st")
    with pytest.raises(CheckpointError, match=r"modules custom_st\.models\.Transformer"):
        opened(tmp_path)


def test_dense_layers_and_norms_behind_the_pooling_are_computed_in_order(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
    write_dense(tmp_path / "2_Dense", HIDDEN, 24)
    write_json(tmp_path / "3_LayerNorm" / "config.json", {"dimension": 24})
    norm = {"norm.weight": np.full(24, 2.0, np.float32), "norm.bias": np.ones(24, np.float32)}
    save_file(norm, tmp_path / "3_LayerNorm" / "model.safetensors")
    steps = (HeadStep("dense", 24, "tanh"), HeadStep("norm", 24), HeadStep("normalize", 24))
    with Checkpoint(tmp_path) as checkpoint:
        model = open_model(checkpoint)
        residents = model.residents(8)
    assert spec(tmp_path) == HeadSpec("embedding", ("mean",), steps)
    assert model.dimension == 24
    hidden = np.random.default_rng(3).standard_normal((5, HIDDEN)).astype(np.float32)
    dense = load_file(tmp_path / "2_Dense" / "model.safetensors")
    expected = np.stack([hidden[:2].mean(axis=0), hidden[2:].mean(axis=0)])
    expected = np.tanh(expected @ dense["linear.weight"].T + dense["linear.bias"])
    expected -= expected.mean(axis=1, keepdims=True)
    expected = expected / np.sqrt(expected.var(axis=1, keepdims=True) + 1e-5) * 2 + 1
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.answer(hidden, (2, 3), residents), expected, atol=1e-5)


def test_an_output_must_not_be_the_tensors_of_a_module(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling", "Dense")
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    write_dense(tmp_path / "2_Dense", HIDDEN, 24)
    output = tmp_path / "2_Dense" / "model.safetensors"
    with pytest.raises(InputError, match="is read for this pack"):
        dry_run(tmp_path, output, BuildOptions())
    summary = dry_run(tmp_path, None, BuildOptions())
    told = {line.split()[0]: line for line in summary.lines()}
    assert "dense 24 tanh" in told["head"] and told["task"].endswith("embedding, 24 numbers")
    assert not summary.settings.unknown and "2_Dense" not in " ".join(summary.unread)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.SELU"}, "SELU' is not supported"),
        ({"activation_function": "my.own.Tanh"}, "my.own.Tanh' is not supported"),
        ({"activation_function": ["Tanh"]}, "'Tanh'. is not supported"),
        ({"activation_function": {}}, "activation_function {} is not supported"),
        ({"use_residual": True}, "use_residual true"),
        ({"in_features": 12}, "in_features"),
        ({"out_features": 0}, "out_features"),
        ({"module_input_name": "token_embeddings"}, "module_input_name"),
    ],
)
def test_dense_layers_that_are_not_supported_are_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling", "Dense")
    write_dense(tmp_path / "2_Dense", HIDDEN, 24, **changes)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path)


def test_pickled_weights_of_a_module_are_named_and_not_opened(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_modules(tmp_path, "Transformer", "Pooling", "Dense")
    write_dense(tmp_path / "2_Dense", HIDDEN, 24)
    (tmp_path / "2_Dense" / "model.safetensors").rename(tmp_path / "2_Dense" / "pytorch_model.bin")
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match="2_Dense"):
        open_model(checkpoint).residents(8)


@pytest.mark.parametrize(
    ("outputs", "config", "own", "expected"),
    [
        (1, {}, None, ("regression", "sigmoid")),
        (1, {"problem_type": "regression"}, None, ("regression", "")),
        (1, {"problem_type": "regression"}, SIGMOID, ("regression", "sigmoid")),
        (1, {"sbert_ce_default_activation_function": IDENTITY}, None, ("regression", "")),
        (1, {"sentence_transformers": {"activation_fn": IDENTITY}}, None, ("regression", "")),
        (
            1,
            {"sentence_transformers": {"activation_fn": IDENTITY}},
            SIGMOID,
            ("regression", "sigmoid"),
        ),
        (3, {}, IDENTITY, ("classification", "")),
        (3, {"problem_type": "multi_label_classification"}, None, ("multi_label", "")),
        (3, {"problem_type": "multi_label_classification"}, SIGMOID, ("multi_label", "")),
    ],
)
def test_scores_are_those_of_sentence_transformers_and_transformers(
    tmp_path: Path,
    outputs: int,
    config: dict[str, object],
    own: str | None,
    expected: tuple[str, str],
) -> None:
    task = "regression" if outputs == 1 else "classification"
    changes = {"problem_type": None} | config
    write_checkpoint(tmp_path, task=task, config=changes)  # type: ignore[arg-type]
    if own is not None:
        write_json(tmp_path / "config_sentence_transformers.json", {"activation_fn": own})
    model = opened(tmp_path)
    assert (model.task, model.activation) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sbert_ce_default_activation_function": "my.Scale"}, "my.Scale' is not supported"),
        ({"sbert_ce_default_activation_function": SIGMOID}, "with 3 labels"),
        ({"problem_type": "ranking"}, "problem_type"),
        (
            {
                "problem_type": "multi_label_classification",
                "sbert_ce_default_activation_function": IDENTITY,
            },
            "contradicts multi_label",
        ),
    ],
)
def test_scores_that_are_not_supported_are_named(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    write_checkpoint(tmp_path, task="classification", config=config)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"id2label": {"0": 1, "1": 2, "2": 3}}, ("1", "2", "3")),
        ({"id2label": None, "label2id": {"b": 1, "a": "0", "c": 2}}, ("a", "b", "c")),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}, "abc"),
        ({"id2label": None}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_may_be_numbers_and_stand_either_way_round(
    tmp_path: Path, labels: dict[str, object], expected: tuple[str, ...]
) -> None:
    write_checkpoint(tmp_path, task="classification", config=labels)
    assert opened(tmp_path).labels == tuple(expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"label2id": {"x": 0, "b": 1, "c": 2}}, "id2label and label2id contradict"),
        ({"num_labels": 2}, "num_labels is 2, tensor 'classifier.weight' has 3 rows"),
        ({"id2label": None, "label2id": {"a": 0, "b": 2}}, "numbered from 0"),
        ({"id2label": None, "label2id": {"a": -1, "b": 0}}, "numbered from 0"),
        ({"id2label": {"0": "a", "01": "b", "1": "c"}}, "numbered from 0"),
        ({"id2label": {"0": "a", "1": "b", "9" * 5000: "c"}}, "numbered from 0"),
        ({"id2label": None, "label2id": {"a": "9" * 5000}}, "the number of a label"),
        ({"id2label": {"0": True, "1": "b", "2": "c"}}, "a string or an integer"),
    ],
)
def test_labels_that_contradict_one_another_are_named(
    tmp_path: Path, labels: dict[str, object], message: str
) -> None:
    write_checkpoint(tmp_path, task="classification", config=labels)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForPreTraining", "BertModel"])
def test_checkpoints_of_pretraining_are_encoders(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, task="classification", config={"architectures": [name]})
    model = opened(tmp_path)
    assert (model.task, spec(tmp_path).poolings) == ("embedding", ("mean",))
    assert [name in told and "mean pooling" in told for told in model.told] == (
        [] if name.endswith("Model") else [True]
    )


@pytest.mark.parametrize("task", ["embedding", "tagging", "classification"])
def test_cross_encoders_classify_texts(tmp_path: Path, task: Task) -> None:
    write_checkpoint(tmp_path, task=task)
    write_json(tmp_path / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    if task == "classification":
        assert opened(tmp_path).task == task
    else:
        with pytest.raises(CheckpointError, match="'CrossEncoder' is for classifiers of texts"):
            opened(tmp_path)


@pytest.mark.parametrize(
    ("names", "dense", "classifier", "activation"),
    [
        (ROBERTA, "classifier.dense", "classifier.out_proj", np.tanh),
        (DISTILBERT, "pre_classifier", "classifier", lambda x: np.maximum(x, 0)),
        (ELECTRA, "classifier.dense", "classifier.out_proj", None),
    ],
)
def test_families_classify_the_first_token_through_their_own_layers(
    tmp_path: Path, names: HeadNames, dense: str, classifier: str, activation: object
) -> None:
    rng = np.random.default_rng(4)
    shapes = {dense: (HIDDEN, HIDDEN), classifier: (3, HIDDEN)}
    tensors = {
        f"{module}.{part}": rng.standard_normal(shape[: 2 if part == "weight" else 1]).astype(
            np.float32
        )
        for module, shape in shapes.items()
        for part in ("weight", "bias")
    }
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"architectures": [f"{names.stem}ForSequenceClassification"]}
    write_json(tmp_path / "config.json", config)
    hidden = rng.standard_normal((5, HIDDEN)).astype(np.float32) / 8
    with Checkpoint(tmp_path) as checkpoint:
        head = Head(checkpoint, names, prefix="x.", hidden=HIDDEN)
        found = head.answer(hidden, (2, 3), head.residents())
    rows = hidden[[0, 2]] @ tensors[f"{dense}.weight"].T + tensors[f"{dense}.bias"]
    if callable(activation):
        rows = activation(rows)
    else:
        rows *= 0.5 * (1 + np.vectorize(math.erf)(rows / math.sqrt(2)))
    expected = rows @ tensors[f"{classifier}.weight"].T + tensors[f"{classifier}.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-4)
