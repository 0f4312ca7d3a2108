"""Reading checkpoints: values, tasks, and a clear error for everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shard_tools.architectures.base import Model
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError
from tests.support.checkpoints import LABELS, TINY, save_tensors, write_checkpoint

WORDS = "embeddings.word_embeddings.weight"
UP = "encoder.layer.1.intermediate.dense.weight"


def opened(directory: Path, slices: int | None = None) -> Model:
    with Checkpoint(directory) as checkpoint:
        return open_model(checkpoint, slices=slices)


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: item for key, item in values.items() if item is not None}))


def change_tensors(directory: Path, **changes: np.ndarray | None) -> None:
    """Replace or remove (None) tensors; ``__`` in a name stands for a dot."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    for name, values in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if values is not None:
            tensors[name.replace("__", ".")] = values
    save_file(tensors, path)


@pytest.mark.parametrize("files", [1, 3])
def test_tensors_equal_those_of_the_reference_library(tmp_path: Path, files: int) -> None:
    write_checkpoint(tmp_path, files=files)
    expected: dict[str, np.ndarray] = {}
    for path in tmp_path.glob("*.safetensors"):
        expected |= load_file(path)
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.names() == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(checkpoint.tensor(name, values.shape), values)
        np.testing.assert_array_equal(checkpoint.rows(WORDS, 5, 9), expected[WORDS][5:9])


@pytest.mark.parametrize(("dtype", "error"), [("F16", 2**-11), ("BF16", 2**-7)])
def test_half_precision_is_widened(tmp_path: Path, dtype: str, error: float) -> None:
    write_checkpoint(tmp_path / "full")
    write_checkpoint(tmp_path / "half", dtype=dtype)  # type: ignore[arg-type]
    with Checkpoint(tmp_path / "full") as full, Checkpoint(tmp_path / "half") as half:
        exact, found = full.tensor(UP, (64, 32)), half.tensor(UP, (64, 32))
        assert found.dtype == np.float32
        assert not np.array_equal(found, exact)
        np.testing.assert_allclose(found, exact, rtol=error, atol=1e-7)
        np.testing.assert_array_equal(
            half.rows(WORDS, 3, 5), half.tensor(WORDS, half.shape(WORDS))[3:5]
        )


@pytest.mark.parametrize(
    ("task", "prefix", "expected", "labels"),
    [
        ("embedding", False, "embedding", ()),
        ("classification", True, "classification", LABELS),
        ("mean_classification", False, "classification", LABELS),
        ("regression", True, "regression", ("LABEL_0",)),
        ("tagging", True, "tagging", LABELS),
    ],
)
def test_the_task_is_found(
    tmp_path: Path, task: str, prefix: bool, expected: str, labels: tuple[str, ...]
) -> None:
    write_checkpoint(tmp_path, task=task, prefix=prefix)  # type: ignore[arg-type]
    model = opened(tmp_path)
    assert (model.task, model.labels) == (expected, labels)


def head_inputs(directory: Path) -> set[str]:
    with Checkpoint(directory) as checkpoint:
        residents = open_model(checkpoint).residents(8)
    return {name for name in residents if name.startswith("head.")}


def test_a_classifier_behind_pooling_modules_needs_no_pooler(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "mean", task="mean_classification")
    write_checkpoint(tmp_path / "pooler", task="classification")
    linear = {"head.classifier_w", "head.classifier_b"}
    assert head_inputs(tmp_path / "mean") == linear
    assert head_inputs(tmp_path / "pooler") == linear | {"head.pooler_w", "head.pooler_b"}


def test_problem_type_makes_a_regression(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, task="classification", config={"problem_type": "regression"})
    assert opened(tmp_path).task == "regression"


def test_a_bare_encoder_is_a_sentence_embedding_with_mean_pooling(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config={"architectures": None})
    (tmp_path / "modules.json").unlink()
    (tmp_path / "1_Pooling" / "config.json").unlink()
    assert opened(tmp_path).task == "embedding"


def test_old_names_of_norms_are_understood(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "new")
    write_checkpoint(tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, values in load_file(path).items():
        for new, old in ends.items():
            name = name.replace(new, old)
        renamed[name] = values
    save_file(renamed, path)
    with Checkpoint(tmp_path / "old") as first, Checkpoint(tmp_path / "new") as second:
        found, expected = (
            open_model(item).block(1, "ffn").vectors["gamma"] for item in (first, second)
        )
    np.testing.assert_array_equal(found, expected)


def test_the_query_is_scaled_and_matrices_are_turned(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, prefix=True)
    raw = load_file(tmp_path / "model.safetensors")
    base = "bert.encoder.layer.1.attention."
    with Checkpoint(tmp_path) as checkpoint:
        block = open_model(checkpoint).block(1, "attention")
    root = np.float32(1 / np.sqrt(TINY.hidden // TINY.heads))
    np.testing.assert_array_equal(block.matrices["q"], raw[base + "self.query.weight"].T * root)
    np.testing.assert_array_equal(block.matrices["o"], raw[base + "output.dense.weight"].T)
    np.testing.assert_array_equal(
        block.vectors["q_bias"].ravel(), raw[base + "self.query.bias"] * root
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported: bert"),
        ({"model_type": ["bert"]}, "model_type ['bert'] is not supported"),
        ({"hidden_act": "quick_gelu"}, "hidden_act 'quick_gelu' is not supported; supported: gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "decoders are not supported"),
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' must be an integer of at most"),
        ({"hidden_size": 10**9}, "'hidden_size' must be an integer of at most"),
        ({"layer_norm_eps": 1e300}, "'layer_norm_eps' must be a number of at most 1"),
        ({"layer_norm_eps": 0.0}, "'layer_norm_eps' must be a finite number of at least"),
        ({"num_hidden_layers": "two"}, "'num_hidden_layers' must be an integer"),
        ({"num_hidden_layers": None}, "'num_hidden_layers' must be an integer"),
        ({"hidden_size": 64}, "shape"),
        ({"vocab_size": 7}, "expected [7, 32] by config.json"),
    ],
)
def test_unsupported_details_are_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_checkpoint(tmp_path, config=change)
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["BertForQuestionAnswering", "BertLMHeadModel", "GPT2Model"])
def test_unsupported_architectures_are_named_with_what_is_supported(
    tmp_path: Path, name: str
) -> None:
    write_checkpoint(tmp_path, task="classification", config={"architectures": [name]})
    with pytest.raises(CheckpointError, match=f"architecture {name} .*BertForSequenceClassifi"):
        opened(tmp_path)


def test_what_old_configurations_leave_out_is_as_transformers_has_it_and_told(
    tmp_path: Path,
) -> None:
    missing = ("model_type", "layer_norm_eps", "hidden_act", "type_vocab_size")
    write_checkpoint(tmp_path / "old", config=dict.fromkeys(missing))
    write_checkpoint(tmp_path / "new")
    old, new = opened(tmp_path / "old"), opened(tmp_path / "new")
    side = {kind.name: () for kind in new.kinds}
    assert old.graph_spec(side) == new.graph_spec(side)
    assert len(old.told) == len(missing) and not new.told
    assert all(any(key in told for told in old.told) for key in missing)


@pytest.mark.parametrize("slices", [0, 3, 5, 8, -4])
def test_slices_must_divide_heads_and_neurons(tmp_path: Path, slices: int) -> None:
    write_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=f"{slices} slices do not divide.*possible: 1, 2, 4"):
        opened(tmp_path, slices)


def test_a_missing_directory_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing-here: no such directory"):
        Checkpoint(tmp_path / "nothing-here")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        Checkpoint(tmp_path)
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff\xfe", "[" * 100_000])
def test_a_malformed_configuration_is_an_error(tmp_path: Path, text: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    change_tensors(tmp_path, **{UP.replace(".", "__"): None})
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match=UP):
        open_model(checkpoint).block(1, "ffn")


def test_a_missing_classifier_or_pooler_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, task="classification")
    change_tensors(tmp_path, pooler__dense__weight=None)
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match="pooler"):
        open_model(checkpoint).residents(8)
    change_tensors(tmp_path, classifier__weight=None)
    with pytest.raises(CheckpointError, match=r"classifier.weight.*missing"):
        opened(tmp_path)


def test_a_wrong_shape_is_named_with_what_was_expected(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    change_tensors(tmp_path, **{UP.replace(".", "__"): np.zeros((64, 31), np.float32)})
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError) as caught:
        open_model(checkpoint).block(1, "ffn")
    assert all(part in str(caught.value) for part in (UP, "[64, 31]", "[64, 32]"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    write_checkpoint(tmp_path)
    bad = np.zeros((64, 32), np.float32)
    bad[3, 4:6] = value, -value
    change_tensors(tmp_path, **{UP.replace(".", "__"): bad})
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError) as caught:
        open_model(checkpoint).block(1, "ffn")
    assert UP in str(caught.value)
    assert "2 values that are NaN or infinite" in str(caught.value)


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    change_tensors(tmp_path, **{UP.replace(".", "__"): np.zeros((64, 32), np.int32)})
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match="type I32"):
        open_model(checkpoint).block(1, "ffn")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "a", "1": "b"}, "2 labels.*3 rows"),
        ({"0": "a", "1": "b", "3": "c"}, "labels numbered from 0"),
        ({"0": 1.5}, "must be a string or an integer"),
    ],
)
def test_labels_must_fit_the_classifier(
    tmp_path: Path, labels: dict[str, object], message: str
) -> None:
    write_checkpoint(tmp_path, task="classification", config={"id2label": labels})
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path)


def test_default_labels_of_another_number_are_replaced(tmp_path: Path) -> None:
    defaults = {"0": "LABEL_0", "1": "LABEL_1"}
    write_checkpoint(tmp_path, task="tagging", config={"id2label": defaults})
    assert opened(tmp_path).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_an_index_must_agree_with_its_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, files=2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    good = index["weight_map"]
    for change, message in [
        ({"no.such.tensor": good[WORDS]}, "'no.such.tensor' is not in"),
        ({WORDS: "other.safetensors"}, "'other.safetensors', which is not in the directory"),
        ({WORDS: "../model.safetensors"}, "not in the directory"),
        ({WORDS: 7}, "must be a string"),
    ]:
        path.write_text(json.dumps({"weight_map": {**good, **change}}))
        with pytest.raises(CheckpointError, match=message):
            Checkpoint(tmp_path)


def test_a_truncated_or_malformed_tensor_file_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    for broken in (
        b"",
        data[:5],
        data[: 8 + header // 2],
        data[:-1],
        data + b"\0",
        data[:8] + b"x" + data[9:],
        (2**63).to_bytes(8, "little") + data[8:],
    ):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 4), (8, 12)),  # a hole
        ((0, 4), (0, 4)),  # an overlap
        ((4, 0), (4, 8)),  # backwards
        ((0, 4), (4, 9)),  # more bytes than the shape
    ],
)
def test_tensors_must_follow_one_another(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int]
) -> None:
    write_checkpoint(tmp_path)
    entries = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": list(span)}
        for name, span in (("a", first), ("b", second))
    }
    header = json.dumps(entries).encode()
    size = max(second)
    (tmp_path / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(size)
    )
    with pytest.raises(CheckpointError, match=r"tensor 'b'|tensor 'a'"):
        Checkpoint(tmp_path)


def test_two_files_with_the_same_tensor_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, files=2)
    extra = {"twin": ("F32", (1,), b"\0\0\0\0")}
    for number in (1, 2):
        path = tmp_path / f"model-{number:05d}-of-00002.safetensors"
        save_tensors(path, extra)
    index = {"weight_map": {"twin": path.name, "x": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="'twin' is also in another file"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "header",
    [b'{"__metadata__": {' + b'"a": "b",' * (1 << 19) + b'"a": "b"}}', b"{}".ljust(1 << 25)],
)
def test_a_header_of_more_than_there_are_tensors_is_refused_unread(
    tmp_path: Path, header: bytes
) -> None:
    write_checkpoint(tmp_path)
    raw = len(header).to_bytes(8, "little") + header
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"may have|may be"):
        opened(tmp_path)
